"""Which rules of a policy the rows of a data set exercise."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets_builders.policy_text import is_text_split
from trimpi.policy import Policy
from trimpi.sample import Sample

Coverage = dict[str, dict[str, dict[str, Any]]]
"""`{policy id: {rule id: {"text": ..., "rows": {split: rows}}}}`"""

SIDES = ("training", "test")
MOST = 20
"""Rules of a policy that are named one by one."""
LONGEST = 60
"""Letters of a rule's text in a line."""


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
            split: [set(map(str, s.facts["rules"])) for s in samples if _names(s, name)]
            for split, samples in splits.items()
        }
        rows = {split: named for split, named in rows.items() if named}
        if not isinstance(texts, Mapping) or not texts or not rows:
            continue
        found[name] = {
            str(rule): {
                "text": str(text),
                "rows": {
                    split: sum(str(rule) in ids for ids in named) for split, named in rows.items()
                },
            }
            for rule, text in texts.items()
        }
    return found


def _names(sample: Sample, policy: str) -> bool:
    return sample.policy == policy and isinstance(sample.facts.get("rules"), list)


def side_of(split: str) -> str | None:
    """`training` or `test`; None for splits that do neither: overriding, and texts."""
    if split == "override" or split.startswith("override_") or is_text_split(split):
        return None
    return "test" if split == "test" or split.startswith("test_") else "training"


def rows_by_side(rows: Mapping[str, int]) -> dict[str, int]:
    """A rule's rows by split -> its rows in `training` and `test`, sides without a split absent."""
    found: dict[str, int] = {}
    for split, count in rows.items():
        if (side := side_of(split)) is not None:
            found[side] = found.get(side, 0) + count
    return found


def uncovered(policies: Mapping[str, Policy], splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """What the rows leave out of the policies' rules, one line each; counted from the rows.

    Named are rules that no training row or no test row exercises, policies whose rows name no rule,
    policies without rows on a side, and rules that rows name and the policy does not have. Of
    policies that share their name, as versions do, one with rows on a side is enough.

    Args:
        policies: by id; those without rules are passed over.
        splits: by name, without views of other splits.
    """
    table = coverage(policies, splits)
    sides = {split: side for split in splits if (side := side_of(split)) is not None}
    rows = Counter((s.policy, sides[split]) for split in sides for s in splits[split])
    used = {sample.policy for samples in splits.values() for sample in samples}
    versions = {(policies[id].name, side) for id, side in rows if id is not None}
    lines: list[str] = []
    for name, policy in policies.items():
        rules = policy.metadata.get("conditions")
        if not isinstance(rules, Mapping) or not rules:
            continue
        where, many = f"policy {name!r}", _count(len(rules), "rule")
        own = {side: rows[name, side] for side in SIDES}
        if name not in used:
            if not any((policy.name, side) in versions for side in SIDES):
                lines.append(f"{where}: no row is under it, so none of its {many} is exercised")
            continue
        if not any(own.values()):
            continue  # a policy for overriding alone
        if name not in table:
            lines.append(
                f"{where}: it has {many}, but none of its {_count(sum(own.values()), 'row')} names"
                " one; give rows facts.rules, the ids of the rules that decide them"
            )
            continue
        missing = [side for side in SIDES if not own[side]]
        lines += [
            f"{where}: no {side} row is under it, so none of its {many} is exercised there"
            for side in missing
            if (policy.name, side) not in versions
        ]
        told = [
            f"{where}: rule {rule} ({_short(entry['text'])}): no {' and no '.join(none)} row"
            " exercises it"
            for rule, entry in table[name].items()
            if (none := [s for s in SIDES if own[s] and not rows_by_side(entry["rows"]).get(s)])
        ]
        lines += told[:MOST]
        if len(told) > MOST:
            lines.append(f"{where}: ... and {len(told) - MOST} more rules")
        lines += _unknown(where, name, rules, splits)
    return lines


def _unknown(
    where: str, policy: str, rules: Mapping[str, Any], splits: Mapping[str, Sequence[Sample]]
) -> list[str]:
    """Rules that rows name and the policy does not have."""
    named = Counter(
        str(rule)
        for samples in splits.values()
        for sample in samples
        if _names(sample, policy)
        for rule in sample.facts["rules"]
    )
    wrong = [f"{rule} ({_count(n, 'row')})" for rule, n in named.items() if rule not in rules]
    if not wrong:
        return []
    more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
    return [f"{where}: its rows name rules that it does not have: {', '.join(wrong[:5])}{more}"]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else text[: LONGEST - 1].rstrip() + "…"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
