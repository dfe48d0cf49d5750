"""JSON answers field by field: how they are written, what counts, and answers made to fool."""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.graders.json_text import MAX_CHARACTERS, read_answer
from trimpi.sample import Completion, Sample, Score

SPEC = {
    "type": "json",
    "fields": {
        "response": {"type": "choice", "options": ["allow", "block"], "weight": 2},
        "severity": {"type": "number", "tolerance": 1},
        "reason": {"type": "text", "required": False},
    },
}
GOLD = '{"response": "block", "severity": 3}'
WITH_REASON = '{"response": "block", "severity": 3, "reason": "a knife in a street"}'
GRADER = make_grader(SPEC)


def graded(text: str, gold: str = GOLD, grader: Any = GRADER) -> Score:
    return grader(Sample("s", (), "?", None, gold), Completion("s", text))


@pytest.mark.parametrize(
    "text",
    [
        f"<think> so </think> \\boxed{{{GOLD}}}",
        f"\\boxed{{\n```json\n{GOLD}\n```\n}}",
        f"\\boxed{{\\text{{{GOLD}}}}}",
        f"<think> {{}} </think>\n```json\n{GOLD}\n```",
        f"It is {GOLD}.",
        "\\boxed{{'response': 'BLOCK', 'severity': '3',}}",
        '\\boxed{{"severity": 4.0, "response": " Block ", "reason": null}}',
        f'{{"response": "allow", "severity": 9}} or rather {GOLD}',
    ],
)
def test_one_answer_in_many_writings(text: str) -> None:
    found = graded(text)
    assert (found.value, found.note) == (1.0, "")
    assert found.parts == {"field/response": 1.0, "field/severity": 1.0}


@pytest.mark.parametrize(
    ("said", "value", "note"),
    [
        ('{"response": "block", "severity": 9}', 2 / 3, "wrong: severity"),
        ('{"response": "block"}', 2 / 3, "wrong: severity"),
        ('{"response": "block", "severity": null}', 2 / 3, "wrong: severity"),
        ('{"response": ["block"], "severity": true}', 0, "wrong: response, severity"),
        ('{"response": "allow", "severity": 2}', 1 / 3, "wrong: response"),
        # a field that the gold answer has not
        ('{"response": "block", "severity": 3, "reason": "x"}', 3 / 4, "wrong: reason"),
        # fields that nobody knows, however many
        ('{"response": "block", "severity": 3, "a": 1, "b": 2}', 3 / 4, "wrong: (unasked)"),
        (
            '{"response": "block", "response": "allow", "severity": 3}',
            0,
            "key 'response' given twi",
        ),
        ("{'response': 'block', 'response': 'block'}", 0, "key 'response' given twice"),
        ('{"response": "block", "severity": ', 0, "no JSON object"),
        (f"[{GOLD}, {GOLD}]", 0, "no JSON object"),
        ("block", 0, "no JSON object"),
        ("{'response': {'block'}, 'severity': b'3'}", 0, "no JSON object"),
        ("{'response': __import__('os').getcwd()}", 0, "no JSON object"),
    ],
)
def test_fields_are_weighed(said: str, value: float, note: str) -> None:
    found = graded(f"\\boxed{{{said}}}")
    assert found.value == pytest.approx(value) and found.note.startswith(note)


def test_a_text_is_compared_by_likeness() -> None:
    same, near, other = (
        graded(
            f'\\boxed{{{{"response": "block", "severity": 3, "reason": "{text}"}}}}', WITH_REASON
        )
        for text in ("A knife in a street.", "a knife in the street", "no idea")
    )
    assert same.value == 1 and 0.5 < near.parts["field/reason"] < 1
    assert near.value == pytest.approx((3 + near.parts["field/reason"]) / 4)
    assert other.parts["field/reason"] < 0.5
    left_out = graded(f"\\boxed{{{GOLD}}}", WITH_REASON)
    assert left_out.value == 3 / 4 and left_out.parts["field/reason"] == 0


