"""What is wrong with a tool call, and which rules it follows."""

from dataclasses import replace
from typing import Any

import pytest

from datasets_builders.gta.grader import diagnose, first_error, grade
from trimpi.sample import Completion, Sample

ANSWER = '{"name": "GoogleSearch_v2", "arguments": {"query": "fish oil", "k": 1}}'
FACTS: dict[str, Any] = {
    "tool": "GoogleSearch",
    "rules": ["S4", "GoogleSearch.2"],
    "ruled_arguments": {"S4": "k"},
    "defaults": {"k": 10},
}
SAMPLE = Sample("s", (), "Find it.", "p", ANSWER, facts=FACTS)
REASONS = "Rule S4: closed. Rule GoogleSearch.2: it holds. So Rule GoogleSearch.2."
PLAIN = replace(
    SAMPLE,
    answer='{"name": "Calculator", "arguments": {"expression": "12*2"}}',
    facts={"tool": "Calculator", "rules": [], "ruled_arguments": {}, "defaults": {}},
)


def said(call: str, reasons: str = REASONS) -> Completion:
    return Completion("s", f"<think> {reasons} </think> \\boxed{{{call}}}")


@pytest.mark.parametrize(
    ("call", "reasons", "error", "called"),
    [
        (ANSWER, REASONS, "none", "GoogleSearch_v2"),
        (ANSWER, "It is closed.", "none", "GoogleSearch_v2"),
        (ANSWER, "Rule S5 and rule OCR.1 are read.", "none", "GoogleSearch_v2"),
        (ANSWER, "Rule GoogleSearch.1 holds.", "rule", "GoogleSearch_v2"),
        (ANSWER.replace("oil", "oils"), REASONS, "argument", "GoogleSearch_v2"),
        (ANSWER.replace("v2", "v1").replace("oil", "o"), REASONS, "version", "GoogleSearch_v1"),
        (ANSWER.replace("_v2", ""), REASONS, "version", "GoogleSearch"),
        (ANSWER.replace("GoogleSearch_v2", "OCR_v2"), REASONS, "tool", "other tool"),
        (ANSWER.replace("GoogleSearch_v2", "GoogleSearches"), REASONS, "tool", "other tool"),
        ("I would search", REASONS, "format", "no call"),
    ],
)
def test_the_first_error_of_a_call(call: str, reasons: str, error: str, called: str) -> None:
    found = diagnose(SAMPLE, said(call, reasons))
    assert found["first_error"] == error
    assert found["confusion"] == {
        "group": "GoogleSearch", "gold": "GoogleSearch_v2", "said": called,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reasons", "cited"),
    [
        (REASONS, ["S4", "GoogleSearch.2"]),
        ("By rules GoogleSearch.2, OCR.31 and S4.", ["GoogleSearch.2", "OCR.31", "S4"]),
        ("Rule GoogleSearch.21 and Rule S4.1: no.", ["GoogleSearch.21", "S4.1"]),
        ("A rule of thumb, rule 1234, rule GoogleSearch.2345.", []),
        ("GoogleSearch.2 without the word", []),
    ],
)
def test_rules_are_cited_by_their_ids_once_each(reasons: str, cited: list[str]) -> None:
    found = diagnose(SAMPLE, said(ANSWER, reasons))
    assert found["cited"] == cited and found["gold"] == ["S4", "GoogleSearch.2"]
    assert found["gold_path"] == (set(cited) == {"S4", "GoogleSearch.2"})


def test_without_a_think_block_the_reasoning_is_what_comes_before_the_box() -> None:
    found = diagnose(SAMPLE, Completion("s", f"Rule S4. \\boxed{{{ANSWER}}} Rule OCR.1"))
    assert found["cited"] == ["S4"]


def test_an_id_without_a_number_is_known_from_the_row() -> None:
    named = replace(SAMPLE, facts={**FACTS, "rules": ["exact names"]})
    assert diagnose(named, said(ANSWER, "Rule exact names holds."))["gold_path"]


