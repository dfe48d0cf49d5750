"""The argument policy_text: checked, counted, written as splits of a data folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets_builders.check import check
from datasets_builders.clevr import builder as clevr
from datasets_builders.domain import Example, build_domain
from datasets_builders.gta import builder as gta
from datasets_builders.guardrail import builder as guardrail
from datasets_builders.policy_text import is_text_split, read_policy_text, settings_problems
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.policy import Policy, TextPart
from trimpi.sample import DataFolder


def asking(**args: Any) -> Any:
    """A maker of a generator; it must not be asked in a dry run."""

    def generate(prompts: Any, **options: Any) -> Any:
        raise AssertionError("asked")

    return generate


def test_all_faults_are_named_at_once() -> None:
    value = {"per_rul": 1, "per_rule": 0, "oversample": True, "generate": "x"}
    assert [line.split(":")[0] for line in settings_problems(value)] == [
        "policy_text.per_rul",
        "policy_text.per_rule",
        "policy_text.oversample",
        "policy_text.generate",
    ]
    assert "did you mean 'per_rule'" in settings_problems(value)[0]
    assert settings_problems(3)[0].startswith("policy_text: must be {per_rule: 8")
    assert settings_problems(None) == [] and read_policy_text(None) is None
    with pytest.raises(UserError, match=r"policy_text\.generate: cannot load 'no.such:thing'"):
        read_policy_text({"generate": "no.such:thing"})


@pytest.mark.parametrize("builder", [clevr, gta, guardrail])
def test_builders_refuse_a_wrong_argument(builder: Any) -> None:
    with pytest.raises(UserError, match=r"policy_text\.per_rule: must be a whole number from 1 on"):
        builder.plan(seed=0, policy_text={"per_rule": 0})


CLEVR = {
    "depth": 2, "policies": 2, "train": None, "train_cot": 2, "test": 2, "override": 2,
    "profile": "tiny", "variant": "M", "workers": 1, "progress": False,
}  # fmt: skip
GUARD = {"train_cot": 4, "test": 2, "update": {"rows": 3, "replay": 0.3}}


@pytest.mark.parametrize(
    ("builder", "args", "splits"),
    [
        (clevr, CLEVR, {"policy_text"}),
        (gta, {}, {"policy_text"}),
        (guardrail, GUARD, {"policy_text", "policy_text_new"}),
    ],
)
def test_builders_write_what_they_plan(
    builder: Any, args: dict[str, Any], splits: set[str], tmp_path: Path
) -> None:
    args = {**args, "policy_text": {"per_rule": 2, "oversample": 1}}
    planned = builder.plan(seed=0, **{k: v for k, v in args.items() if k != "progress"})
    data = builder.build(tmp_path / "data", seed=0, **args)
    assert planned["splits"] == data.card["splits"]
    assert {split for split in data.splits if is_text_split(split)} == splits
    told = {"per_rule": 2, "oversample": 1, "generate": None}
    assert data.card["args"]["policy_text"] == planned["args"]["policy_text"] == told
    assert not splits & set(data.card["balance"])
    for split in splits:
        assert data.card["policy_text"][split]["rows"] == len(data.read(split))
        assert not any(row.policy.startswith("override/") for row in data.read(split))
    assert check(data.root) == []
    again = builder.build(tmp_path / "again", seed=0, **args)
    assert again.card["digest"] == data.card["digest"]


def test_a_preview_asks_no_model() -> None:
    name = f"{__name__}:asking"
    for builder, args in ((clevr, CLEVR), (gta, {}), (guardrail, GUARD)):
        given = {k: v for k, v in args.items() if k != "progress"}
        planned = builder.plan(seed=0, **given, policy_text={"generate": name})
        assert planned["preview"]["policy_text"]["generate"] is None
        assert planned["args"]["policy_text"]["generate"] == name


@dataclass
class Said:
    text: str
    truncated: bool = False


def echoing(before: str) -> Any:
    """A maker of a generator that puts words before the text it is given."""
    return lambda prompts, **options: [
        Said(before + prompt[0]["content"][0]["text"].split("\n\n", 1)[1]) for prompt in prompts
    ]


class Shop:
    grader = staticmethod(exact_answer)

    def __init__(self, text: str) -> None:
        self.text = text

    def policies(self, work: Path) -> dict[str, Policy]:
        return {"shop": Policy("Shop", (TextPart(self.text),))}

    def examples(self, work: Path) -> Any:
        for number in range(10):
            picture = Image.new("RGB", (8, 8), (number, 0, 0))
            yield Example("May I?", "yes", "shop", (picture,), rationale="So it is.")


def shop(out: Path, text: str, policy_text: Any) -> DataFolder:
    return build_domain(out, Shop(text), builder="x:y", args={}, seed=0, policy_text=policy_text)


def test_any_domain_gets_texts(tmp_path: Path) -> None:
    data = shop(tmp_path / "shop", "We sell blue pens. Never sell a pen that leaks.", {})
    rows = data.read("policy_text")
    assert {row.facts["form"] for row in rows} == {"factual", "behavioural"}
    assert data.card["args"]["policy_text"]["per_rule"] == 8
    assert "policy_text" not in shop(tmp_path / "none", "We sell blue pens.", None).splits


def test_a_named_model_writes_further_texts(tmp_path: Path) -> None:
    spec = {"name": f"{__name__}:echoing", "before": "Well: "}
    text = "We sell blue pens. Never sell a pen that leaks."
    data = shop(tmp_path / "shop", text, {"per_rule": 4, "generate": spec})
    rows = data.read("policy_text")
    told = data.card["policy_text"]
    assert told["policy_text"]["by_model"] == len(rows) / 2 == 8
    assert told["generator"] == {"name": spec["name"]}
    assert data.card["args"]["policy_text"]["generate"] == spec


def test_a_policy_without_statements_builds_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="policy Shop: no rule and no whole sentence"):
        shop(tmp_path / "shop", "Pens.", {})
    assert not (tmp_path / "shop").exists()


def test_data_check_derives_texts_again(tmp_path: Path) -> None:
    args = {**GUARD, "update": None, "policy_text": {"per_rule": 2, "oversample": 1}}
    data = guardrail.build(tmp_path / "data", seed=0, **args)
    file = data.root / "policy_text.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    wrong = next(i for i, row in enumerate(rows) if row["facts"]["kind"] == "scenario")
    rows[wrong]["answer"] = "no such response"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = [line for line in check(data.root) if f"policy_text.jsonl:{wrong + 1}:" in line]
    assert len(told) == 1 and "answer 'no such response', but the policy gives" in told[0]
