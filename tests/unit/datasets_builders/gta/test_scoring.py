"""Scores of tool calls, each expectation worked out by hand."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.gta.calls import Call
from datasets_builders.gta.scoring import CallScore, field_score, score_call
from trimpi.graders.likeness import lexical_similarity


def score(gold: Call, said: Call | None, **defaults: Any) -> CallScore:
    return score_call(gold, said, defaults, lexical_similarity)


BOX = Call("TextToBbox", {"image": "a.jpg", "text": "red car"})


def test_the_whole_call() -> None:
    same = score(BOX, BOX, top1=True)
    assert (same.tool, same.argument, same.overall) == (1, 1, 1)
    other = score(BOX, Call("CountGivenObject_v1", dict(BOX.arguments)))
    assert (other.tool, other.argument, other.overall) == (0, 1, 0.5)
    wrong_version = score(Call("OCR_v3", {"image": "a"}), Call("OCR_v2", {"image": "b"}))
    assert wrong_version.overall == 0
    assert score(Call("Solver", {}), Call("Solver", {})).overall == 1


def test_no_call_scores_nothing() -> None:
    nothing = score(BOX, None)
    assert (nothing.tool, nothing.argument, nothing.overall) == (0, 0, 0)
    assert nothing.fields == {"image": 0, "text": 0}
    assert score(Call("Solver", {}), None).overall == 0


def test_missing_extra_and_mistyped_arguments() -> None:
    missing = score(BOX, Call("TextToBbox", {"image": "a.jpg"}))
    assert missing.fields == {"image": 1, "text": 0} and missing.overall == 0.75
    extra = score(BOX, Call("TextToBbox", {**BOX.arguments, "color": "red", "k": 1}))
    assert extra.fields == {"image": 1, "text": 1, "color": 0, "k": 0} and extra.argument == 0.5
    typed = score(BOX, Call("TextToBbox", {"image": ["a.jpg"], "text": None}))
    assert typed.fields == {"image": 0, "text": 0}


def test_a_default_left_out_is_a_default_written() -> None:
    plain = Call("GoogleSearch_v1", {"query": "x"})
    ten, four = (Call("GoogleSearch_v1", {"query": "x", "k": k}) for k in (10, 4))
    assert score(plain, ten, k=10).overall == score(ten, plain, k=10).overall == 1
    assert score(plain, ten, k=10).fields == {"query": 1}
    assert score(four, plain, k=10).fields == {"query": 1, "k": 0}
    assert score(plain, four, k=10).fields == {"query": 1, "k": 0}
    assert score(plain, plain, k=10).fields == {"query": 1}


def test_writing_a_default_earns_nothing() -> None:
    bare, written = ({"image": "z", "text": "-"}, {"image": "z", "text": "-", "top1": True})
    for said in (bare, written):
        assert score(BOX, Call("TextToBbox", said), top1=True).argument == 0
    assert score(BOX, Call("TextToBbox", {"top1": True}), top1=True).argument == 0


def test_numbers_too_long_to_write_score_nothing() -> None:
    for name in ("k", "image", "query", "expression", "bbox"):
        assert field_score(name, "1", 16**9_000, lexical_similarity) == 0


@pytest.mark.parametrize(
    "text",
    ["a" + "!" * 19_800 + "a", "!" * 19_800, "ab " * 6_500, "\ufdfa" * 19_800, "a" * 19_800,
     "x! " * 6_500],
    ids=range(6),
)  # fmt: skip
def test_likeness_of_long_texts_takes_no_time(
    text: str, best_of_three: Callable[[Callable[[], object]], float]
) -> None:
    for gold in ("price of fish", text):
        spent = best_of_three(
            lambda gold=gold: field_score("query", gold, text, lexical_similarity)
        )  # type: ignore[misc]
        assert spent < 0.1


def test_texts_are_compared_up_to_a_limit() -> None:
    long = "word " * 400
    assert len(long) == 2_000
    assert field_score("query", long + "one", long + "other", lexical_similarity) == 1


@pytest.mark.parametrize(
    ("name", "gold", "said", "expected"),
    [
        ("k", 4, "4", 1),
        ("k", 4, 4.0, 1),
        ("k", 4, "04", 1),
        ("k", 4, 5, 0),
        ("k", 4, "four", 0),
        ("k", 1, True, 0),
        ("top1", True, "true", 1),
        ("top1", True, False, 0),
        ("image", "image_1.jpg", " image_1.jpg ", 1),
        ("image", "image_1.jpg", "image_2.jpg", 0),
        ("color", "Red", "red", 1),
        ("position", "lt", {"x": 1}, 0),
        ("unheard_of", "a", "A", 1),
        ("expression", "290 / 5", "58", 1),
        ("expression", "290 / 5", "290 * 5", 0),
        ("expression", "290 / 5", "__import__('os')", 0),
        ("bbox", "(0, 0, 10, 10)", "(5, 0, 15, 10)", 1 / 3),
        ("bbox", "(0, 0, 10, 10)", [0, 0, 10, 10], 1),
        ("bbox", "(0, 0, 10, 10)", "(10, 10, 0, 0)", 0),
        ("text", "red car", "red car.", 1),
        ("text", "red car", "Red  Car", 1),
        # words: 2 * 2 / (2 + 3); characters: "red car" against "the red car", 2 * 7 / (7 + 11)
        ("text", "red car", "the red car", (4 / 5 + 14 / 18) / 2),
        # one word of two is shared; "red bus" and "red car" share "red " and no more: 2 * 4 / 14
        ("text", "red car", "red bus", (1 / 2 + 8 / 14) / 2),
        ("text", "", "", 1),
        ("text", "red car", "", 0),
        ("text", "red car", 7, 0),
        ("text", "?", "!", 0),
        ("text", "???", " ??? ", 1),
        ("text", "", "?", 0),
        ("text", "(a) 50%!", "(A) 50%", 1),
        ("query", "3", 3, 1),
    ],
)
def test_fields(name: str, gold: Any, said: Any, expected: float) -> None:
    assert field_score(name, gold, said, lexical_similarity) == pytest.approx(expected)


@given(st.text(max_size=30), st.text(max_size=30))
def test_likeness_is_symmetric_and_bounded(first: str, second: str) -> None:
    found = lexical_similarity(first, second)
    assert 0 <= found <= 1 and found == pytest.approx(lexical_similarity(second, first))
    assert lexical_similarity(first, first) == 1