def test_a_tool_without_versions_has_no_confusion() -> None:
    found = diagnose(PLAIN, said('{"name": "Calculator", "arguments": {"expression": "24"}}', ""))
    assert found == {
        "first_error": "none", "cited": [], "gold": [], "gold_path": True, "confusion": None,
    }  # fmt: skip
    assert diagnose(PLAIN, said('{"name": "OCR_v1"}', ""))["first_error"] == "tool"


@pytest.mark.parametrize(
    ("call", "followed"),
    [
        (ANSWER, (1.0, 1.0)),
        (ANSWER.replace("v2", "v1"), (1.0, 0.0)),  # k is right whatever the version
        (ANSWER.replace('"k": 1', '"k": 4'), (0.0, 1.0)),
        (ANSWER.replace("GoogleSearch", "Bing"), (0.0, 0.0)),  # k of another tool
        ("no call", (0.0, 0.0)),
    ],
)
def test_each_rule_is_judged_by_what_it_rules(call: str, followed: tuple[float, float]) -> None:
    parts = grade(SAMPLE, said(call)).parts
    assert (parts["rule/S4"], parts["rule/GoogleSearch.2"]) == followed


def test_a_rule_of_order_asks_for_the_tool_in_any_version() -> None:
    first = replace(SAMPLE, facts={**FACTS, "rules": ["S1"], "ruled_arguments": {}})
    assert grade(first, said(ANSWER.replace("v2", "v1"))).parts["rule/S1"] == 1
    assert grade(first, said(ANSWER.replace("GoogleSearch", "OCR"))).parts["rule/S1"] == 0


def test_arguments_that_the_tool_does_not_have_share_a_name() -> None:
    call = ANSWER.replace('"k": 1', '"x1": 1, "x2": 2')
    fields = {n: v for n, v in grade(SAMPLE, said(call)).parts.items() if n.startswith("field/")}
    assert fields == {"field/query": 1.0, "field/k": 0.0, "field/(unasked)": 0.0}
    optional = replace(PLAIN, facts={**PLAIN.facts, "defaults": {"digits": 2}})
    call = '{"name": "Calculator", "arguments": {"expression": "24", "digits": 2}}'
    assert "field/digits" not in grade(optional, said(call)).parts  # written as it is anyway
    call = call.replace('"digits": 2', '"digits": 3')
    assert grade(optional, said(call)).parts["field/digits"] == 0.0


def test_the_picture_shows_whether_rules_about_pictures_are_followed() -> None:
    """S1 asks for this picture first, S5 for its name as it is given."""
    read = replace(
        SAMPLE,
        answer='{"name": "OCR_v3", "arguments": {"image": "image/1.jpg"}}',
        facts={**FACTS, "tool": "OCR", "rules": ["S1", "S5", "OCR.3"], "defaults": {},
               "ruled_arguments": {"S1": "image", "S5": "image"}},
    )  # fmt: skip
    wrong = said('{"name": "OCR_v3", "arguments": {"image": "image/2.jpg"}}')
    rules = {n: v for n, v in grade(read, wrong).parts.items() if n.startswith("rule/")}
    assert rules == {"rule/S1": 0.0, "rule/S5": 0.0, "rule/OCR.3": 1.0}
    other = said('{"name": "OCR_v1", "arguments": {"image": "image/1.jpg"}}')
    rules = {n: v for n, v in grade(read, other).parts.items() if n.startswith("rule/")}
    assert rules == {"rule/S1": 1.0, "rule/S5": 1.0, "rule/OCR.3": 0.0}


def test_texts_are_compared_as_the_grader_does() -> None:
    other = said(ANSWER.replace("oil", "oils"))
    assert first_error(SAMPLE, other, lambda one, two: 1.0)["first_error"] == "none"
    assert diagnose(SAMPLE, other)["first_error"] == "argument"
