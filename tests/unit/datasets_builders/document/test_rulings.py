"""Rows under checkable rules: who decides, what disagrees, the reasons in words."""

from typing import Any

import pytest

from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings
from datasets_builders.document.responses import check_responses
from datasets_builders.document.rulings import agree, apply_rules
from datasets_builders.document.versions import moved
from trimpi.policy import Policy, TextPart
from trimpi.rules import Interval, Rule, RuleSet, Words

ITEM, AGE = Words(("knife", "bottle")), Interval(0, 99)
KNIFE = Rule("R1", "If item is knife and age is less than 18, the response is `block`.", "",
             {"item": Words(("knife",)), "age": Interval(0, 17)}, "block")  # fmt: skip
OTHER = Rule("R2", "Otherwise, the response is `allow`.", "", {}, "allow")


def policy(*rules: Rule, order: Any = "first") -> Policy:
    found = RuleSet({"item": ITEM, "age": AGE}, rules, order)
    texts = {rule.id: rule.text for rule in rules}
    metadata = {**found.to_metadata(), "conditions": texts, "unit": "Rule"}
    return Policy("Ostrel", (TextPart("\n".join(texts.values())),), metadata)


def row(answer: str, where: str = "a:1", **facts: Any) -> Labelled:
    return Labelled(where, where, "q", answer, "p", facts=facts)


def ruled(
    *rows: Labelled, trust: str = "rules", of: Policy | None = None
) -> tuple[list[Labelled], Findings]:
    found = Findings()
    return apply_rules(rows, {"p": of or policy(KNIFE, OTHER)}, trust, True, found), found


def test_the_rule_that_decides_and_the_walk_to_it() -> None:
    (young, old), found = ruled(
        row("Block", item="Knife", age="17"), row("allow", "a:2", item="knife", age=18.0)
    )
    assert not found.problems
    assert dict(young.facts) == {"item": "knife", "age": 17, "rules": ["R1"], "reasons": "rules"}
    assert young.rationale == (
        "Rule R1: If item is knife and age is less than 18, the response is `block`. Here item is "
        "knife: yes, age is 17: yes.\nSo the response is block."
    )
    assert old.facts["rules"] == ["R2"]
    assert old.rationale == (
        "Rule R1: If item is knife and age is less than 18, the response is `block`. Here item is "
        "knife: yes, age is 18: no.\nRule R2: Otherwise, the response is `allow`. No rule before "
        "it holds.\nSo the response is allow."
    )


def test_without_an_order_the_deciding_rule_stands_alone() -> None:
    (example,), _ = ruled(row("allow", item="bottle", age=3), of=policy(KNIFE, OTHER, order="any"))
    assert example.rationale == (
        "Rule R2: Otherwise, the response is `allow`. No other rule holds.\n"
        "So the response is allow."
    )


def test_reasons_of_the_table_are_kept() -> None:
    given = Labelled("a:1", "1", "q", "block", "p", rationale="Mine.",
                     facts={"item": "knife", "age": 3})  # fmt: skip
    (example,), _ = ruled(given)
    assert example.rationale == "Mine." and example.facts == {**given.facts, "rules": ["R1"]}


def test_labels_that_the_rules_contradict() -> None:
    good, bad = row("allow", item="bottle", age=3), row("allow", "a:2", item="knife", age=3)
    _, found = ruled(good, bad)
    assert found.problems == [
        "a:2: answer 'allow', but rule R1 gives 'block' for item knife, age 3; correct the row or "
        "the rule, or set trust: labels to keep labels"
    ]
    (_, kept), found = ruled(good, bad, trust="labels")
    assert not found.problems and found.warnings[0].endswith("kept, since trust is labels")
    assert (kept.answer, kept.rationale, kept.facts["rules_say"]) == ("allow", None, "block")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (
            {"item": "knive", "age": 3},
            "facts.item: 'knive' is no value of it; did you mean",
        ),
        ({"item": "knife", "age": "x"}, "facts.age: must be a whole number, found 'x'"),
        ({"item": "knife", "age": 3.5}, "facts.age: must be a whole number, found 3.5"),
        ({"item": "knife", "age": 100}, "facts.age: 100 is not from 0 to 99"),
        ({"item": "knife"}, "facts.age: no value, and rules of the policy ask for it; add it"),
    ],
)
def test_values_that_attributes_do_not_have(facts: dict[str, Any], words: str) -> None:
    assert ruled(row("block", **facts))[1].problems[0].startswith(f"a:1: {words}")


def test_a_gap_is_a_problem_of_the_row() -> None:
    _, found = ruled(row("block", item="knife", age=3), row("allow", "a:2", item="bottle", age=3),
                     of=policy(KNIFE))  # fmt: skip
    assert found.problems == [
        "a:2: facts: no rule decides for item bottle, age 3; add a rule, or correct the facts"
    ]


def test_outcomes_in_other_words_than_labels_are_not_compared() -> None:
    clause = Rule("R1", "If item is knife, do not show it.", "", {"item": Words(("knife",))},
                  "do not show it")  # fmt: skip
    (example,), found = ruled(row("block", item="knife", age=3), of=policy(clause))
    assert not found.problems and example.rationale is None and example.facts["rules"] == ["R1"]
    assert (
        "the rules' outcomes (do not show it) are none of the labels (block)" in found.warnings[0]
    )


def test_an_outcome_within_a_json_answer_agrees() -> None:
    assert agree('{"decision": "Block", "level": 2}', "block") and agree('{"a": ["2"]}', "2")
    assert not agree('{"decision": "allow"}', "block") and not agree("[1", "1")


def test_labels_that_no_rule_has() -> None:
    of = policy(KNIFE, OTHER)
    of = Policy(of.name, of.parts, {**of.metadata, "cases": ["block", "allow"]})
    found = Findings()
    same = check_responses([row("block"), row("alow", "a:2")], {"p": of}, "rules", found)
    assert found.problems == [
        "a:2: answer 'alow' is no response of policy Ostrel; did you mean 'allow'?"
    ]
    assert "cases" not in same["p"].metadata
    found = Findings()
    other = check_responses([row('{"d": "x"}')], {"p": of}, "rules", found)
    assert not found.problems and "cases" not in other["p"].metadata
    assert "cases" in check_responses([row("allow")], {"p": of}, "rules", found)["p"].metadata


def test_rows_under_a_newer_version() -> None:
    warn = Rule("R1", "If item is knife and age is less than 18, the response is `warn`.", "",
                KNIFE.when, "warn")  # fmt: skip
    rows, _ = ruled(row("block", item="knife", age=3), row("allow", "a:2", item="bottle", age=3))
    found = Findings()
    young, old = moved(rows, {"p": policy(KNIFE, OTHER)}, {"p": policy(warn, OTHER)}, found)
    assert not found.problems
    assert (young.answer, young.facts["changed"], young.facts["original_answer"]) == (
        "warn", True, "block")  # fmt: skip
    assert (old.answer, old.facts["changed"], old.split) == ("allow", False, "override")
    assert young.rationale is not None and young.rationale.endswith("So the response is warn.")
