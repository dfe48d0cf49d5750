"""Splits: shares by label, pictures never on two sides, rationales where they are needed."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_builders.document.deal import deal
from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings

PICTURES = st.sets(st.integers(0, 20), max_size=3)
SHARES = {"train_cot": 0.8, "test": 0.2}


def rows(count: int, **given: object) -> list[Labelled]:
    base = {"rationale": "why", **given}
    return [
        Labelled(f"a:{n}", str(n), f"q{n}", "ab"[n % 2], "p", **base)  # type: ignore[arg-type]
        for n in range(count)
    ]


def dealt(examples: list[Labelled], digests: list[tuple[str, ...]] | None = None, **more: object):
    found = Findings()
    own = digests or [(str(n),) for n in range(len(examples))]
    args = {"shares": SHARES, "seed": 0, "reasoned": False, **more}
    return deal(examples, own, found=found, **args), found  # type: ignore[arg-type]


def test_each_label_gets_its_shares() -> None:
    out, found = dealt(rows(100))
    assert not found.problems
    assert Counter((e.split, e.answer) for e in out) == {
        ("train_cot", "a"): 40, ("train_cot", "b"): 40,
        ("test", "a"): 10, ("test", "b"): 10}  # fmt: skip
    assert dealt(rows(100))[0] == out != dealt(rows(100), seed=1)[0]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sets(st.integers(0, 20), max_size=3), min_size=1, max_size=40), st.integers(0, 9)
)
def test_no_picture_is_on_two_sides(pictures: list[set[int]], seed: int) -> None:
    digests = [tuple(str(p) for p in sorted(own)) for own in pictures]
    out, _ = dealt(rows(len(digests)), digests, seed=seed)
    sides: dict[str, set[str | None]] = {}
    for example, digest in zip(out, digests, strict=True):
        for picture in digest:
            sides.setdefault(picture, set()).add(example.split)
    assert all(len(side) == 1 for side in sides.values())
    assert all(example.split for example in out)


def test_rows_without_a_rationale_train_by_their_answers() -> None:
    examples = rows(50) + [e for e in rows(100, rationale=None)[50:]]
    out, _ = dealt(examples)
    assert {e.split for e in out if e.rationale is None} == {"train", "test"}
    assert {e.split for e in out if e.rationale} == {"train_cot", "test"}
    out, _ = dealt(rows(50, rationale=None), reasoned=True)
    assert {e.split for e in out} == {"train_cot", "test"}


def test_named_splits_are_kept() -> None:
    out, found = dealt([*rows(4, split="train"), *rows(8, split="test")[4:]])
    assert not found.problems and Counter(e.split for e in out) == {"train_cot": 4, "test": 4}
    both = [*rows(2, split="train"), *rows(4, split="train_cot")[2:], *rows(6, split="test")[4:]]
    out, _ = dealt(both)
    assert [e.split for e in out] == ["train"] * 2 + ["train_cot"] * 2 + ["test"] * 2


def test_what_is_wrong() -> None:
    named = [*rows(1, split="train"), *rows(2, split="test")[1:]]
    assert dealt(named, [("x",), ("x",)])[1].problems == [
        "a:0: images: shared by the splits test (a:1), train (a:0); keep one"
    ]
    assert dealt(rows(2), [("x",), ("x",)])[1].problems == [
        "splits.test: gets none of 2 rows; give it a larger share, or more examples (rows that "
        "share a picture count as one)"
    ]
    bare = rows(2, split="train_cot", rationale=None) + rows(4, split="train")[2:]
    (problem,) = dealt(bare)[1].problems
    assert problem.startswith("train_cot: 2 rows have no rationale (a:0, a:1); give them one")


def test_without_rows_nothing_is_said_of_splits() -> None:
    assert dealt([])[1].problems == []
