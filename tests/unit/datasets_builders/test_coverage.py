"""Which rules rows exercise, and what is said of those that none does."""

from typing import Any

from datasets_builders.coverage import MOST, coverage, rows_by_side, side_of, uncovered
from trimpi.policy import Policy, TextPart
from trimpi.sample import Sample


def policy(name: str, rules: dict[str, str] | None) -> Policy:
    return Policy(name, (TextPart("P"),), {"conditions": rules} if rules is not None else {})


def rows(id: str | None, *decided: Any) -> list[Sample]:
    """A row under the policy for each list of rules; None says nothing of rules."""
    return [
        Sample(
            id=f"r{n}",
            images=(),
            query="q",
            answer="a",
            policy=id,
            facts={"rules": ids} if ids else {},
        )
        for n, ids in enumerate(decided)
    ]


RULES = {"R1": "If it is red,  no.", "R2": "If it is " + "very " * 20 + "blue, yes.", "R3": "Yes."}


def test_sides_of_splits() -> None:
    sides = {
        "train_cot": "training", "train": "training", "update": "training", "train_p": "training",
        "test": "test", "test_clevr": "test", "override": None, "override_p": None,
        "policy_text": None, "policy_text_new": None,
    }  # fmt: skip
    assert {split: side_of(split) for split in sides} == sides
    counted = {"train": 2, "train_cot": 3, "test": 0, "override": 9}
    assert rows_by_side(counted) == {"training": 5, "test": 0}


def test_rules_without_rows_are_named_once_for_both_sides() -> None:
    splits = {
        "train": rows("p", ["R1"], ["R1"]),
        "test": rows("p", ["R1", "R2"]),
        "override": rows("p", ["R3"]),
        "policy_text": rows("p", ["R3"]),
    }
    policies = {"p": policy("P", RULES), "free": policy("F", None)}
    assert coverage(policies, splits)["p"]["R1"] == {
        "text": RULES["R1"],
        "rows": {"train": 2, "test": 1, "override": 0, "policy_text": 0},
    }
    two, three = uncovered(policies, splits)
    assert two == (
        "policy 'p': rule R2 (If it is very very very very very very very very very very…): no"
        " training row exercises it"
    )
    assert three == "policy 'p': rule R3 (Yes.): no training and no test row exercises it"
    assert uncovered(policies, {"train": rows("p", ["R1", "R2", "R3"])}) == [
        "policy 'p': no test row is under it, so none of its 3 rules is exercised there"
    ]
    whole = rows("p", ["R1", "R2"], ["R3"])
    assert uncovered(policies, {"train": whole, "test": whole}) == []


def test_rows_that_name_no_rule_or_one_that_the_policy_does_not_have() -> None:
    policies = {"p": policy("P", {"R1": "No."})}
    silent = {"train": rows("p", None, None), "test": rows("p", None)}
    assert uncovered(policies, silent) == [
        "policy 'p': it has 1 rule, but none of its 3 rows names one; give rows facts.rules, the"
        " ids of the rules that decide them"
    ]
    wrong = {"train": rows("p", ["R1"], ["R9"]), "test": rows("p", ["R1", "R9"], ["r1"])}
    assert uncovered(policies, wrong) == [
        "policy 'p': its rows name rules that it does not have: R9 (2 rows), r1 (1 row)"
    ]


def test_versions_of_a_policy_and_policies_for_overriding_need_no_rows_of_their_own() -> None:
    policies = {
        "p": policy("P", {"R1": "No."}),
        "p-2": policy("P", {"R1": "Yes."}),
        "override/p": policy("P", {"R1": "Maybe."}),
        "lost": policy("Lost", {"R1": "No."}),
    }
    splits = {
        "train": rows("p", ["R1"]),
        "update": rows("p-2", ["R1"]),
        "test": rows("p-2", ["R1"]) + rows(None, None),
        "override": rows("override/p", ["R1"]),
    }
    assert uncovered(policies, splits) == [
        "policy 'lost': no row is under it, so none of its 1 rule is exercised"
    ]


def test_a_long_list_is_cut() -> None:
    policies = {"p": policy("P", {f"R{n}": "No." for n in range(MOST + 6)})}
    lines = uncovered(policies, {"train": rows("p", ["R0"]), "test": rows("p", ["R0"])})
    assert len(lines) == MOST + 1
    assert lines[-1] == "policy 'p': ... and 5 more rules"


def test_ids_that_are_numbers_are_read_as_text() -> None:
    policies = {"p": policy("P", {"1": "No.", "2": "Yes."})}
    splits = {"train": rows("p", [1, "2"]), "test": rows("p", [1], ["2", 2])}
    assert uncovered(policies, splits) == []
    assert coverage(policies, splits)["p"]["2"]["rows"] == {"train": 1, "test": 1}
