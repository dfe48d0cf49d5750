"""ClevrPolicy grading: exact cases, and where reasoning first leaves the gold path."""

import pytest

from datasets_builders.clevr.grader import diagnose, grade
from datasets_builders.clevr.tree import Step
from datasets_builders.clevr.wording import rationale
from trimpi.sample import Completion, Sample

PATH = [
    Step("1", "color", "red", True),
    Step("1.1", "size", "large", False),
    Step("1.1.2", "shape", "cube", True),
]
GOLD = rationale(PATH, 3)
SAMPLE = Sample(
    "s", (), "q", "p", "Case 3", GOLD, {"path": [step._asdict() for step in PATH], "scene": {}}
)


def said(text: str, answer: str | None = "Case 3") -> Completion:
    box = "" if answer is None else f" \\boxed{{{answer}}}"
    return Completion("s", f"<think> {text} </think>{box}")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("Case 3", 1.0),
        (" case  3 ", 1.0),
        ("\\text{Case 3}", 1.0),
        ("Case 31", 0.0),
        ("Case 13", 0.0),
        ("3", 0.0),
        ("Case 3 or Case 4", 0.0),
        ("not Case 3", 0.0),
        ("", 0.0),
    ],
)
def test_only_the_gold_case_scores(answer: str, value: float) -> None:
    assert grade(SAMPLE, said("...", answer)).value == value


def test_notes_tell_a_wrong_case_from_no_case() -> None:
    assert grade(SAMPLE, said("", "Case 4")).note == "answered 'Case 4'"
    assert grade(SAMPLE, said("", "red")).note == "not a case: 'red'"
    assert grade(SAMPLE, said("", None)).note == "no boxed answer"


def test_the_gold_walk_has_no_error() -> None:
    verdict = diagnose(SAMPLE, said(GOLD))
    assert verdict["first_error"] == "none" and verdict["correct"] and verdict["gold_path"]
    assert verdict["cited"] == verdict["gold"] == ["1", "1.1", "1.1.2"]


@pytest.mark.parametrize(
    ("old", "new", "answer", "error", "steps"),
    [
        ("large object? No", "large object? Yes", "Case 5", "perception", 1),
        ("red object?", "blue object?", "Case 3", "recall", 0),
        ("a cube?", "a sphere?", "Case 3", "recall", 2),
        ("large object? No", "small object? Yes", "Case 3", "recall", 1),
        ("red object? Yes: go", "red object? No: go", "Case 3", "perception", 0),
        ("go to Condition 1.1.2", "go to Condition 1.1.1", "Case 3", "branching", 2),
        ("Condition 1:", "Condition 2:", "Case 3", "branching", 0),
        ("", "", "Case 4", "final", 3),
        ("", "", None, "format", 3),
    ],
)
def test_the_first_error_is_named(
    old: str, new: str, answer: str | None, error: str, steps: int
) -> None:
    verdict = diagnose(SAMPLE, said(GOLD.replace(old, new, 1) if old else GOLD, answer))
    assert (verdict["first_error"], verdict["steps"]) == (error, steps)


def test_a_walk_over_invented_questions_is_no_gold_path() -> None:
    verdict = diagnose(SAMPLE, said(GOLD.replace("red", "blue", 1)))
    assert verdict["correct"] and not verdict["gold_path"]


def test_the_next_condition_outranks_a_bare_no() -> None:
    text = (
        "Condition 1 asks about red. There is no doubt: a red thing is there, so go to Condition "
        "1.1. Nothing is large: Condition 1.1.2 (a cube): yes."
    )
    assert diagnose(SAMPLE, said(text))["first_error"] == "none"


def test_a_walk_cut_off_before_its_last_decision_is_no_gold_path() -> None:
    cut = GOLD[: GOLD.index("Condition 1.1.2: is")] + "Condition 1.1.2: is there a"
    assert diagnose(SAMPLE, said(cut, None))["gold_path"] is False
    assert diagnose(SAMPLE, said(GOLD, None))["gold_path"] is True


@pytest.mark.parametrize("loop", ["Condition " + "1" * 5000, "Condition " + "1." * 5000, "١" * 9])
def test_numbers_without_end_are_no_conditions(loop: str) -> None:
    found = diagnose(SAMPLE, said(f"{loop} Condition {loop}"))
    assert all(len(name) <= 64 for name in found["cited"])


def test_a_walk_that_stops_early_or_goes_on_is_a_branching_error() -> None:
    short = "Condition 1: is there a red object? Yes: the response is Case 3."
    assert diagnose(SAMPLE, said(short))["first_error"] == "branching"
    assert diagnose(SAMPLE, said(short))["correct"] is True
    on = GOLD.replace("the response is Case 3.", "go to Condition 1.1.2.1.")
    assert diagnose(SAMPLE, said(on))["first_error"] == "branching"
    assert diagnose(SAMPLE, said(on))["gold_path"] is False


def test_reasoning_without_a_condition_is_a_format_error() -> None:
    for text in ("", "A red object, so Case 3."):
        assert diagnose(SAMPLE, said(text))["first_error"] == "format"


def test_free_wording_is_read_by_where_it_goes() -> None:
    free = (
        "By condition 1 I look for red things and see one. That leads me to condition 1.1, where"
        " nothing is large, so on to condition 1.1.2 (a cube): yes."
    )
    assert diagnose(SAMPLE, said(free))["first_error"] == "none"
    astray = free.replace("1.1.2", "1.1.1")
    assert diagnose(SAMPLE, said(astray))["first_error"] == "perception"


def test_an_unfinished_think_block_is_read_too() -> None:
    verdict = diagnose(
        SAMPLE, Completion("s", "<think> Condition 1: is there a red object? No: go")
    )
    assert verdict["first_error"] == "perception" and verdict["cited"] == ["1"]
