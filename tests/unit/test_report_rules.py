"""Rules, changed rows, costs and interference in a report: a run by hand of six rows, two seeds."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets_builders.coverage import coverage
from tests.evaluation_fakes import Scripted, prompt_text
from tests.unit.test_report import Page
from trimpi.evaluate import evaluate_model
from trimpi.evaluate.statistics import wilson
from trimpi.evaluate.store import write_rows
from trimpi.evaluate.verdict import compare_pairs
from trimpi.grading import exact_answer
from trimpi.prompt import Message
from trimpi.recipe import Recipe
from trimpi.recipe_file import dump_recipe
from trimpi.report import rules, write_report
from trimpi.report.load import Evaluation
from trimpi.runs import eval_folder, stage_folder, write_json, write_text
from trimpi.sample import DataFolder

TEXTS = {
    "p": {"R1": "If it is | red, <b>no</b>.", "R2": "If it is blue, yes.", "R3": "Otherwise, no."},
    "q": {"R1": "Always yes."},
}
TEST = [  # policy, rules, changed
    ("p", ["R1"], True), ("p", ["R1", "R2"], True), ("p", ["R2"], False), ("p", ["R2"], False),
    ("q", ["R1"], False), ("q", ["R1"], False),
]  # fmt: skip
TRAIN = {
    "train": [("p", ["R1"]), ("q", ["R1"])],
    "train_p": [("p", ["R1"])],
    "train_q": [("q", ["R1"])],
    "update": [("p", ["R2"])],
}
ARMS = {"alone_p": ["sp"], "alone_q": ["sq"], "both": ["sb"], "further": ["sb", "su"]}
RIGHT: Mapping[str, tuple[set[int], set[int]]] = {
    "base": ({0}, {0}),
    "alone_p": ({0, 1, 2, 3}, {0, 1, 2, 3}),
    "alone_q": ({4, 5}, {4, 5}),
    "both": ({0, 2, 3, 4}, {0, 2, 3, 4}),
    "further": ({0, 1, 2}, {0}),
}
RECORDS: Mapping[str, list[dict[str, Any]]] = {
    "sp": [{"seconds": 1.0, "steps": 1, "sequences": 2, "tokens_trained": 3}] * 2,
    "sq": [{"seconds": 9.0, "steps": 8, "resumed_from": "checkpoint-2"}] * 2,
    "sb": [
        {"seconds": 10.0, "steps": 4, "sequences": 8, "tokens_trained": 100},
        {"seconds": 20.0, "steps": 4, "sequences": 8, "tokens_trained": 100},
    ],
    "su": [{"seconds": 5.0, "steps": 2, "sequences": 4}] * 2,
}


def row(id: str, policy: str, ids: list[str], **facts: Any) -> dict[str, Any]:
    told = {"rules": ids, **facts}
    return {"id": id, "query": f"row {id}", "policy": policy, "answer": "yes", "facts": told}


def write_data(root: Path) -> DataFolder:
    for name, texts in TEXTS.items():
        record = {"name": name, "parts": [{"text": "P"}], "metadata": {"conditions": texts}}
        write_json(root / "policies" / f"{name}.json", record)
    test = [row(str(n), p, ids, changed=c) for n, (p, ids, c) in enumerate(TEST)]
    write_rows(root / "test.jsonl", test)
    for split, rows in TRAIN.items():
        write_rows(root / f"{split}.jsonl", [row(f"{split}{n}", *r) for n, r in enumerate(rows)])
    data = DataFolder(root)
    counted = coverage(data.policies, {split: data.read(split) for split in data.splits})
    views = {"train_p": "train", "train_q": "train"}
    write_json(root / "card.json", {"coverage": counted, "views": views})
    return data


def answers(right: set[int]) -> Any:
    def answer(messages: list[Message]) -> str:
        number = int(prompt_text(messages).split("row ")[1].split()[0])
        return "\\boxed{yes}" if number in right else "\\boxed{no}"

    return answer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rules")
    data, run = write_data(root / "data"), root / "run"
    stages = {"sp": "train_p", "sq": "train_q", "sb": "train", "su": "update"}
    recipe = Recipe.model_validate(
        {
            "name": "by-hand",
            "seeds": [0, 1],
            "model": {"path": str(root)},
            "data": {"folder": str(data.root)},
            "stages": {name: {"kind": "sft", "split": split} for name, split in stages.items()},
            "arms": ARMS,
            "evaluation": {"settings": ["no_policy", "in_context"]},
        }
    )
    write_text(run / "recipe.yaml", dump_recipe(recipe))
    for seed in (0, 1):
        for chain in ARMS.values():
            for end in range(1, len(chain) + 1):
                folder = stage_folder(run, seed, chain[:end])
                record = RECORDS[chain[end - 1]][seed]
                # sq was last logged before its end, so its tokens are not known
                steps = [{"step": 2, "loss": 1.0, "num_tokens": 40.0}]
                write_rows(folder / "metrics.jsonl", steps)
                write_json(folder / "stage.json", record)
        for arm, chain in ({"base": [], **ARMS} if seed == 0 else ARMS).items():
            model = root / "models" / f"{arm}-{seed}"
            write_json(model / "config.json", {"arm": arm, "seed": seed})
            evaluate_model(
                model, recipe, data, None, eval_folder(run, seed, chain), exact_answer, seed,
                generator=Scripted(answers(RIGHT[arm][seed])),
            )  # fmt: skip
    write_report(run)
    return run


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report" / "summary.json").read_text()))


def setting(summary: dict[str, Any], arm: str, name: str = "no_policy") -> dict[str, Any]:
    return dict(next(m for m in summary["models"] if m["name"] == arm)["settings"][name])


def test_rules_are_counted_by_policy_with_intervals(summary: dict[str, Any]) -> None:
    def counted(arm: str, name: str = "no_policy") -> dict[str, Any]:
        found = setting(summary, arm, name)["by_rule"]
        return {p: {r: (e["right"], e["rows"]) for r, e in found[p].items()} for p in found}

    assert counted("base", "in_context") == {
        "p": {"R1": (1, 2), "R2": (0, 3)}, "q": {"R1": (0, 2)},
    }  # fmt: skip
    assert counted("both") == {"p": {"R1": (2, 4), "R2": (4, 6)}, "q": {"R1": (2, 4)}}
    assert counted("further") == {"p": {"R1": (3, 4), "R2": (2, 6)}, "q": {"R1": (0, 4)}}
    interval = wilson(1.5, 2)  # three of four over two seeds, at the two rows of one
    entry = setting(summary, "further")["by_rule"]["p"]["R1"]
    assert interval is not None
    assert (entry["low"], entry["high"]) == pytest.approx((interval.low, interval.high))
    assert summary["rules"] == TEXTS


def test_coverage_counts_views_once_and_names_what_is_left_out(summary: dict[str, Any]) -> None:
    assert summary["coverage"]["p"] == {
        "rules": 3,
        "training": {"exercised": 2, "uncovered": {"R3": TEXTS["p"]["R3"]}},
        "test": {"exercised": 2, "uncovered": {"R3": TEXTS["p"]["R3"]}},
        "rows": {"R1": 1, "R2": 1, "R3": 0},
    }
    assert summary["coverage"]["q"]["training"] == {"exercised": 1, "uncovered": {}}


def test_changed_and_unchanged_rows(summary: dict[str, Any]) -> None:
    both = setting(summary, "both")["by_changed"]
    assert (both["changed"]["mean"], both["unchanged"]["mean"]) == (0.5, 0.75)
    assert (both["changed"]["rows"], both["unchanged"]["rows"]) == (2, 4)
    further = setting(summary, "further")["by_changed"]["changed"]
    assert further["mean"] == 0.75 and further["sd"] == pytest.approx(math.sqrt(0.125))
    assert set(summary["changed_over"]) == {"alone_p", "alone_q", "both"}
    over = summary["changed_over"]["both"]
    for side, before, after in (
        ("changed", [1, 0], [1, 0.5]),
        ("unchanged", [1, 1, 1, 0], [0.5, 0, 0, 0]),
    ):
        expected = compare_pairs(before, after)
        assert expected is not None and over[side]["rows"] == len(before)
        assert over[side]["value"] == pytest.approx(
            sum(after) / len(after) - sum(before) / len(after)
        )
        assert (over[side]["low"], over[side]["high"]) == pytest.approx(
            (expected.low, expected.high)
        )


def test_costs_of_an_arm_and_beyond_its_parent(summary: dict[str, Any]) -> None:
    costs = summary["costs"]
    whole = {"updates": 6, "sequences": 12, "tokens": 140, "seconds": 20}
    beyond = {"updates": 2, "sequences": 4, "tokens": 40, "seconds": 5}
    assert costs["further"] == {**whole, "parent": "both", "beyond": beyond, "resumed": False}
    assert costs["both"]["parent"] is None and costs["both"]["seconds"] == 15
    unknown = {"updates": 8, "sequences": None, "tokens": None, "seconds": 9, "resumed": True}
    assert costs["alone_q"] == {**unknown, "parent": None, "beyond": None}


def test_policies_alone_against_together(summary: dict[str, Any]) -> None:
    found = summary["interference"]
    assert found["policies"] == ["p", "q"]
    assert found["marks"] == {
        "alone_p": {"p": "alone", "q": "none"},
        "alone_q": {"p": "none", "q": "alone"},
        "both": {"p": "together", "q": "together"},
        "further": {"p": "together", "q": "together"},
    }
    values = {
        (d["policy"], d["together"], d["alone"]): (d["value"], d["rows"])
        for d in found["differences"]
    }
    assert values == {
        ("p", "both", "alone_p"): (-0.25, 4),
        ("p", "further", "alone_p"): (-0.5, 4),  # 0, -1/2, -1/2 and -1
        ("q", "both", "alone_q"): (-0.5, 2),
        ("q", "further", "alone_q"): (-1.0, 2),
    }
    expected = compare_pairs([1, 1, 1, 1], [1, 0, 1, 1])
    assert expected is not None
    first = found["differences"][0]
    assert (first["low"], first["high"]) == pytest.approx((expected.low, expected.high))


def test_page_and_markdown_show_all_of_it(run: Path, summary: dict[str, Any]) -> None:
    html = (run / "report" / "report.html").read_text()
    text = " ".join(" ".join(Page(html).text).split())
    for words in (
        "Changed and unchanged rules", "beyond both", "at least 9 s", "Interference between",
        "not trained on it", "further − alone_p", "By rule", "Rules that the data exercise",
        "p: 1 rule without a training row", "p: 1 rule without a test row",
    ):  # fmt: skip
        assert words in text, words
    assert "<b>no</b>" not in html and "3/4<small>" in html
    markdown = (run / "report" / "report.md").read_text()
    assert "| further | 75.0 ± 35.4 [" in markdown and "| +2 | +4 | +40 | +5 s |" in markdown
    assert "−25.0 (" in markdown and ", both against alone_p" in markdown
    assert "| p | 3 | 2 (67%) | 2 (67%) | R3 | R3 |" in markdown
    for block in markdown.split("\n\n"):
        lines = [line.replace("\\|", "") for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, block


def test_the_limit_of_a_stage_cuts_policies(run: Path) -> None:
    file = run / "recipe.yaml"
    before = file.read_text()
    recipe = yaml.safe_load(before)
    recipe["stages"]["sb"]["limit"] = 1  # the first row of train is of p
    try:
        file.write_text(yaml.safe_dump(recipe))
        write_report(run)
        found = json.loads((run / "report" / "summary.json").read_text())["interference"]
    finally:
        file.write_text(before)
        write_report(run)
    assert found["marks"]["both"] == {"p": "alone", "q": "none"} == found["marks"]["further"]
    assert found["differences"] == []


def test_numbers_need_no_data_folder(run: Path, tmp_path: Path) -> None:
    file = run / "recipe.yaml"
    before = file.read_text()
    data = yaml.safe_load(before)["data"]["folder"]
    try:
        file.write_text(before.replace(data, str(tmp_path / "gone")))
        write_report(run)
        found = json.loads((run / "report" / "summary.json").read_text())
        html = (run / "report" / "report.html").read_text()
    finally:
        file.write_text(before)
        write_report(run)
    assert found["coverage"] == {} and found["interference"]["marks"] == {}
    assert found["interference"]["differences"] == [] and "By policy" in html
    assert found["rules"]["p"] == {"R1": "", "R2": ""}
    assert setting(found, "both")["by_changed"]["changed"]["mean"] == 0.5


def test_of_many_rules_those_followed_least_stand_first() -> None:
    def entry(right: int) -> dict[str, Any]:
        return {"right": right, "rows": 4, "low": 0.0, "high": 1.0, "value": right / 4}

    counts = {f"R{n}": entry(4 - n % 5 if n < 5 else 4) for n in range(20)}
    model = {"settings": {"no_policy": {"by_rule": {"p": counts}}}}
    texts = {"p": {rule: "" for rule in [*counts, "R99"]}}
    summary = {"rules": texts, "coverage": {}, "headline_arm": "main"}
    found = rules.section(summary, [("main", model, "no_policy")])
    assert [r["id"] for r in found["weakest"][:5]] == ["R4", "R3", "R2", "R1", "R0"]
    assert len(found["weakest"]) == rules.WEAKEST and found["total"] == 21
    assert found["policies"][0]["rules"][-1]["cells"] == [None]  # no row asks for R99


def test_summaries_of_earlier_versions_have_rules_of_one_policy() -> None:
    entry = {"value": 0.5, "scored": 2, "parts": {}, "part_rows": {}}
    flat = {"by_rule": {"R1": entry}, "by_policy": {"velkar": {}}}
    found = rules.by_rule([Evaluation(0, Path(), flat)])
    assert found["velkar"]["R1"]["right"] == 1
    flat["by_policy"]["other"] = {}
    assert list(rules.by_rule([Evaluation(0, Path(), flat)])) == [""]
