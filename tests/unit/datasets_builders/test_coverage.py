"""Which rules rows exercise, and what is said of those that none does."""

from datasets_builders.coverage import coverage, uncovered
from trimpi.policy import Policy, TextPart
from trimpi.sample import Sample


def policy(*rules: str) -> Policy:
    conditions = {rule: f"text of {rule}" for rule in rules}
    return Policy("P", (TextPart("x"),), {"conditions": conditions})


def row(rules: list[str] | None, under: str = "p") -> Sample:
    facts = {} if rules is None else {"rules": rules}
    return Sample("i", (), "q", under, "a", None, facts)


POLICIES = {"p": policy("R1", "R2", "R3"), "override/p": policy("R1")}


def test_rows_are_counted_by_rule_and_split() -> None:
    found = coverage(
        POLICIES,
        {
            "train_cot": [row(["R1"]), row(["R1", "R2"])],
            "test": [row(["R2"])],
            "override": [row(["R1"], "override/p")],
        },
    )
    assert {rule: cell["rows"] for rule, cell in found["p"].items()} == {
        "R1": {"train_cot": 2, "test": 0},
        "R2": {"train_cot": 1, "test": 1},
        "R3": {"train_cot": 0, "test": 0},
    }
    assert found["override/p"]["R1"] == {"text": "text of R1", "rows": {"override": 1}}
    assert coverage(POLICIES, {"test": [row(None)]}) == {}


def test_uncovered_rules_are_named_by_side() -> None:
    splits = {"train": [row(["R1"])], "train_cot": [row(["R2"])], "test": [row(["R2"])]}
    assert uncovered(POLICIES, splits) == [
        "policy p: no test row exercises rule R1 (text of R1)",
        "policy p: no training row and no test row exercises rule R3 (text of R3)",
    ]


def test_overrides_and_texts_count_for_nothing() -> None:
    splits = {
        "train": [row(["R1", "R2", "R3"])],
        "policy_text": [row(["R1"])],
        "override": [row(["R1"], "override/p")],
        "test": [row(["R1", "R2"])],
    }
    assert uncovered(POLICIES, splits) == ["policy p: no test row exercises rule R3 (text of R3)"]


def test_rows_that_name_no_rules_are_told_once() -> None:
    (line,) = uncovered(POLICIES, {"train": [row(None)], "test": [row(None)]})
    assert line.startswith("policy p: has 3 rules, and no row names those that decide it")


def test_policies_without_rules_or_rows_are_silent() -> None:
    plain = {"p": Policy("P", (TextPart("x"),)), "q": policy("R1")}
    assert uncovered(plain, {"train": [row(None)], "test": [row(["R9"])]}) == []


def test_long_texts_are_cut() -> None:
    long = {"p": Policy("P", (TextPart("x"),), {"conditions": {"R1": "a", "R2": "b " * 99}})}
    (line,) = uncovered(long, {"train": [row(["R1"])]})
    assert line.endswith("...)") and len(line) < 150
