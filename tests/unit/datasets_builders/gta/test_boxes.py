"""Boxes: what is one, and intersection over union by hand."""

import math
from typing import Any

import pytest

from datasets_builders.gta.boxes import overlap, parse_box


@pytest.mark.parametrize(
    "value",
    ["(1, 2, 3, 4.5)", "1,2,3,4.5", "[1, 2, 3, 4.5]", " ( 1 ,2,3,4.5 ) ", [1, 2, 3, 4.5],
     (1.0, 2, 3, 4.5)],
)  # fmt: skip
def test_writings_of_a_box(value: Any) -> None:
    assert parse_box(value) == (1, 2, 3, 4.5)


@pytest.mark.parametrize(
    "value",
    ["", "1, 2, 3", "1, 2, 3, 4, 5", "(a, b, c, d)", "(1, 2, 3, nan)", "(1, 2, 3, inf)", None, 7,
     "(3, 2, 1, 4)", "(1, 4, 3, 2)", "(1, 2, 1, 4)", "(1, 2, 3, 2)", [1, 2, 3], ["1", 2, 3, 4],
     [1, 2, math.nan, 4], [0, 0, math.inf, 4], [True, 2, 3, 4], {"x1": 1}, "9" * 9999,
     [0, 0, 10**400, 4], "(1e3, 0, 2e3, 5)", [0, 0, 1e-200, 1e-200],
     [1e-310, 0, 2e-310, 1e-320]],
    ids=range(23),
)  # fmt: skip
def test_what_is_no_box(value: Any) -> None:
    assert parse_box(value) is None
    assert overlap(value, "(0, 0, 1, 1)") == overlap("(0, 0, 1, 1)", value) == 0
    assert overlap(value, value) == 0


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("(0, 0, 10, 10)", "(0, 0, 10, 10)", 1.0),
        ("(0, 0, 10, 10)", "(5, 0, 15, 10)", 50 / 150),
        ("(0, 0, 10, 10)", "(5, 5, 15, 15)", 25 / 175),
        ("(0, 0, 10, 10)", "(2, 2, 4, 4)", 4 / 100),
        ("(0, 0, 10, 10)", "(10, 0, 20, 10)", 0.0),
        ("(0, 0, 10, 10)", "(50, 50, 60, 60)", 0.0),
        ("(-10, -10, 10, 10)", "(0, 0, 10, 10)", 100 / 400),
    ],
)
def test_intersection_over_union(first: str, second: str, expected: float) -> None:
    assert overlap(first, second) == pytest.approx(expected)
    assert overlap(second, first) == pytest.approx(expected)
