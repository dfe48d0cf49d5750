"""BM25 by hand, and what a retriever shows."""

from math import log

import pytest

from trimpi.policy import Policy, TextPart
from trimpi.retrieval import Retriever, bm25, words

POLICY = Policy(
    "P",
    (TextPart("# P\n\nOf all.\n\n## Guns\nA gun is blocked.\n\n## Pills\nPills are blurred.\n\n"
              "## Dice\nDice are allowed.\n"),),
)  # fmt: skip


def test_words_are_lower_case_runs_and_single_signs_of_scripts_without_spaces() -> None:
    assert words("If account_type is B, v1.2!") == ["if", "account_type", "is", "b", "v1", "2"]
    assert words("拳銃は No-Go") == ["拳", "銃", "は", "no", "go"]


def test_bm25_by_hand() -> None:
    # lengths 2, 4 and 3 words, 3 in the mean; "gun" stands in two of three sections
    sections = ["gun knife", "gun gun apple ball", "cup bowl plate"]
    gun, cup = log(1 + 1.5 / 2.5), log(1 + 2.5 / 1.5)
    first = gun * 1 / (1 + 1.2 * (0.25 + 0.75 * 2 / 3))
    second = gun * 2 / (2 + 1.2 * (0.25 + 0.75 * 4 / 3))
    third = cup * 1 / (1 + 1.2 * (0.25 + 0.75 * 1))
    assert bm25("Gun?", sections) == pytest.approx([first, second, 0.0])
    assert bm25("the gun and the cup", sections) == pytest.approx([first, second, third])
    assert bm25("gun gun", sections) == pytest.approx([2 * first, 2 * second, 0.0])


def test_nothing_in_common_scores_nothing() -> None:
    assert bm25("zebra", ["a b", "", "c"]) == [0.0, 0.0, 0.0]
    assert bm25("zebra", []) == []


def test_the_best_sections_are_shown_in_the_order_of_the_policy() -> None:
    found = Retriever(POLICY, 2)("dice beside a gun")
    assert (found.sections, found.of) == (2, 3)
    assert found.policy is not None
    assert found.policy.text == (
        "# P\n\nOf all.\n\n## Guns\nA gun is blocked.\n\n## Dice\nDice are allowed."
    )
    bare = Retriever(POLICY, 1, keep_head=False)("pills").policy
    assert bare is not None and bare.text == "## Pills\nPills are blurred."


def test_of_equal_sections_the_earlier_ones_are_shown() -> None:
    found = Retriever(POLICY, 1)("zebra").policy
    assert found is not None and found.text.endswith("A gun is blocked.")


def test_a_policy_of_few_sections_is_shown_as_it_is() -> None:
    found = Retriever(POLICY, 7)("dice")
    assert found.policy is POLICY and (found.sections, found.of) == (3, 3)
