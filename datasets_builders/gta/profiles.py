"""User profiles for tasks, drawn so that every version rule is exercised."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from datasets_builders.gta.rules import Extent, Profile, VersionRule, VersionRules, Words

BOUNDARY = 0.3
"""Share of numbers that are drawn at an end of their interval, where versions change."""
DRAWS = 4
"""Profiles that are drawn within each rule of a task's tools, to choose one of."""
RARITY = 0.25
"""What a rule counts for falls by this factor with each use: new rules come first."""


def draw_profiles(
    rng: random.Random, rules: VersionRules, tasks: Sequence[Sequence[str]]
) -> list[Profile]:
    """A profile for each task; as many rules are covered as the tasks allow.

    Tasks are gone through in order. For each, profiles are drawn within every rule of its versioned
    tools; the task gets the one whose rules have been used least so far.

    Args:
        rng: fixes the result.
        rules: attributes and version rules.
        tasks: the tools that each task calls, in any order, repeats allowed.

    Returns:
        A value for each attribute, by task.
    """
    used: Counter[str] = Counter()
    profiles: list[Profile] = []
    for tools in tasks:
        open_rules = [rule for tool in sorted(set(tools)) for rule in rules.tools.get(tool, ())]
        drawn = [_within(rng, rules, rule) for rule in open_rules for _ in range(DRAWS)]
        drawn = drawn or [_within(rng, rules, None)]
        rng.shuffle(drawn)

        def rarity(profile: Profile, tools: Sequence[str] = tools) -> float:
            return sum(RARITY ** used[id] for id in set(rules_used(rules, profile, tools)))

        profiles.append(max(drawn, key=rarity))
        used.update(rules_used(rules, profiles[-1], tools))
    return profiles


def rules_used(rules: VersionRules, profile: Profile, tools: Iterable[str]) -> list[str]:
    """Ids of the rules that decide the versions of `tools` for a profile, one a call."""
    found = (rules.rule_for(tool, profile) for tool in tools)
    return [rule.id for rule in found if rule is not None]


def coverage(
    rules: Iterable[str], splits: Mapping[str, Iterable[Iterable[str]]]
) -> dict[str, dict[str, int]]:
    """How often each rule decides a call, by rule id and split.

    Args:
        rules: ids of all rules; those that never decide are listed too.
        splits: ids of the rules that decide each call, by split.
    """
    table = {rule: dict.fromkeys(splits, 0) for rule in rules}
    for split, calls in splits.items():
        for ids in calls:
            for rule in ids:
                table[rule][split] += 1
    return table


def _within(rng: random.Random, rules: VersionRules, rule: VersionRule | None) -> Profile:
    conditions: Mapping[str, Extent] = rule.conditions if rule else {}
    return {n: _value(rng, conditions.get(n, whole)) for n, whole in rules.attributes.items()}


def _value(rng: random.Random, extent: Extent) -> str | int:
    if isinstance(extent, Words):
        return rng.choice(extent.values)
    if rng.random() < BOUNDARY:
        return rng.choice((extent.low, extent.high))
    return rng.randint(extent.low, extent.high)
