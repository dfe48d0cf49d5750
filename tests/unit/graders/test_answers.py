"""Declared graders of one boxed answer: right, wrong, nearly right, and answers made to fool."""

import time
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.graders.number import read_number
from trimpi.graders.pattern import Pattern
from trimpi.grading import exact_answer
from trimpi.sample import Completion, Sample

CHOICE = {"type": "choice", "options": ["allow", "block", "send to a person"]}


def score(spec: Any, gold: str, said: str, boxed: bool = True) -> float | None:
    text = f"<think> so </think> \\boxed{{{said}}}" if boxed else said
    return make_grader(spec)(Sample("s", (), "?", None, gold), Completion("s", text)).value


@pytest.mark.parametrize(
    ("said", "value"),
    [
        ("block", 1),
        (" BLOCK ", 1),
        ("allow", 0),
        ("block allow", 0),
        ("block, allow", 0),
        ("blocked", 0),
        ("", 0),
        ("allow} \\boxed{block", 1),  # the last box is the answer
        ("block} \\boxed{allow", 0),
    ],
)
def test_choice(said: str, value: float) -> None:
    assert score(CHOICE, "Block", said) == value
    assert score(CHOICE, "send to a person", "Send  to a Person") == 1
    assert score(CHOICE, "Block", "block", boxed=False) == 0


def test_options_that_yaml_reads_as_numbers_or_words() -> None:
    spec = {"type": "choice", "options": [1, 2.5, True]}
    assert score(spec, "1", "1") == score(spec, "2.5", "2.5") == score(spec, "true", "True") == 1


def test_exact_is_the_exact_answer() -> None:
    grader = make_grader({"type": "exact"})
    assert grader.identity == make_grader("trimpi.grading:exact_answer").identity
    for text in ("\\boxed{Case  1}", "\\boxed{case 12}", "Case 1"):
        sample, completion = Sample("s", (), "?", None, "case 1"), Completion("s", text)
        assert grader(sample, completion) == exact_answer(sample, completion)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1234.5", "2469/2"),
        ("1,234.5", "2469/2"),
        ("12,345,678", "12345678"),
        (" -.5 ", "-1/2"),
        ("\N{MINUS SIGN}5.", "-5"),
        ("+3e5", "300000"),
        ("3E-2", "3/100"),
        ("3/4", "3/4"),
        ("-3 / 4", "-3/4"),
        ("\\frac{1}{3}", "1/3"),
        ("12 %", "12"),
        ("12%", "12"),
        ("-$5", "-5"),
        ("$ -5", "-5"),
        ("5 kg", "5"),
        ("0.1", "1/10"),
        *[(text, None) for text in ("", "%", "nan", "inf", "-Infinity", "1e999", "1e400", "3/0")],
        *[
            (text, None)
            for text in ("1,5", "1,23,456", "1234,567", "1 2", "1 or 2", "5 5", "12 %%")
        ],
        *[(text, None) for text in ("1_000", "0x10", "٣", "1.2.3", "e5", "--5", "9" * 65, "5 g")],
        ("9" * 64, "9" * 64),
    ],
)
def test_numbers_are_read_as_written(text: str, value: str | None) -> None:
    expected = None if value is None else Fraction(value)
    assert read_number(text, ("%", "kg", "$")) == expected


@given(st.text(max_size=80))
def test_any_text_is_a_number_or_not(text: str) -> None:
    assert isinstance(read_number(text, ("%", "e")), Fraction | None)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_floats_are_read_without_loss(value: float) -> None:
    if abs(value) > 1e-300 or value == 0:
        assert read_number(repr(value)) == Fraction(repr(value))


@given(st.integers(-(10**30), 10**30))
def test_thousands_are_read_with_and_without_commas(value: int) -> None:
    assert read_number(f"{value:,}") == read_number(str(value)) == value


@pytest.mark.parametrize(
    ("keys", "gold", "said", "value"),
    [
        ({}, "0.7", "0.70", 1),
        ({}, "0.7", "0.71", 0),
        ({"tolerance": 0.1}, "0.7", "0.8", 1),  # 0.8 - 0.7 > 0.1 in floats
        ({"tolerance": 0.1}, "0.7", "0.81", 0),
        ({"relative": 0.05}, "-200", "-190", 1),
        ({"relative": 0.05}, "-200", "-189", 0),
        ({"relative": 0.05, "tolerance": 20}, "-200", "-180", 1),
        ({"tolerance": 1e-9}, "1", "1.000000001", 1),
        ({}, "12", "12 %", 1),
        ({}, "0.12", "12 %", 0),
        ({"units": []}, "12", "12 %", 0),
        ({"tolerance": 5}, "3", "nan", 0),
        ({"tolerance": 5}, "3", "inf", 0),
        ({"tolerance": 5}, "3", "three", 0),
        ({"tolerance": 5}, "3", "1, 2, 3, 4", 0),
    ],
)
def test_number(keys: dict[str, Any], gold: str, said: str, value: float) -> None:
    assert score({"type": "number", **keys}, gold, said) == value


