"""Version rules as data: which version of a tool a user's profile calls for.

A rule file names the attributes of a profile and, for each versioned tool, rules that must divide
all profiles among them: for every profile exactly one rule holds. That is proven when the file is
read, by trying one profile of each cell that the rules' bounds cut the attributes into.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from datasets_builders.hints import hint
from trimpi.errors import UserError
from trimpi.rules import Rule, RuleSet
from trimpi.rules.conditions import in_words as in_words
from trimpi.rules.extents import (
    Extent,
    Interval,
    Words,
    box_in_words,
    first,
    grid,
    read_attributes,
)

Profile = Mapping[str, str | int]
"""A value for each attribute."""

_SIGNS = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most", "=": ""}
_COMPARISON = re.compile(r"\s*(<=|>=|<|>|=)\s*(-?\d+)\s*")


@dataclass(frozen=True)
class VersionRule:
    """Profiles within every condition call for `version` of `tool`; `id` is like `OCR.3`."""

    id: str
    tool: str
    version: str
    conditions: Mapping[str, Extent]

    def holds(self, profile: Profile) -> bool:
        return all(extent.holds(profile[name]) for name, extent in self.conditions.items())


@dataclass(frozen=True)
class VersionRules:
    """All version rules of a file. Each tool's rules hold one at a time, and one always does."""

    attributes: Mapping[str, Extent]
    tools: Mapping[str, tuple[VersionRule, ...]]

    def rule_for(self, tool: str, profile: Profile) -> VersionRule | None:
        """The one rule of a versioned tool that holds; None for a tool without versions."""
        return next((rule for rule in self.tools.get(tool, ()) if rule.holds(profile)), None)

    def versioned(self, tool: str, profile: Profile) -> str:
        """The name to call, such as `OCR_v3`."""
        rule = self.rule_for(tool, profile)
        return tool if rule is None else f"{tool}_{rule.version}"

    def rule_set(self, tool: str) -> RuleSet:
        """The rules of a tool in the form of all policies; outcomes are the names to call."""
        rules = (
            Rule(rule.id, "", tool, rule.conditions, f"{tool}_{rule.version}")
            for rule in self.tools[tool]
        )
        return RuleSet(self.attributes, tuple(rules))

    def cells(self, tool: str) -> list[dict[str, str | int]]:
        """One profile for every combination of values that the tool's rules tell apart.

        Attributes that none of its rules mentions have their first value.
        """
        return [
            {name: first(extent) for name, extent in box.items()}
            for box in grid(self.attributes, [rule.conditions for rule in self.tools[tool]])
        ]


def read_version_rules(file: Path) -> VersionRules:
    """Read `attributes` and `versions` of a rule file.

    Raises:
        UserError: all faults at once, one line each, with the key: not YAML, an unknown attribute
            or value, a condition that is none, a rule that can never hold, profiles without a
            rule (a gap) or with several (an overlap).
    """
    return version_rules(read_rule_file(file), str(file))


def version_rules(content: Mapping[str, Any], where: str) -> VersionRules:
    """The same from what a rule file holds; `where` begins each line of an error.

    Raises:
        UserError: as `read_version_rules`, but for a file that cannot be read.
    """
    known = ("attributes", "versions", "special")
    problems = [
        f"{key}: unknown key; known: {', '.join(known)}" for key in content if key not in known
    ]
    attributes = read_attributes(content.get("attributes"), problems)
    tools: dict[str, tuple[VersionRule, ...]] = {}
    versions = content.get("versions")
    if not isinstance(versions, dict) or not versions:
        problems.append("versions: must map tools to lists of rules")
        versions = {}
    for tool, rows in versions.items():
        before = len(problems)
        rules = tuple(_rules(str(tool), rows, attributes, problems))
        tools[str(tool)] = rules
        if len(problems) == before:
            problems += _partition_faults(str(tool), attributes, rules)
    if problems:
        raise UserError.join([f"{where}: {problem}" for problem in problems])
    return VersionRules(attributes, tools)


def read_rule_file(file: Path) -> dict[str, Any]:
    """The keys of a rule file, unchecked.

    Raises:
        UserError: the file cannot be read, is not YAML, or holds no keys.
    """
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); check the path") from None
    except yaml.YAMLError as error:
        line = " ".join(str(error).split())
        raise UserError(f"{file}: cannot be read, not YAML ({line}); correct the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold the keys 'attributes' and 'versions'")
    return content


def _rules(
    tool: str, rows: Any, attributes: Mapping[str, Extent], problems: list[str]
) -> Iterator[VersionRule]:
    if not isinstance(rows, list) or not rows:
        problems.append(f"versions.{tool}: must be a list of rules; give it at least one")
        return
    for number, row in enumerate(rows, 1):
        key = f"versions.{tool}.{number}"
        if not isinstance(row, dict) or not isinstance(row.get("version"), str):
            problems.append(f"{key}: must be an object with a 'version', a word such as v1")
            continue
        conditions: dict[str, Extent] = {}
        for name, value in row.items():
            if name == "version":
                continue
            if name not in attributes:
                problems.append(f"{key}: unknown attribute {name!r}; {hint(name, attributes)}")
                continue
            try:
                conditions[name] = _condition(value, attributes[name])
            except ValueError as error:
                problems.append(f"{key}.{name}: {error}")
        yield VersionRule(f"{tool}.{number}", tool, row["version"], conditions)


def _condition(value: Any, whole: Extent) -> Extent:
    """A condition of a rule, cut to what its attribute can be.

    Raises:
        ValueError: it is no condition of this kind of attribute, or can never hold.
    """
    if isinstance(whole, Words):
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not words:
            raise ValueError(
                f"must be one of {', '.join(whole.values)}, or a list of them; found {value!r}"
            )
        for word in words:
            if word not in whole.values:
                raise ValueError(f"{word!r} is not among {', '.join(whole.values)}")
        return Words(tuple(v for v in whole.values if v in words))
    low, high, words = whole.low, whole.high, []
    for part in str(value).split(","):
        match = _COMPARISON.fullmatch(part)
        if match is None:
            raise ValueError(f"must be comparisons such as '> 250, <= 750'; found {value!r}")
        sign, bound = match[1], int(match[2])
        if sign in (">", ">=", "="):
            low = max(low, bound + (sign == ">"))
        if sign in ("<", "<=", "="):
            high = min(high, bound - (sign == "<"))
        words.append(f"{_SIGNS[sign]} {bound}".strip())
    if low > high:
        raise ValueError(f"{value!r} holds for no number from {whole.low} to {whole.high}")
    return Interval(low, high, " and ".join(words))


def _partition_faults(
    tool: str, attributes: Mapping[str, Extent], rules: Sequence[VersionRule]
) -> Iterator[str]:
    """Gaps and overlaps, each named with the profiles that it is about."""
    told: set[tuple[str, ...]] = set()
    for box in grid(attributes, [rule.conditions for rule in rules]):
        profile = {name: first(extent) for name, extent in box.items()}
        holding = tuple(rule.id for rule in rules if rule.holds(profile))
        if len(holding) == 1 or (holding and holding in told):
            continue
        told.add(holding)
        where = box_in_words(box, attributes)
        if holding:
            names = " and ".join(holding)
            yield f"versions.{tool}: {names} overlap at {where or 'every profile'}; change one"
        else:
            yield f"versions.{tool}: no rule for {where or 'any profile'}; add one"
