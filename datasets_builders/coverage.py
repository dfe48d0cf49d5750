"""Which rules of a policy the rows of a data set exercise."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.policy import Policy
from trimpi.sample import Sample

Coverage = dict[str, dict[str, dict[str, Any]]]
"""`{policy id: {rule id: {"text": ..., "rows": {split: rows}}}}`"""


def coverage(policies: Mapping[str, Policy], splits: Mapping[str, Sequence[Sample]]) -> Coverage:
    """How many rows of each split a rule decides, by policy and rule.

    Rows name their rules in `facts["rules"]`; a policy has its rules in `metadata["conditions"]`.
    A policy without rules, or whose rows name none, is left out. Splits without a row under a
    policy are left out of its rules.
    """
    found: Coverage = {}
    for name, policy in policies.items():
        texts = policy.metadata.get("conditions")
        rows = {
            split: [sample.facts["rules"] for sample in samples if _names(sample, name)]
            for split, samples in splits.items()
        }
        rows = {split: named for split, named in rows.items() if named}
        if not isinstance(texts, Mapping) or not texts or not rows:
            continue
        found[name] = {
            str(rule): {
                "text": str(text),
                "rows": {split: sum(rule in ids for ids in named) for split, named in rows.items()},
            }
            for rule, text in texts.items()
        }
    return found


def _names(sample: Sample, policy: str) -> bool:
    return sample.policy == policy and isinstance(sample.facts.get("rules"), list)