@pytest.mark.parametrize(
    "text",
    [
        f"{GOLD} \\boxed{{I do not know}}",  # the box is the answer, readable or not
        f"```json\n{GOLD}\n``` \\boxed{{}}",
        f"\\boxed{{{GOLD}}} \\boxed{{{{}}}}",
        f'{GOLD} {{"response": "allow", "severity": 9}}',
        f"```\n{GOLD}\n``` ```\nnothing\n```",
        f"<think> {GOLD} </think>",
        f"<think> {GOLD} </think> I do not know.",
        f"\\boxed{{{GOLD}, {GOLD}}}",
    ],
)
def test_several_answers_are_not_chosen_from(text: str) -> None:
    assert graded(text).value == 0


def test_exact_fields_by_type() -> None:
    grader = make_grader({"type": "json", "fields": {"x": {"type": "exact"}}})

    def right(gold: Any, said: Any) -> bool:
        answer = json.dumps({"x": said})
        return graded(f"\\boxed{{{answer}}}", json.dumps({"x": gold}), grader).value == 1

    assert right("A  b", "a B") and right(3, 3.0) and right([1, {"a": "X"}], [1, {"a": "x"}])
    assert not right(1, True) and not right("3", 3) and not right([1, 2], [2, 1])
    assert right(False, False) and not right(False, 0) and not right({"a": 1}, {"a": 1, "b": 2})


def test_huge_and_deep_answers_are_wrong_and_quick() -> None:
    started = time.perf_counter()
    for text in (
        "[" * 19_000,
        '{"response":' * 1_500 + "1" + "}" * 1_500,
        '{"response": ' + "[" * 60 + "]" * 60 + ', "severity": 3}',
        '{"response": "block", "severity": ' + "9" * 5_000 + "}",
        '{"response": "block", "severity": 1e999}',
        "{'response': " + "-" * 5_000 + "1}",
        "\\boxed{" * 2_000,
        " " * MAX_CHARACTERS + GOLD,
    ):
        for completion in (text, f"\\boxed{{{text}}}"):
            assert graded(completion).value in (0, pytest.approx(2 / 3))
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    ("gold", "faults"),
    [
        ("block", ["answer 'block' is no JSON object; write it as one"]),
        ("[1]", ["answer '[1]' is no JSON object; write it as one"]),
        ("{'response': 'block'}", ["answer \"{'response': 'block'}\" is no JSON object; write it as"
                                   " one"]),
        ('{"severity": "much"}',
         ["answer: field 'response' is missing; add it, or set required: false",
          "answer: field 'severity': 'much' is no number; correct it"]),
        ('{"response": "blok", "severity": 3}',
         ["answer: field 'response': 'blok' is none of the 2 options (one of allow, block); did you"
          " mean 'block'?"]),
        ('{"response": "block", "response": "allow", "severity": 3}',
         ["answer: key 'response' given twice; keep one"]),
        ('{"response": "block", "severity": 3, "reason": 5}',
         ["answer: field 'reason': 5 is no text"]),
    ],
)  # fmt: skip
def test_gold_answers_that_do_not_fit(gold: str, faults: list[str]) -> None:
    with pytest.raises(UserError) as raised:
        graded(f"\\boxed{{{GOLD}}}", gold)
    assert str(raised.value).splitlines() == faults


def test_an_answer_without_any_field() -> None:
    grader = make_grader({"type": "json", "fields": {"x": {"type": "exact", "required": False}}})
    with pytest.raises(UserError, match="has none of the fields that are compared"):
        graded("\\boxed{{}}", '{"y": 1}', grader)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["response", "severity", "reason", "x"]), JSON))
def test_any_object_gets_a_score(content: dict[str, Any]) -> None:
    found = graded(f"```\n{json.dumps(content)}\n```", WITH_REASON)
    assert found.value is not None and 0 <= found.value <= 1
    assert all(0 <= part <= 1 for part in found.parts.values())


@given(st.text(max_size=60))
def test_any_text_is_an_object_or_not(text: str) -> None:
    for form in ("{}", "\\boxed{{{}}}", "```{}```"):
        found = graded(form.format(text))
        assert found.value is not None and 0 <= found.value <= 1


@given(st.dictionaries(st.text("abc {}\"'\\,", max_size=6), st.integers(), min_size=1))
def test_what_is_written_bare_is_read_back(content: dict[str, int]) -> None:
    assert read_answer(json.dumps(content)) == content
