"""Policies cut into head and sections: by headings, by rules, by paragraphs."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimpi.policy import ImagePart, Part, Policy, TextPart
from trimpi.sections import Sections, sections_of


def cut(*parts: str) -> Sections:
    """Sections of a policy; a part that ends in .png is a picture."""
    made: list[Part] = [ImagePart(p) if p.endswith(".png") else TextPart(p) for p in parts]
    return sections_of(Policy("P", tuple(made)))


def text_of(sections: Sections, chosen: Sequence[int], head: bool = True) -> str:
    shown = sections.shown(chosen, head)
    assert shown is not None
    return shown.text


def test_headings_below_the_title_are_sections_and_what_is_above_them_the_head() -> None:
    found = cut("# Policy\n\nOf all.\n\n## A\n\n- **R1.** One.\n- **R2.** Two.\n\n## B\n\nThree.\n")
    assert found.head == "# Policy\n\nOf all."
    assert found.texts == ("## A\n\n- **R1.** One.\n- **R2.** Two.", "## B\n\nThree.")
    assert text_of(found, [1]) == "# Policy\n\nOf all.\n\n## B\n\nThree."
    assert text_of(found, [1], head=False) == "## B\n\nThree."
    assert text_of(found, []) == "# Policy\n\nOf all."
    assert found.shown([], head=False) is None


def test_a_section_is_shown_below_the_headings_that_it_stands_under() -> None:
    found = cut("## A\n\nOf A.\n\n### A1\nx\n\n## B\n\n### B1\ny\n### B2\nz\n")
    assert found.head == ""
    assert found.texts == (
        "## A\n\nOf A.",
        "## A\n\n### A1\nx",
        "## B\n\n### B1\ny",
        "## B\n\n### B2\nz",
    )
    assert text_of(found, [1, 3]) == "## A\n\n### A1\nx\n\n## B\n\n### B2\nz"
    assert found.shown([0, 1, 2, 3]) is found.policy


def test_two_titles_of_one_level_are_sections_both() -> None:
    assert cut("# A\na\n# B\nb").texts == ("# A\na", "# B\nb")


def test_what_looks_like_a_heading_in_code_is_none() -> None:
    found = cut("# P\n\n## A\n\n```\n## no heading\n```\n\n## B\nb\n")
    assert found.texts == ("## A\n\n```\n## no heading\n```", "## B\nb")


def test_without_headings_each_rule_is_a_section_with_the_title_above_it() -> None:
    found = cut(
        "The rules of P. Start at Condition 1.\n\nSection 1\nCondition 1.1: red? Yes: Case 1.\n"
        "Condition 1: blue? Yes: go on.\n\nSection 2\nCondition 1.2: green? No: Case 3."
    )
    assert found.head == "The rules of P. Start at Condition 1."
    assert found.texts == (
        "Section 1\nCondition 1.1: red? Yes: Case 1.",
        "Condition 1: blue? Yes: go on.",
        "Section 2\nCondition 1.2: green? No: Case 3.",
    )


def test_tools_before_rules_belong_to_all_and_a_line_in_between_to_the_rule_below() -> None:
    found = cut(
        "Policy V.\nTools\n- OCR (v1, v2): Reads text.\nRules for versions\nRule OCR.1: if A, v1.\n"
        "Rule OCR.2: if B,\n  the other.\nGeneral rules\nRule S1: Be brief.\n"
    )
    assert found.head == "Policy V.\nTools\n- OCR (v1, v2): Reads text."
    assert found.texts == (
        "Rules for versions\nRule OCR.1: if A, v1.",
        "Rule OCR.2: if B,\n  the other.",
        "General rules\nRule S1: Be brief.",
    )


def test_a_title_alone_stays_in_the_head_of_a_policy_of_rules() -> None:
    found = cut("# Policy\n\n- **R1.** One.\n- **R2.** Two.\n\nIn doubt, refuse.\n")
    assert found.head == "# Policy"
    assert found.texts == ("- **R1.** One.", "- **R2.** Two.", "In doubt, refuse.")


def test_an_id_alone_on_its_line_keeps_its_paragraph() -> None:
    found = cut("Intro.\n\n**R1.**\n\nText of one.\n\n**R2.**\n\nText of two.\n")
    assert found.texts == ("**R1.**\n\nText of one.", "**R2.**\n\nText of two.")


@pytest.mark.parametrize(
    ("text", "head", "texts"),
    [
        ("One.\n\nTwo.\nMore of two.\n\nThree.", "One.", ("Two.\nMore of two.", "Three.")),
        ("One alone.", "", ("One alone.",)),
        ("**R1.** The only rule.", "", ("**R1.** The only rule.",)),
    ],
)
def test_without_rules_paragraphs_are_sections(text: str, head: str, texts: tuple[str]) -> None:
    found = cut(text)
    assert (found.head, found.texts) == (head, texts)


def test_pictures_stay_with_the_text_around_them() -> None:
    found = cut(
        "# P\n\nA child: ", "child.png", "\n\n## A\n\nLike ", "a.png", " or ", "b.png",
        ".\n\n## B\n\n", "c.png",
    )  # fmt: skip
    assert len(found) == 2
    last = found.shown([1])
    assert last is not None and last.images == ("child.png", "c.png")
    assert [type(part).__name__ for part in last.parts] == [
        "TextPart", "ImagePart", "TextPart", "ImagePart"
    ]  # fmt: skip
    first = found.shown([0], head=False)
    assert first is not None and first.images == ("a.png", "b.png")
    assert first.text == "## A\n\nLike  or ."


LINES = st.sampled_from(
    ["# T", "## A", "### B", "", "", "word", "Section 1", "Condition 1: x?", "- **R2.** y", "```",
     "- item", "  more", "\ue000", "a.png"]
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.lists(LINES, min_size=1, max_size=14), st.data())
def test_head_and_sections_are_the_whole_policy(lines: list[str], data: st.DataObject) -> None:
    parts: list[Part] = []
    for line in lines:
        parts += [ImagePart(line), TextPart("\n")] if line == "a.png" else [TextPart(line + "\n")]
    found = sections_of(Policy("P", tuple(parts)))
    everything = range(len(found))
    assert found.shown(everything) is found.policy
    chosen = data.draw(st.sets(st.sampled_from(everything)) if len(found) else st.just(set()))
    rest = set(everything) - chosen
    whole = found.policy
    sides = [found.shown(chosen), found.shown(rest, head=False)]
    # every line and picture is on one side, headings that sections stand under maybe on both
    assert sum(len(side.images) for side in sides if side) >= len(whole.images)
    written = {line for side in sides if side for line in side.text.split("\n")}
    assert {line for line in whole.text.split("\n") if line.strip()} <= written
    places = [(s.first, s.last) for s in found.found]
    assert all(a[1] <= b[0] for a, b in pairwise(places))
