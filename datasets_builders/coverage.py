"""Which rules of a policy the rows of a data set exercise."""

from collections.abc import Mapping, Sequence
from typing import Any

from datasets_builders.policy_text import is_text_split
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


def uncovered(policies: Mapping[str, Policy], splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Rules that no training row or no test row exercises, one line each, and policies with rules
    whose rows name none. Rows of `override` and texts about policies do not count.

    Args:
        policies: by id; those for overriding (ids with a slash) are left out.
        splits: rows by split; `test` is tested on, all others are trained on.
    """
    sides: dict[str, list[Sample]] = {"training": [], "test": []}
    for split, samples in splits.items():
        if split.partition("_")[0] == "override" or is_text_split(split):
            continue
        sides["test" if split.partition("_")[0] == "test" else "training"] += samples
    lines = []
    for name, policy in policies.items():
        texts = policy.metadata.get("conditions")
        own = {side: [s for s in rows if s.policy == name] for side, rows in sides.items()}
        if "/" in name or not isinstance(texts, Mapping) or not texts or not any(own.values()):
            continue
        if not any(_names(sample, name) for rows in own.values() for sample in rows):
            lines.append(
                f"policy {name}: has {len(texts)} rules, and no row names those that decide it "
                "(facts.rules); their coverage and accuracy stay unknown"
            )
            continue
        met = {
            side: {str(rule) for s in rows if _names(s, name) for rule in s.facts["rules"]}
            for side, rows in own.items()
        }
        for rule, text in texts.items():
            missing = [side for side in sides if own[side] and str(rule) not in met[side]]
            if missing:
                where = " and no ".join(f"{side} row" for side in missing)
                lines.append(f"policy {name}: no {where} exercises rule {rule} ({_short(text)})")
    return lines


def _short(text: object) -> str:
    words = " ".join(str(text).split())
    return words if len(words) <= 80 else words[:77] + "..."
