"""The report's numbers from a run of four rows and two seeds, all expectations by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.clevr.grader import grade
from tests.evaluation_fakes import DIAGNOSE, GRADER, FakeServer, Scripted, prompt_text
from trimpi.evaluate import evaluate_model
from trimpi.evaluate.verdict import compare_pairs
from trimpi.prompt import Message
from trimpi.recipe import Recipe
from trimpi.recipe_file import dump_recipe
from trimpi.report.aggregate import summarize
from trimpi.report.cards import fault_line
from trimpi.report.load import load_run
from trimpi.report.page import table_rows
from trimpi.runs import eval_folder, versions, write_json, write_text
from trimpi.sample import DataFolder

LONG = [
    {"condition": "1", "attribute": "color", "value": "red", "outcome": True},
    {"condition": "1.1", "attribute": "size", "value": "large", "outcome": False},
]
SHORT = [{"condition": "1", "attribute": "color", "value": "red", "outcome": False}]

ONE = "Condition 1: is there a red object? {}: "
WALK_LONG = (
    ONE.format("Yes") + "go to Condition 1.1.\nCondition 1.1: is there a large object? No: so."
)
WALK_SHORT = ONE.format("No") + "so."
RIGHT_LONG = f"<think> {WALK_LONG} </think> \\boxed{{Case 1}}"
RIGHT_SHORT = f"<think> {WALK_SHORT} </think> \\boxed{{Case 2}}"
RECALL = RIGHT_LONG.replace("red", "blue")
FINAL = RIGHT_SHORT.replace("Case 2", "Case 3")
PERCEPTION = f"<think> {WALK_LONG} </think> \\boxed{{Case 1}}"  # for a row whose answer is No
LOST = "<think> Condition 7: who knows? Yes: so. </think> \\boxed{Case 3}"
MUTE = f"<think> {WALK_SHORT} </think>"

SAID: dict[tuple[str, int, str], list[str]] = {
    ("base", 0, "in_context"): [RIGHT_LONG, RIGHT_LONG, RIGHT_SHORT, PERCEPTION],
    ("base", 0, "no_policy"): [LOST] * 4,
    ("base", 0, "skills"): ["yes", "no", "yes", "no"],
    ("main", 0, "no_policy"): [RIGHT_LONG, RECALL, FINAL, PERCEPTION],
    ("main", 1, "no_policy"): [RIGHT_LONG, RIGHT_LONG, RIGHT_SHORT, RIGHT_SHORT],
    ("main", 0, "in_context"): [MUTE] * 4,
    ("main", 1, "in_context"): [MUTE] * 4,
    # The old policy's answers are Case 3 (rows 0 and 1) and the same as the new one's (2 and 3).
    ("main", 0, "override"): [FINAL, RIGHT_LONG, RIGHT_SHORT, RIGHT_SHORT],
    ("main", 1, "override"): [FINAL, FINAL, RIGHT_SHORT, LOST],
    ("main", 0, "skills"): ["yes", "yes", "yes", "no"],
    ("main", 1, "skills"): ["yes", "yes", "yes", "no"],
}
SAID["base", 0, "override"] = [RIGHT_LONG] * 4


class Clock:
    """Times whose median is neither their mean nor their largest; tokens by prompt."""

    device = "scripted"

    def __init__(self) -> None:
        self.calls = {True: 0, False: 0}

    def encode(self, messages: list[Message]) -> bool:
        return "POLICY" in prompt_text(messages)

    def tokens(self, encoded: bool) -> int:
        return 100 if encoded else 40

    def seconds(self, encoded: bool) -> float:
        self.calls[encoded] += 1
        # One warm-up, then seven timed calls a request: 1, 1, 1, 2, 3, 3, 50 (times two).
        place = (self.calls[encoded] - 1) % 8
        return (2 if encoded else 1) * [99.0, 1, 1, 1, 2, 3, 3, 50][place]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("numbers")
    data, skills = root / "data", root / "skills"
    (data / "policies").mkdir(parents=True)
    policy = {"name": "Vlomar", "parts": [{"text": "POLICY"}], "metadata": {}}
    (data / "policies" / "vlomar.json").write_text(json.dumps(policy))
    rows = []
    for number, path in enumerate([LONG, LONG, SHORT, SHORT]):
        answer = "Case 1" if path is LONG else "Case 2"
        facts = {"path": path, "original_answer": "Case 3" if path is LONG else answer}
        row = {"id": f"r{number}", "query": f"row {number}", "policy": "vlomar", "answer": answer}
        rows.append({**row, "facts": facts})
    for split in ("test", "override"):
        text = "".join(json.dumps({**r, "query": f"{split} {r['query']}"}) + "\n" for r in rows)
        (data / f"{split}.jsonl").write_text(text)
    skills.mkdir()
    asked = [
        {"id": f"s{n}", "query": f"skills row {n}", "policy": None, "answer": "yes"}
        | {"facts": {"task": "exist", "target": "answer"}}
        for n in range(4)
    ]
    (skills / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    for folder in (data, skills):
        (folder / "card.json").write_text("{}")
    recipe = Recipe.model_validate(
        {
            "name": "by-hand",
            "seeds": [0, 1],
            "model": {"path": str(root)},
            "data": {"folder": str(data)},
            "grader": GRADER,
            "stages": {"sft": {}},
            "evaluation": {
                "settings": ["no_policy", "in_context", "override", "efficiency", "skills"],
                "skills": {"folder": str(skills)},
                "diagnose": DIAGNOSE,
            },
        }
    )
    folder = root / "run"
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    write_json(folder / "run.json", {"name": "by-hand", "versions": versions()})
    for arm, seed, chain in (("base", 0, ()), ("main", 0, ("sft",)), ("main", 1, ("sft",))):
        model = root / f"{arm}-{seed}"
        write_json(model / "config.json", {"arm": arm, "seed": seed})
        evaluate_model(
            model, recipe, DataFolder(data), DataFolder(skills), eval_folder(folder, seed, chain),
            grade, seed, generator=Scripted(answers(arm, seed)), prefill=Clock(),
            server=FakeServer(),
        )  # fmt: skip
    return folder


def answers(arm: str, seed: int) -> Any:
    def answer(messages: list[Message]) -> str:
        text = prompt_text(messages)
        setting = "in_context" if "POLICY" in text else "no_policy"
        setting = next((name for name in ("override", "skills") if f"{name} row" in text), setting)
        said = SAID[arm, seed, setting][int(text.split("row ")[1][0])]
        return f"\\boxed{{{said}}}" if setting == "skills" else said

    return answer


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    return summarize(load_run(run))


def test_accuracy_and_spread(summary: dict[str, Any]) -> None:
    base, main = summary["models"]
    assert base["settings"]["in_context"]["mean"] == 0.75
    cell = main["settings"]["no_policy"]
    # Seed 0: a wrong question with a right case counts as right; the case after No is wrong, and
    # so is the case of a wrong verdict.
    assert cell["by_seed"] == {0: 0.5, 1: 1.0} and cell["mean"] == 0.75
    assert cell["sd"] == pytest.approx(0.125**0.5)


def test_where_the_reasoning_goes_wrong(summary: dict[str, Any]) -> None:
    base, main = summary["models"]
    found = main["diagnosis"]["no_policy"]
    assert found["first_errors"] == {
        "none": 5 / 8, "format": 0, "recall": 1 / 8, "perception": 1 / 8, "branching": 0,
        "final": 1 / 8,
    }  # fmt: skip
    assert found["gold_path"]["by_seed"] == {0: 0.5, 1: 1.0}  # rows 0 and 2 of seed 0
    assert found["reached"]["1"]["by_seed"] == {0: 0.5, 1: 1.0}
    assert found["reached"]["2"]["by_seed"] == {0: 0.5, 1: 1.0}  # one of two rows that are so long
    # Seed 0 cites 1 four times as gold does, 1.1 three times in place of two: (0 + 1) / 2.
    assert found["citation_difference"] == (0.5 + 0) / 2
    assert found["citation_difference_per_100"] == (12.5 + 0) / 2
    assert found["invented_citations"] == 0
    lost = base["diagnosis"]["no_policy"]
    # Condition 7 four times, which no gold walk has; gold cites 1 four times and 1.1 twice.
    assert (lost["invented_citations"], lost["citation_difference"]) == (4, 3)
    assert lost["reached"]["1"]["mean"] == 0


def test_override_by_the_replaced_policy(summary: dict[str, Any]) -> None:
    found = summary["models"][1]["settings"]["override"]
    # Right: seed 0 all but row 0, seed 1 row 2 alone.
    assert found["by_seed"] == {0: 0.75, 1: 0.25}
    # Answered Case 3, of the two rows where the policies differ: one of two, two of two.
    assert found["original_share"]["by_seed"] == {0: 0.5, 1: 1.0}


def test_tokens_and_median_times(summary: dict[str, Any]) -> None:
    found = summary["efficiency"]
    assert found["prompt_tokens"] == {"with_policy": 100, "without_policy": 40, "saved": 0.6}
    assert found["prefill_seconds"] == {"with_policy": 4, "without_policy": 2, "saved": 0.5}
    rows = {row["name"]: row for row in table_rows(summary)}
    assert rows["base, policy in prompt"]["tokens"] == 100
    assert rows["base, no policy"]["tokens"] == rows["main"]["tokens"] == 40


def test_the_table_takes_the_gold_path_of_its_setting(summary: dict[str, Any]) -> None:
    rows = {row["name"]: row for row in table_rows(summary)}
    assert rows["main"]["gold_path"]["mean"] == 0.75  # in context it would be 0.5
    assert summary["models"][1]["diagnosis"]["in_context"]["gold_path"]["mean"] == 0.5
    assert rows["base, policy in prompt"]["gold_path"]["mean"] == 0.75
    assert rows["base, no policy"]["gold_path"]["mean"] == 0


def test_differences_are_paired_by_row(summary: dict[str, Any]) -> None:
    main = summary["models"][1]
    change = main["forgetting"]["all"]
    expected = compare_pairs([1, 0, 1, 0], [1, 1, 1, 0])
    assert expected is not None and change["difference"] == expected.to_json()
    assert (change["before"], change["after"]) == (0.5, 0.75)
    # Base in context 1, 1, 1, 0; means of both seeds without the policy 1, 1, 0.5, 0.5.
    over = compare_pairs([1, 1, 1, 0], [1, 1, 0.5, 0.5])
    assert over is not None and main["over_base"] == over.to_json() and over.value == 0


def test_the_headline_tells_the_spread_over_seeds(summary: dict[str, Any]) -> None:
    assert summary["headline"].startswith(
        "Without the policy in its prompt, main answers 75.0% right (mean of 2 seeds, deviation "
        "35.4 points); the base model with the policy in its prompt answers 75.0% right "
        "(difference +0.0 points, "
    )
    assert "The best arm" not in summary["headline"]


@pytest.mark.parametrize(
    ("lines", "error", "steps", "cited", "expected"),
    [
        (["Condition 1: a? Yes: go to Condition 1.1.", "Condition 1.1: b? No."], "perception", 1,
         ["1", "1.1"], 1),
        (["So.", "Condition 1:", "is there a? Yes", "Condition 1.1: b?", "Yes"], "recall", 1,
         ["1", "1.1"], 3),
        (["Condition 1: a? Yes: go to Condition 1.2.", "Condition 1.2: b?"], "branching", 1,
         ["1", "1.2"], 1),
        (["Condition 1: a? Yes.", "So Case 1."], "branching", 1, ["1"], 1),
        (["Condition 1: a?"], "final", 1, ["1"], None),
        ([], "recall", 0, ["1"], None),
    ],
)  # fmt: skip
def test_the_marked_line_is_where_the_walk_leaves_the_policy(
    lines: list[str], error: str, steps: int, cited: list[str], expected: int | None
) -> None:
    found = {"first_error": error, "steps": steps, "cited": cited, "gold": ["1", "1.1"]}
    assert fault_line(lines, found) == expected
