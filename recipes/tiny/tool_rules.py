"""Made-up rules for tools, which tiny-vlm-tools is trained under: none are those of a data set.

Every policy has versions, bounds and special rules of its own.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from datasets_builders.gta.rules import Interval, VersionRules, Words, version_rules
from datasets_builders.gta.special import SpecialRule

ATTRIBUTE_VALUES = {
    "account_type": ["A", "B", "C", "D"],
    "age": {"from": 13, "to": 90},
    "credits": {"from": 0, "to": 1000},
}


EXTENTS = {"account_type": Words(("A", "B", "C", "D")), "age": Interval(13, 90)} | {
    "credits": Interval(0, 1000)
}


def draw_versions(rng: random.Random, tools: Sequence[str]) -> VersionRules:
    """Version rules for most of `tools`: profiles are cut in two, one or more times over."""
    chosen = [tool for tool in tools if rng.random() < 0.8] or [rng.choice(tools)]
    versions = {}
    for tool in chosen:
        leaves: list[dict[str, Any]] = [{}]
        for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
            leaf = rng.randrange(len(leaves))
            leaves[leaf : leaf + 1] = _cut(rng, leaves[leaf])
        names = [f"v{number + 1}" for number in range(len(leaves))]
        rng.shuffle(names)
        versions[tool] = [
            {name: _written(value) for name, value in leaf.items()} | {"version": version}
            for leaf, version in zip(leaves, names, strict=True)
        ]
    return version_rules({"attributes": ATTRIBUTE_VALUES, "versions": versions}, "drawn rules")


def _cut(rng: random.Random, leaf: dict[str, Any]) -> list[dict[str, Any]]:
    """A set of profiles in two parts, by an attribute that it can be cut by."""
    ways = list(ATTRIBUTE_VALUES)
    rng.shuffle(ways)
    for name in sorted(ways, key=lambda n: rng.random() - 0.6 * (n in leaf)):
        whole = ATTRIBUTE_VALUES[name]
        if isinstance(whole, list):
            words = list(leaf.get(name, whole))  # type: ignore[call-overload]
            if len(words) < 2:
                continue
            at = rng.randrange(1, len(words))
            if rng.random() < 0.3:
                rng.shuffle(words)
            parts: list[object] = [sorted(words[:at]), sorted(words[at:])]
        else:
            low, high, before = leaf.get(name, (whole["from"], whole["to"], ()))  # type: ignore[misc]
            step = (
                10 if name == "credits" and rng.random() < 0.3 else 50 if name == "credits" else 1
            )
            points = [p for p in range(low, high + 1) if p % step == 0 and low + 3 < p < high - 3]
            if not points:
                continue
            at = rng.choice(points)
            if rng.random() < 0.5:
                parts = [(low, at - 1, (*before, f"< {at}")), (at, high, (*before, f">= {at}"))]
            else:
                parts = [(low, at, (*before, f"<= {at}")), (at + 1, high, (*before, f"> {at}"))]
            if rng.random() < 0.3:
                parts.reverse()
        return [{**leaf, name: part} for part in parts]
    return [leaf]


def _written(value: object) -> object:
    """A part as a rule file says it."""
    if isinstance(value, list):
        return value
    _, _, words = value  # type: ignore[misc]
    return ", ".join(_simplest(words))


def _simplest(words: Sequence[str]) -> list[str]:
    """The tightest of the lower and of the upper bounds."""
    lower = [w for w in words if w[0] == ">"]
    upper = [w for w in words if w[0] == "<"]
    return [*lower[-1:], *upper[-1:]]


def draw_special(
    rng: random.Random, rules: Sequence[SpecialRule], tools: Sequence[str]
) -> tuple[SpecialRule, ...]:
    """Some of the special rules, with numbers of their own and in another order of numbering."""
    chosen = [
        rule
        for rule in rules
        if rng.random() < 0.75 and {rule.tool, rule.first, rule.use} - {""} <= set(tools)
    ]
    found = []
    for number, rule in enumerate(chosen, 1):
        values, text = rule.values, rule.text
        if rule.kind == "argument":
            closed, open_ = rng.sample(range(1, 9), 2)
            text = text.replace(f"k = {values['closed']}", "k = {c}").replace(
                f"k = {values['open']}", "k = {o}"
            )
            text = text.format(c=closed, o=open_)
            values = {"closed": closed, "open": open_}
        found.append(replace(rule, id=f"S{number}", text=text, values=values))
    return tuple(found)
