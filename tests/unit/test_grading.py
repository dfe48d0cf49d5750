"""Graders with adversarial negatives."""

import pytest

from trimpi.errors import UserError
from trimpi.grading import checked_scores, exact_answer, format_score
from trimpi.sample import Completion, Sample

SAMPLE = Sample("s", (), "q", None, "Case 1")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"<think> x </think> \boxed{Case 1}", 1.0),
        (r"\boxed{ case  1 }", 1.0),
        (r"\boxed{Case 12}", 0.0),
        (r"\boxed{Case 11}", 0.0),
        (r"\boxed{1}", 0.0),
        (r"\boxed{Case 1 or Case 2}", 0.0),
        ("Case 1", 0.0),
        (r"\boxed{Case 1} no, \boxed{Case 2}", 0.0),
        ("", 0.0),
    ],
)
def test_exact_answer(text: str, value: float) -> None:
    assert exact_answer(SAMPLE, Completion("s", text)).value == value


def test_format() -> None:
    assert format_score(Completion("s", r"<think> x </think> \boxed{1}")) == 1.0
    assert format_score(Completion("s", r"\boxed{1}")) == 0.0


def test_a_grader_that_exits_stops_nothing_silently() -> None:
    def leaves(sample: Sample, completion: Completion) -> float:
        raise SystemExit(0)

    with pytest.raises(UserError, match="row 's': failed with SystemExit"):
        checked_scores(leaves, [SAMPLE], [Completion("s", "x")])  # type: ignore[arg-type]
