"""How rules, and the reasoning through them, read."""

from datasets_builders.gta.calls import Call
from datasets_builders.gta.oracle import RuledStep
from datasets_builders.gta.rules import version_rules
from datasets_builders.gta.wording import check, rationale, rule_texts, walk

RULES = version_rules(
    {
        "attributes": {"plan": ["free", "paid"], "age": {"from": 0, "to": 99}},
        "versions": {
            "OCR": [
                {"plan": "free", "age": "< 18", "version": "v2"},
                {"plan": "free", "age": ">= 18", "version": "v3"},
                {"plan": "paid", "version": "v1"},
            ],
            "Plot": [{"version": "v1"}],
        },
    },
    "rules",
)
TEXTS = rule_texts(RULES, ())


def test_each_condition_of_a_rule_is_judged_by_itself() -> None:
    first, second, third = RULES.tools["OCR"]
    profile = {"plan": "free", "age": 18}
    assert check(first, profile, TEXTS["OCR.1"]) == (
        "Rule OCR.1: if plan is free and age is less than 18, call OCR_v2."
        " The profile has plan free: yes, age 18: no."
    )
    assert check(second, profile, TEXTS["OCR.2"]).endswith("plan free: yes, age 18: yes.")
    assert check(third, profile, TEXTS["OCR.3"]).endswith("The profile has plan free: no.")
    (always,) = RULES.tools["Plot"]
    assert check(always, profile, TEXTS["Plot.1"]) == (
        "Rule Plot.1: always, call Plot_v1. The profile has nothing to meet: yes."
    )


def test_the_reasoning_stops_at_the_rule_that_holds() -> None:
    profile = {"plan": "free", "age": 40}
    assert [rule.id for rule in walk("OCR", profile, RULES)] == ["OCR.1", "OCR.2"]
    assert walk("Calculator", profile, RULES) == []
    step = RuledStep(Call("OCR_v3", {}), "", ("S9", "OCR.2"), "I read \n it.")
    lines = rationale("OCR", profile, step, RULES, {**TEXTS, "S9": "Be kind."}).splitlines()
    assert lines[:3] == ["I read it.", "The next call is to OCR.", "Rule S9: Be kind."]
    assert [line.split(":")[0] for line in lines[3:5]] == ["Rule OCR.1", "Rule OCR.2"]
    assert lines[5:] == ["So the call is OCR_v3."]
    bare = rationale("Calculator", profile, RuledStep(Call("Calculator", {}), "", ()), RULES, {})
    assert bare == (
        "The next call is to Calculator.\nCalculator has no versions.\nSo the call is Calculator."
    )
