"""Version rules as data: which version of a tool a user's profile calls for.

A rule file names the attributes of a profile and, for each versioned tool, rules that must divide
all profiles among them: for every profile exactly one rule holds. That is proven when the file is
read: no two rules share a profile, and what they leave of all profiles, cut rule by rule, is none.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_builders.hints import hint, shown
from trimpi.errors import UserError
from trimpi.rules.conditions import in_words as in_words
from trimpi.rules.extents import (
    Extent,
    Interval,
    Words,
    box_in_words,
    overlap,
    read_attributes,
)
from trimpi.rules.rule_set import Rule, RuleSet, TooManyParts
from trimpi.yaml_text import parse_yaml

Profile = Mapping[str, str | int]
"""A value for each attribute."""

_SIGNS = {">": "more than", ">=": "at least", "<": "less than", "<=": "at most", "=": ""}
_COMPARISON = re.compile(r"\s*(<=|>=|<|>|=)\s*(-?\d{1,18})\s*")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")
MOST_LINES = 20
MOST_PARTS = 3
"""Of profiles without a rule so many parts are named."""


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
    """All version rules of a file. Each tool's rules hold one at a time, and one always does.

    `override` maps versions of tools to those that take their place in the override evaluation;
    empty where the file does not say.
    """

    attributes: Mapping[str, Extent]
    tools: Mapping[str, tuple[VersionRule, ...]]
    override: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

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


def read_version_rules(file: Path) -> VersionRules:
    """Read `attributes`, `versions` and `override` of a rule file.

    Raises:
        UserError: all faults at once, one line each, with the key: not YAML, a key given twice, an
            unknown attribute or value, a condition that is none, a rule that can never hold,
            profiles without a rule (a gap) or with several (an overlap), a version that is no word
            or that `override` does not know.
    """
    return version_rules(read_rule_file(file), str(file))


def version_rules(content: Mapping[str, Any], where: str) -> VersionRules:
    """The same from what a rule file holds; `where` begins each line of an error.

    Raises:
        UserError: as `read_version_rules`, but for a file that cannot be read.
    """
    known = ("attributes", "versions", "special", "override")
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
    override = content.get("override")
    problems += [f"override{fault}" for fault in _override_faults(override, tools)]
    if (more := len(problems) - MOST_LINES) > 0:
        problems[MOST_LINES:] = [f"{more} more faults; mend these first"]
    if problems:
        raise UserError.join([f"{where}: {problem}" for problem in problems])
    return VersionRules(attributes, tools, override or {})


def read_rule_file(file: Path) -> dict[str, Any]:
    """The keys of a rule file, unchecked.

    Raises:
        UserError: the file cannot be read, is not YAML, gives a key twice, or holds no keys.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path with a NUL
        raise UserError(f"{file}: cannot be read ({error}); check the path") from None
    content, _ = parse_yaml(text, str(file))
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
        if _VERSION.fullmatch(row["version"]) is None:
            problems.append(f"{key}.version: {_NO_VERSION}; found {shown(row['version'])}")
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


_NO_VERSION = "must be a word of letters, digits, '.' and '-', such as v1"


def _override_faults(content: Any, tools: Mapping[str, Sequence[VersionRule]]) -> Iterator[str]:
    """Each begins with the rest of the key."""
    if content is None:
        return
    if not isinstance(content, dict) or not content:
        yield ": must map tools to {version: version that takes its place}; drop it, or fill it in"
        return
    for tool, changes in content.items():
        if tool not in tools:
            yield f".{tool}: no tool of 'versions'; {hint(tool, tools)}"
            continue
        if not isinstance(changes, dict) or not changes:
            found = shown(changes)
            yield f".{tool}: must be {{version: version that takes its place}}; found {found}"
            continue
        known = list(dict.fromkeys(rule.version for rule in tools[tool]))
        for old, new in changes.items():
            if old not in known:
                yield f".{tool}: unknown version {shown(old)}; known: {', '.join(known)}"
            elif not isinstance(new, str) or _VERSION.fullmatch(new) is None:
                yield f".{tool}.{old}: {_NO_VERSION}; found {shown(new)}"
        if all(old == new for old, new in changes.items()):
            yield f".{tool}: changes nothing; drop it, or name other versions"


def _condition(value: Any, whole: Extent) -> Extent:
    """A condition of a rule, cut to what its attribute can be.

    Raises:
        ValueError: it is no condition of this kind of attribute, or can never hold.
    """
    if isinstance(whole, Words):
        words = [value] if isinstance(value, str) else value
        if not isinstance(words, list) or not words:
            raise ValueError(
                f"must be one of {', '.join(whole.values)}, or a list of them; found {shown(value)}"
            )
        for word in words:
            if word not in whole.values:
                raise ValueError(f"{shown(word)} is not among {', '.join(whole.values)}")
        return Words(tuple(v for v in whole.values if v in words))
    low, high, words = whole.low, whole.high, []
    for part in str(value).split(","):
        match = _COMPARISON.fullmatch(part)
        if match is None:
            raise ValueError(f"must be comparisons such as '> 250, <= 750'; found {shown(value)}")
        sign, bound = match[1], int(match[2])
        if sign in (">", ">=", "="):
            low = max(low, bound + (sign == ">"))
        if sign in ("<", "<=", "="):
            high = min(high, bound - (sign == "<"))
        words.append(f"{_SIGNS[sign]} {bound}".strip())
    if low > high:
        raise ValueError(f"{shown(value)} holds for no number from {whole.low} to {whole.high}")
    return Interval(low, high, " and ".join(words))


def _partition_faults(
    tool: str, attributes: Mapping[str, Extent], rules: Sequence[VersionRule]
) -> Iterator[str]:
    """Overlaps, a line a rule with the first range that it shares, and then gaps, in one line."""
    for index, rule in enumerate(rules):
        within = overlap(attributes, rule.conditions) or {}
        shared = {
            other.id: box_in_words(box, attributes) or "every profile"
            for other in rules[index + 1 :]
            if (box := overlap(within, other.conditions)) is not None
        }
        if shared:
            first = next(iter(shared))
            more = f"; it overlaps {len(shared) - 1} more" if len(shared) > 1 else ""
            yield (
                f"versions.{tool}: {rule.id} and {first} overlap at {shared[first]}{more}; "
                "change one"
            )
    try:
        regions = VersionRules(attributes, {tool: tuple(rules)}).rule_set(tool).regions()
    except TooManyParts:
        yield f"versions.{tool}: too many rules and attributes to be proven; use fewer"
        return
    gaps = [box_in_words(box, attributes) for box, rule in regions if rule is None]
    if gaps:
        more = f", nor for {len(gaps) - MOST_PARTS} other parts" if len(gaps) > MOST_PARTS else ""
        where = ", nor for ".join(gap or "any profile" for gap in gaps[:MOST_PARTS])
        yield f"versions.{tool}: no rule for {where}{more}; add one"
