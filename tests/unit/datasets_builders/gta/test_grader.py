"""The grader of tool calls as training and evaluation call it."""

import pytest

from datasets_builders.gta.grader import grade
from trimpi.errors import UserError
from trimpi.sample import Completion, Sample

ANSWER = '{"name": "GoogleSearch_v2", "arguments": {"query": "fish oil", "k": 1}}'
SAMPLE = Sample("s", (), "Find it.", "p", ANSWER, facts={"defaults": {"k": 10}})


def graded(text: str) -> tuple[float | None, dict, str]:
    score = grade(SAMPLE, Completion("s", text))
    return score.value, dict(score.parts), score.note


def test_parts_and_notes() -> None:
    right = f"<think> closed question </think> \\boxed{{{ANSWER}}}"
    assert graded(right) == (
        1.0, {"tool": 1.0, "argument": 1.0, "field/query": 1.0, "field/k": 1.0}, ""
    )  # fmt: skip
    value, parts, note = graded('\\boxed{{"name": "GoogleSearch_v1", "arguments": {"k": 1}}}')
    assert value == 0.25 and parts["argument"] == 0.5 and note == "called 'GoogleSearch_v1'"
    value, parts, note = graded('\\boxed{{"name": "GoogleSearch_v2", "arguments": {"k": 1}}}')
    assert value == 0.75 and parts["field/query"] == 0 and note == "left out query"
    assert graded("I would search.")[0] == 0 and graded("I would search.")[2] == "no call"


@pytest.mark.parametrize(
    "answer", ["Case 1", "{}", "[1]", '{"name": "A"}', '{"name": 1, "arguments": 2}']
)
def test_a_row_whose_answer_is_no_call_is_named(answer: str) -> None:
    sample = Sample("s9", (), "", None, answer)
    with pytest.raises(UserError, match="row 's9': answer is no call; write it as"):
        grade(sample, Completion("s9", "x"))