@pytest.mark.parametrize(
    ("keys", "gold", "said", "value"),
    [
        ({"pattern": "(?i)(?:option )?([a-d])"}, "B", "option b", 1),
        ({"pattern": "(?i)(?:option )?([a-d])"}, "B", "a", 0),
        ({"pattern": "(?i)(?:option )?([a-d])"}, "B", "B or C", 0),
        ({"pattern": "(?P<answer>[A-D])(, because (.*))?"}, "B", "B, because C", 1),
        ({"pattern": r"\d{4}-\d\d-\d\d"}, "2024-01-31", "1999-12-31", 1),  # of the form alone
        ({"pattern": r"\d{4}-\d\d-\d\d"}, "2024-01-31", "in 1999-12-31", 0),
        ({"pattern": "\\b(allow|block)\\b", "fullmatch": False}, "block", "I block it", 1),
        ({"pattern": "\\b(allow|block)\\b", "fullmatch": False}, "block", "block, so block", 1),
        ({"pattern": "\\b(allow|block)\\b", "fullmatch": False}, "block", "allow or block", 0),
        ({"pattern": "\\b(allow|block)\\b", "fullmatch": False}, "block", "block or allow", 0),
        ({"pattern": "\\b(allow|block)\\b", "fullmatch": False}, "block", "block " * 300, 0),
        ({"pattern": "blo.k", "fullmatch": False}, "block", "it is block", 1),
        ({"pattern": "x*", "fullmatch": True}, "xx", "\ud800", 0),
    ],
)
def test_regex(keys: dict[str, Any], gold: str, said: str, value: float) -> None:
    assert score({"type": "regex", **keys}, gold, said) == value


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    "pattern", ["(?:a+)+b", "((?:a|aa)+)c", "(a.*)*b", "(?:x*)*y", "a(?:.*b)?"]
)
def test_no_pattern_is_slow(pattern: str, whole: bool) -> None:
    spec = {"type": "regex", "pattern": pattern, "fullmatch": whole}
    grader = make_grader(spec)
    gold = "aab" if "b" in pattern else "aac" if "c" in pattern else "xy"
    started = time.perf_counter()
    grader(Sample("s", (), "?", None, gold), Completion("s", f"\\boxed{{{'a' * 19_990}!}}"))
    assert time.perf_counter() - started < 2  # minutes with a pattern that backtracks


@given(st.text(max_size=60), st.booleans())
def test_what_a_pattern_finds_is_in_the_text(text: str, whole: bool) -> None:
    found = Pattern("(?s)([^,]*),?").find(text, whole)
    clean = text.encode("utf-8", "replace").decode()
    assert found is None or len(found) == 2 or found[0] in clean


@pytest.mark.parametrize(
    ("spec", "gold", "fault"),
    [
        (CHOICE, "blok", "answer 'blok' is none of the 3 options (one of allow, block, send to a "
         "person); did you mean 'block'?"),
        (CHOICE, "42", "answer '42' is none of the 3 options (one of allow, block, send to a "
         "person); correct it, or add it"),
        ({"type": "number"}, "many", "answer 'many' is no number; correct it"),
        ({"type": "number"}, "nan", "answer 'nan' is no number; correct it"),
        ({"type": "regex", "pattern": "[ab]"}, "c",
         "answer 'c' does not match the pattern [ab]; correct it, or the pattern"),
        ({"type": "regex", "pattern": "([ab])", "fullmatch": False}, "a b",
         "answer 'a b' matches the pattern ([ab]) with two answers; correct it"),
    ],
)  # fmt: skip
def test_gold_answers_that_the_grader_does_not_know(spec: Any, gold: str, fault: str) -> None:
    with pytest.raises(UserError) as raised:
        score(spec, gold, gold)
    assert str(raised.value) == fault


@given(st.sampled_from(["allow", "block"]), st.text(max_size=40))
def test_any_completion_gets_a_score(gold: str, text: str) -> None:
    for spec in (CHOICE, {"type": "regex", "pattern": "(allow|block).*", "fullmatch": False}):
        assert score(spec, gold, text, boxed=False) == 0
        assert score(spec, gold, text) in (0, 1)
