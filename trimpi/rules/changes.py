"""Two versions of a policy: which rules changed, and where another outcome follows."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from trimpi.policy import Policy, TextPart
from trimpi.rules.extents import Box, Extent, count, is_empty, meet, overlap
from trimpi.rules.rule_set import Rule, RuleSet
from trimpi.rules.text import find_rules


@dataclass(frozen=True)
class Changes:
    """Ids of rules by what became of them; `preamble_changed`: text or pictures outside of rules.

    A rule is changed when its words or its pictures are; its place and its heading do not count.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    preamble_changed: bool


class OutcomeChange(NamedTuple):
    """A box of attribute values with the rules that decide there, before and after."""

    box: Box
    before: Rule | None
    after: Rule | None

    @property
    def combinations(self) -> int:
        return count(self.box)


def diff(old: Policy, new: Policy) -> Changes:
    """What became of each rule, by its id; ids in the order of the policies."""
    before, rest_before = _content(old)
    after, rest_after = _content(new)
    kept = [id for id in after if id in before]
    return Changes(
        added=tuple(id for id in after if id not in before),
        removed=tuple(id for id in before if id not in after),
        changed=tuple(id for id in kept if before[id] != after[id]),
        unchanged=tuple(id for id in kept if before[id] == after[id]),
        preamble_changed=rest_before != rest_after,
    )


def shared_attributes(old: RuleSet, new: RuleSet) -> dict[str, Extent]:
    """Attributes of either, with those values that both know."""
    found = {**old.attributes, **new.attributes}
    for name in old.attributes.keys() & new.attributes.keys():
        found[name] = meet(old.attributes[name], new.attributes[name])
    return found


def outcome_changes(old: RuleSet, new: RuleSet) -> list[OutcomeChange]:
    """Where values that both versions know lead to another outcome, as boxes that share nothing.

    Raises:
        trimpi.rules.rule_set.TooManyParts: the rules cut the attributes into too many parts.
    """
    shared = shared_attributes(old, new)
    if any(is_empty(extent) for extent in shared.values()):
        return []
    before = RuleSet(shared, old.rules, old.order).regions()
    after = RuleSet(shared, new.rules, new.order).regions()
    return list(_differing(before, after))


def _differing(
    before: list[tuple[Box, Rule | None]], after: list[tuple[Box, Rule | None]]
) -> Iterator[OutcomeChange]:
    for box, was in before:
        for other, becomes in after:
            if (was.outcome if was else None) == (becomes.outcome if becomes else None):
                continue
            if (both := overlap(box, other)) is not None:
                yield OutcomeChange(both, was, becomes)


def _content(policy: Policy) -> tuple[dict[str, str], str]:
    """Each rule's content by id, and what stands outside; pictures by what they show."""
    body = "".join(
        part.text
        if isinstance(part, TextPart)
        else f"![](sha256-{hashlib.sha256(Path(part.path).read_bytes()).hexdigest()})"
        for part in policy.parts
    )
    ids = [rule["id"] for rule in policy.metadata.get("rules", [])]
    found = find_rules(body, {})
    if ids and ids == [entry.rule.id for entry in found.found]:
        return {f.rule.id: _folded(f.raw) for f in found.found}, _folded(found.rest)
    texts: Mapping[str, Any] = policy.metadata.get("conditions", {})
    for text in sorted(map(str, texts.values()), key=len, reverse=True):
        body = body.replace(text, "", 1)
    return {str(id): _folded(str(text)) for id, text in texts.items()}, _folded(body)


def _folded(text: str) -> str:
    """Line breaks do not count."""
    return " ".join(text.split())
