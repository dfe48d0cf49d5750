"""The guardrail: its gold answers are the rules', its pictures are never shared by two sides."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from datasets_builders.check import check
from datasets_builders.guardrail import wording
from datasets_builders.guardrail.builder import POLICIES, build, gold_rationale, plan, verify
from datasets_builders.guardrail.drawing import Scene, all_scenes, draw_scene
from trimpi.errors import UserError
from trimpi.policy_file import read_policy_file
from trimpi.rules import RuleSet

SMALL = {"train_cot": 20, "test": 8, "override": 6}


def rules_of(name: str) -> RuleSet:
    return RuleSet.from_metadata(read_policy_file(POLICIES / f"{name}.md").metadata)


@pytest.mark.parametrize("name", sorted(file.stem for file in POLICIES.glob("*.md")))
def test_policies_decide_every_picture_and_every_rule_counts(name: str) -> None:
    assert rules_of(name).faults() == []


def test_rationale_tries_the_rules_about_the_item_up_to_the_one_that_holds() -> None:
    facts = {"item": "pills", "place": "street", "people": "an adult", "age": 30}
    assert wording.rationale(rules_of("ostrel"), facts) == (
        "The picture shows: item pills, place street, people an adult. The viewer has age 30.\n"
        "Rule R7: place is clinic: no.\n"
        "Rule R8: people is a child: no.\n"
        "Rule R9: it holds.\n"
        "The response is blur, drugs, severity 1."
    )


def test_the_same_picture_under_two_policies_and_two_versions() -> None:
    facts = {"item": "dice", "place": "street", "people": "nobody", "age": 30}
    said = {n: rules_of(n).decide(facts) for n in ("ostrel", "ostrel-2", "tavian")}
    assert {n: rule and rule.outcome for n, rule in said.items()} == {
        "ostrel": "allow, gambling, severity 1",
        "ostrel-2": "blur, gambling, severity 2",
        "tavian": "allow, none, severity 0",
    }


def test_pictures_differ_by_scene_and_are_fixed_by_the_seed() -> None:
    first, again = (
        np.asarray(draw_scene(random.Random(3), Scene("knife", "street", "a child"), 96, 64))
        for _ in range(2)
    )
    other = np.asarray(draw_scene(random.Random(3), Scene("gun", "street", "a child"), 96, 64))
    assert first.shape == (64, 96, 3) and (first == again).all() and (first != other).any()
    assert len(set(all_scenes())) == 10 * 4 * 3


def test_a_build_is_clean_and_repeats_to_the_byte(tmp_path: Path) -> None:
    data = build(tmp_path / "a", seed=1, **SMALL)
    twin = build(tmp_path / "b", seed=1, **SMALL)
    assert check(data.root) == []
    assert data.card["digest"] == twin.card["digest"]
    assert data.card["splits"] == {"override": 12, "test": 16, "train_cot": 40}
    both = data.read("test")
    assert [s.policy for s in both[:2]] == ["ostrel", "tavian"]
    assert Path(both[0].images[0]).read_bytes() == Path(both[1].images[0]).read_bytes()
    assert set(data.card["coverage"]) >= {"ostrel", "tavian"}


def test_verify_derives_answer_rule_and_rationale(tmp_path: Path) -> None:
    data = build(tmp_path / "a", seed=2, **SMALL)
    row = data.read("test")[0]
    policy = data.policies[str(row.policy)]
    assert verify(row, policy) == [] and gold_rationale(row, policy) == row.rationale
    from dataclasses import replace

    wrong = replace(row, answer="allow, none, severity 9")
    assert "the rules give" in verify(wrong, policy)[0]
    other = replace(row, facts={**row.facts, "rules": ["R99"]})
    assert "decides" in verify(other, policy)[0]


def test_update_marks_what_changed(tmp_path: Path) -> None:
    args = {**SMALL, "policies": ["ostrel"], "override": None}
    data = build(tmp_path / "a", seed=0, **args, update={"rows": 60, "replay": 0.5})
    assert set(data.splits) == {"train_cot", "train_cot_new", "update", "test"}
    old, new = rules_of("ostrel"), rules_of("ostrel-2")
    rows = data.read("update")
    for row in rows:
        before, after = old.decide(row.facts), new.decide(row.facts)
        assert before is not None and after is not None
        differs = before.outcome != after.outcome
        assert row.policy == "ostrel-2" and row.answer == after.outcome
        assert row.facts["changed"] or not differs
    share = sum(row.facts["changed"] for row in rows) / len(rows)
    assert 0.3 < share < 0.7
    assert {s.policy for s in data.read("train_cot")} == {"ostrel"}


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"polices": ["ostrel"]}, "polices: unknown argument; did you mean 'policies'?"),
        ({"policies": "ostrel"}, "policies: must be a list of names or files, found 'ostrel'"),
        ({"policies": ["nobody"]}, "policies: no policy 'nobody'; give a file, or one of"),
        ({"policies": ["ostrel_2", "tavian"]}, "policies: no policy 'ostrel_2'"),
        ({"test": 0}, "test: must be a whole number from 1 on, found 0"),
        ({"override": 0}, "override: must be a whole number from 1 on or null, found 0"),
        ({"update": {"rows": 5}}, "update: must be {rows: a whole number"),
    ],
)
def test_wrong_arguments(args: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(**args)
    assert line in str(caught.value)


def test_a_policy_that_leaves_a_gap_is_refused(tmp_path: Path) -> None:
    text = (POLICIES / "ostrel.md").read_text(encoding="utf-8")
    text = text.replace("- **R18.** Otherwise, the response is `allow, none, severity 0`.\n", "")
    (tmp_path / "images").mkdir()
    for file in (POLICIES / "images").iterdir():
        (tmp_path / "images" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "gap.md").write_text(text, encoding="utf-8")
    with pytest.raises(UserError) as caught:
        plan(policies=[str(tmp_path / "gap.md")], override=None)
    assert "gap.md: gap:" in str(caught.value)
    assert json.dumps(str(caught.value)).count("\\n") == 0  # one line
