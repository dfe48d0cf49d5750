"""Functions of TRL's reward signature as graders: told apart, called, and refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimpi.errors import UserError
from trimpi.graders import check_labels, make_grader
from trimpi.grading import BATCH, checked_score, checked_scores
from trimpi.sample import Completion, Sample, Score

HERE = __name__
CALLS: list[dict[str, Any]] = []


def everything(prompts: Any, completions: Any, **kwargs: Any) -> list[float]:
    CALLS.append({"prompts": prompts, "completions": completions, **kwargs})
    return [0.5] * len(completions)


def right(completions: Any, answer: Any) -> list[float | None]:
    texts = [turns[0]["content"] for turns in completions]
    return [None if "?" in t else float(a in t) for t, a in zip(texts, answer, strict=True)]


def by_label(completions: Any, label: list[str], **kwargs: Any) -> np.ndarray:
    hits = [name in c[-1]["content"] for name, c in zip(label, completions, strict=True)]
    return np.array(hits, dtype=np.float32)


async def later(completions: Any, **kwargs: Any) -> list[float]:
    return [1.0] * len(completions)


def keywords_alone(**kwargs: Any) -> list[float]:
    return [1.0] * len(kwargs["completions"])


def percent(completions: Any, **kwargs: Any) -> list[float]:
    return [100.0] * len(completions)


def nan(completions: Any, id: Any, **kwargs: Any) -> list[float]:
    return [float("nan") if name == "r1" else 1.0 for name in id]


def single(completions: Any, **kwargs: Any) -> float:
    return 1.0


def short(completions: Any, **kwargs: Any) -> list[float]:
    return [1.0]


def words(completions: Any, **kwargs: Any) -> list[str]:
    return ["good"] * len(completions)


def broken(completions: Any, id: list[str], **kwargs: Any) -> list[float]:
    raise KeyError(id[0])


def of_the_trainer(completions: Any, trainer_state: Any, log_metric: Any = None) -> list[float]:
    return []


def positional(prompts: Any, completions: Any, /, **kwargs: Any) -> list[float]:
    return []


def row(name: str, answer: str = "A", **facts: Any) -> Sample:
    return Sample(name, ("/x/1.png",), "Which?", "p", answer, None, facts)


def grade(name: str, *samples: Sample, text: str = "\\boxed{A}") -> list[Score]:
    grader = make_grader(f"{HERE}:{name}")
    return checked_scores(grader, samples, [Completion(s.id, text) for s in samples])


def fault(name: str, *samples: Sample) -> str:
    with pytest.raises(UserError) as raised:
        grade(name, *(samples or [row("r1")]))
    return str(raised.value)


def test_everything_that_trl_gives_of_a_row() -> None:
    CALLS.clear()
    grade("everything", row("r1", "A", tool="OCR", query="hidden"), row("r2", "B", level=3))
    (call,) = CALLS
    prompt = call.pop("prompts")[0]
    assert prompt[0]["role"] == "user"
    assert prompt[0]["content"][0] == {"type": "image", "image": "/x/1.png"}
    assert prompt[0]["content"][1]["text"].startswith("Which?")
    assert call == {
        "completions": [[{"role": "assistant", "content": "\\boxed{A}"}]] * 2,
        "id": ["r1", "r2"],
        "query": ["Which?", "Which?"],  # a fact never hides a column
        "answer": ["A", "B"],
        "images": [["/x/1.png"], ["/x/1.png"]],
        "policy": ["p", "p"],
        "rationale": [None, None],
        "facts": [{"tool": "OCR", "query": "hidden"}, {"level": 3}],
        "tool": ["OCR", None],
        "level": [None, 3],
    }


def test_one_row_and_many() -> None:
    one = make_grader(f"{HERE}:right")
    assert checked_score(one, row("r1"), Completion("r1", "\\boxed{A}")).value == 1.0
    assert [s.value for s in grade("right", row("1"), row("2", "B"), row("3"))] == [1, 0, 1]
    assert [s.value for s in grade("right", row("1"), row("2"), text="?")] == [None, None]
    assert [s.value for s in grade("by_label", row("1", label="A"), row("2", label="C"))] == [1, 0]
    assert [s.value for s in grade("later", row("1"), row("2"))] == [1, 1]
    assert [s.value for s in grade("keywords_alone", row("1"))] == [1]


def test_rows_come_in_batches() -> None:
    CALLS.clear()
    assert len(grade("everything", *[row(str(i)) for i in range(BATCH + 5)])) == BATCH + 5
    assert [len(call["id"]) for call in CALLS] == [BATCH, 5]


def test_values_beyond_one_tell_how_to_scale() -> None:
    assert fault("percent").splitlines() == [
        f"grader {HERE}:percent: row 'r1': gave the value 100, outside [0, 1]; scale it: (value - "
        "lowest) / (highest - lowest)"
    ]


def test_the_row_of_a_batch_that_fails_is_named() -> None:
    found = fault("nan", row("r0"), row("r1"), row("r2"))
    assert found.startswith(f"grader {HERE}:nan: row 'r1': gave the value nan; it must be a number")
    assert "\n" not in found
    found = fault("broken", row("r0"), row("r1"))
    assert [line.partition(";")[0] for line in found.splitlines()] == [
        f"grader {HERE}:broken: row '{name}': failed with KeyError: '{name}'"
        for name in ("r0", "r1")
    ]
    many = fault("broken", *[row(f"r{i}") for i in range(50)]).splitlines()
    assert len(many) == 21 and many[-1] == "... 30 rows after these were not graded"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("single", "gave float; a reward function returns a list, one number a row"),
        ("words", "gave the value 'good'; it must be a number in [0, 1], or None"),
        ("by_label", "the function asks for column 'label', which the row has not; it has id, "
         "query, answer, images, policy, rationale, facts: rename the parameter, or add the key"),
    ],
)  # fmt: skip
def test_what_comes_back_must_be_numbers(name: str, expected: str) -> None:
    assert f"row 'r1': {expected}" in fault(name)


def test_a_function_that_fails_on_rows_together_alone() -> None:
    found = fault("short", row("r1"), row("r2"))
    assert "failed on 2 rows together (UserError: gave 1 values for 2 rows; return one" in found


def test_functions_that_cannot_be_graders() -> None:
    with pytest.raises(UserError, match="asks for 'trainer_state', which only TRL's trainer has"):
        make_grader(f"{HERE}:of_the_trainer")
    with pytest.raises(UserError, match="takes 'prompts' by position alone") as raised:
        make_grader(f"{HERE}:positional")
    assert len(str(raised.value).splitlines()) == 2


def test_labels_are_put_to_the_grader(tmp_path: Path) -> None:
    choice = make_grader({"type": "choice", "options": ["A", "B"]})
    rows = [row("r1"), row("r2", "C"), row("r3", "b"), row("r4", "a or b")]
    assert check_labels(choice, rows[:1]) == []
    assert check_labels(choice, rows, "test.jsonl") == [
        f"test.jsonl:{number}: grader choice: row 'r{number}': answer {answer!r} is none of the 2 "
        "options (one of A, B); correct it, or add it"
        for number, answer in ((2, "C"), (4, "a or b"))
    ]
    half = make_grader(f"{HERE}:everything")
    assert check_labels(half, rows[:1]) == [
        f"row 1: answer 'A' scores 0.5 with grader {HERE}:everything, not 1; correct the answer, "
        "or the grader"
    ]
    number = make_grader({"type": "regex", "pattern": "[0-9]+", "fullmatch": False})
    assert len(check_labels(number, rows)) == 4
    braces = Sample("r1", (), "?", None, "a} b")  # cannot stand in a box
    assert check_labels(make_grader("trimpi.grading:exact_answer"), [braces]) == [
        "row 1: answer 'a} b' scores 0.0 with grader trimpi.grading:exact_answer (answered 'a'), "
        "not 1; correct the answer, or the grader"
    ]


def test_a_reward_function_is_asked_for_few_labels() -> None:
    CALLS.clear()
    check_labels(make_grader(f"{HERE}:everything"), [row(str(i)) for i in range(50)])
    assert len(CALLS) == 16
