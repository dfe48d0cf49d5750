"""Rows under another version of a policy: decided by its rules, told apart by what changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings
from datasets_builders.document.rulings import agree, reasons, rule_sets
from trimpi.policy import Policy
from trimpi.rules import diff


def moved(
    examples: Sequence[Labelled],
    policies: Mapping[str, Policy],
    newer: Mapping[str, Policy],
    found: Findings,
) -> list[Labelled]:
    """Rows with the answer of the newer version's rules.

    Facts get `original_answer` and `changed`: whether a rule that decides the row changed.

    Args:
        examples: rows of the present version, whose facts have values for its attributes.
        policies: the present versions by id.
        newer: the newer ones.
        found: gets problems: rules that are not checkable, or do not decide a row.
    """
    sets = rule_sets(newer)
    changes = {id: diff(policies[id], newer[id]) for id in newer if id in policies}
    rows = []
    for id, policy in newer.items():
        own = [example for example in examples if example.policy == id]
        if id not in sets:
            found.add(
                "override",
                f"policy {policy.name} has no checkable rules to decide the test rows by; give "
                "override: {policy, examples}",
            )
            continue
        for example in own:
            try:
                rule = sets[id].decide(example.facts)
            except KeyError as error:
                found.add(
                    example.where,
                    f"facts.{error.args[0]}: no value, and the override's rules ask for it; add it",
                )
                continue
            if rule is None or rule.outcome is None:
                found.add(example.where, "override: no rule of the newer version decides; add one")
                continue
            same = agree(example.answer, rule.outcome)
            touched = {*changes[id].changed, *changes[id].added, *changes[id].removed}
            deciding = {rule.id, *example.facts.get("rules", ())}
            facts = {
                **example.facts,
                "rules": [rule.id],
                "reasons": "rules",
                "original_answer": example.answer,
                "changed": bool(deciding & touched),
            }
            rows.append(
                replace(
                    example,
                    answer=example.answer if same else rule.outcome,
                    rationale=reasons(policy, sets[id], facts),
                    facts=facts,
                    split="override",
                    rules=(rule.id,),
                )
            )
    return rows
