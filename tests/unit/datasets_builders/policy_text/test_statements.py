"""Statements of policies and their forms."""

import random
from collections import Counter
from pathlib import Path

import pytest

from datasets_builders.clevr.tree import Node, Tree
from datasets_builders.clevr.wording import write_policy
from datasets_builders.policy_text.statements import form_of, statements
from trimpi.errors import UserError
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.policy_file import read_policy_file

DESK = """---
name: Desk
attributes: {item: [knife, cup, toy], age: {from: 0, to: 99}}
---
# Parcels

Every parcel has one label. Never open a parcel.
A knife looks like a blade.

- **R1.** If item is knife and age is less than 18, the response is `hold`.
- **R2.** If item is knife, the response is `check`.
- **R3.** If item is toy, the response is `pass`.
- **R4.** When the courier seems lost, point to the map.
- **R5.** Otherwise, the response is `pass`.
"""


@pytest.fixture
def desk(tmp_path: Path) -> Policy:
    file = tmp_path / "desk.md"
    file.write_text(DESK)
    return read_policy_file(file)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("A working day has eight hours.", "factual"),
        ("Call the desk by its number.", "behavioural"),
        ("Guests must wear a badge.", "behavioural"),
        ("If a guest has no badge, call the desk.", "conditional"),
        ("The desk is closed when it snows.", "conditional"),
        ("If a guest has no badge and it is late, call the desk.", "complex"),
        ("If a guest is late or lost, call the desk.", "complex"),
        ("If it is late, call the desk, and if it is closed, wait.", "complex"),
        ("Guests may enter unless it is late.", "complex"),
        ("Otherwise, the answer is no.", "complex"),
    ],
)
def test_a_text_is_told_by_its_words(text: str, form: str) -> None:
    assert form_of(text) == form


def test_rules_of_a_file_are_counted_as_they_were_read(desk: Policy) -> None:
    found = statements(desk)
    assert [(s.id, s.form) for s in found] == [
        (None, "factual"),
        (None, "behavioural"),
        (None, "factual"),
        ("R1", "complex"),
        ("R2", "complex"),  # R1 takes a part of it
        ("R3", "conditional"),
        ("R4", "conditional"),
        ("R5", "complex"),
    ]
    by_id = {s.id: s for s in found}
    assert by_id["R2"].exceptions == ("R1",) and by_id["R3"].exceptions == ()
    assert by_id["R1"].condition == "item is knife and age is less than 18"
    assert (by_id["R4"].condition, by_id["R4"].outcome) == (
        "the courier seems lost",
        "point to the map",
    )
    assert [s.text for s in found[:2]] == ["Every parcel has one label.", "Never open a parcel."]


def test_conditions_of_a_tree_are_complex_where_they_nest() -> None:
    inner = Node("1.1", "color", "red", Node(case=1), Node(case=2))
    tree = Tree(Node("1", "shape", "cube", inner, Node(case=3)), 2)
    found = statements(write_policy(random.Random(0), "Vlomar", tree))
    assert {s.id: s.form for s in found if s.id} == {"1": "complex", "1.1": "conditional"}
    assert all("Condition 1.1:" not in s.text for s in found if s.id is None)


def test_a_policy_without_rules_is_taken_by_sentences() -> None:
    text = "# Title of it all\nWe sell blue pens. If a pen leaks, take it back.\n- Ask for a bill."
    parts = (TextPart(text + "\nA pen is this: "), ImagePart("/pen.png"), TextPart(" one here."))
    found = statements(Policy("Shop", parts))
    assert [(s.text, s.form) for s in found] == [
        ("We sell blue pens.", "factual"),
        ("If a pen leaks, take it back.", "conditional"),
        ("Ask for a bill.", "behavioural"),
    ]


def test_faulty_metadata_are_named() -> None:
    with pytest.raises(UserError, match=r"policy Shop: metadata: rules\.0: must be"):
        statements(Policy("Shop", (TextPart("x"),), {"rules": [1], "attributes": {"a": ["b"]}}))


def test_forms_of_the_shipped_policies() -> None:
    from datasets_builders.guardrail.builder import POLICIES

    found = statements(read_policy_file(POLICIES / "ostrel.md"))
    assert sum(s.id is not None for s in found) == 18
    assert Counter(s.form for s in found if s.id is None) == {"factual": 2, "behavioural": 1}
