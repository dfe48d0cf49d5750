"""What a policy decides for a case in words: its own rules or tree give the answer.

A case is a mapping that goes into a row's facts, so that the answer can be derived again.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from datasets_builders.clevr import wording
from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.clevr.tree import Tree
from datasets_builders.policy_text.statements import rule_sets
from trimpi.policy import Policy
from trimpi.rules import Interval, Rule, RuleSet
from trimpi.rules.extents import Box, Extent, overlap, without
from trimpi.rules.rule_set import TooManyParts

Case = Mapping[str, Any]

BOUNDARY = 0.3
"""Share of numbers that are drawn at an end of their interval, where decisions change."""
NEAR = 0.25
"""Share of cases that lie beside a rule's conditions, so that another rule decides them."""
TRIES = 200
MOST_OBJECTS = 3


@dataclass(frozen=True)
class Verdict:
    """The response, the rules that lead to it, and the reasoning in words."""

    answer: str
    rules: tuple[str, ...]
    walk: str


class Oracle(Protocol):
    """Decides cases of one policy."""

    def draw(self, rng: random.Random, rule: str, near: float = NEAR) -> Case | None:
        """A case that a rule has a part in, or None where there is none; a share `near` of cases
        lies beside its conditions, where they have such a side.
        """
        ...

    def decide(self, case: Case) -> Verdict | None:
        """What the policy gives for a case; None where no rule decides."""
        ...

    def told(self, case: Case) -> str:
        """A case in words: a clause."""
        ...


def oracle_of(policy: Policy) -> Oracle | None:
    """The oracle of a policy; None where no rule is checkable.

    Raises:
        UserError: the metadata are not of the form that builders write.
    """
    metadata, where = policy.metadata, f"policy {policy.name}: metadata"
    if isinstance(metadata.get("tree"), Mapping):
        return TreeOracle(Tree.from_json(metadata["tree"]))
    if metadata.get("versions"):
        tools = dict(zip(metadata["versions"], rule_sets(metadata, where), strict=True))
        return VersionsOracle(tools, dict(metadata["conditions"]))
    if metadata.get("rules"):
        ruling = RuleSet.from_metadata(metadata, where)
        if any(rule.outcome is not None for rule in ruling.checkable):
            return RulesOracle(ruling, str(metadata.get("unit", "Rule")))
    return None


class RulesOracle:
    """The rules of a policy file; a case gives each attribute a value."""

    def __init__(self, ruling: RuleSet, unit: str) -> None:
        self.ruling, self.unit = ruling, unit
        self.rules = {rule.id: rule for rule in ruling.checkable}
        self.boxes: dict[str, list[Box]] = {}
        try:
            for box, rule in ruling.regions():
                if rule is not None:
                    self.boxes.setdefault(rule.id, []).append(box)
        except TooManyParts:
            self.boxes = {}  # cases are then drawn within the rule's conditions and tried

    def draw(self, rng: random.Random, rule: str, near: float = NEAR) -> Case | None:
        return draw_facts(rng, self.ruling, self.rules.get(rule), self.boxes.get(rule, ()), near)

    def decide(self, case: Case) -> Verdict | None:
        rule = self.ruling.decide(case)
        if rule is None or rule.outcome is None:
            return None
        walk = f"{self.unit} {rule.id} decides: {rule.text}"
        return Verdict(rule.outcome, (rule.id,), walk)

    def told(self, case: Case) -> str:
        return " and ".join(f"{name} is {case[name]}" for name in self.ruling.attributes)


class VersionsOracle:
    """The versions of a GTAPolicy's tools; a case is a tool and a user's profile."""

    def __init__(self, tools: Mapping[str, RuleSet], texts: Mapping[str, str]) -> None:
        self.tools, self.texts = tools, texts
        self.of_rule = {rule.id: tool for tool, rules in tools.items() for rule in rules.rules}

    def draw(self, rng: random.Random, rule: str, near: float = NEAR) -> Case | None:
        tool = self.of_rule.get(rule)
        if tool is None:
            return None
        ruling = self.tools[tool]
        found = next(entry for entry in ruling.rules if entry.id == rule)
        facts = draw_facts(rng, ruling, found, (), near)
        return None if facts is None else {"tool": tool, **facts}

    def decide(self, case: Case) -> Verdict | None:
        rule = self.tools[case["tool"]].decide(case)
        if rule is None or rule.outcome is None:
            return None
        walk = f"Rule {rule.id} decides: {self.texts[rule.id]}"
        return Verdict(rule.outcome, (rule.id,), walk)

    def told(self, case: Case) -> str:
        attributes = self.tools[case["tool"]].attributes
        profile = ", ".join(f"{name} {case[name]}" for name in attributes)
        return f"a user with {profile} needs the tool {case['tool']}"


class TreeOracle:
    """The tree of a ClevrPolicy; a case is the objects of a picture."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.leaves = tree.leaves()

    def draw(self, rng: random.Random, rule: str, near: float = NEAR) -> Case | None:
        paths = [path for _, path in self.leaves if any(s.condition == rule for s in path)]
        if not paths:
            return None
        path = rng.choice(paths)
        absent = {(step.attribute, step.value) for step in path if not step.outcome}
        allowed = {n: [v for v in vs if (n, v) not in absent] for n, vs in ATTRIBUTES.items()}
        objects = [
            {name: rng.choice(values) for name, values in allowed.items()}
            for _ in range(rng.randint(1, MOST_OBJECTS))
        ]
        # No type is asked for twice above a response, so that no value set here is lost.
        for step in path:
            if step.outcome:
                rng.choice(objects)[step.attribute] = step.value
        return {"objects": objects}

    def decide(self, case: Case) -> Verdict | None:
        path, number = self.tree.decide(case["objects"])
        rules = tuple(step.condition for step in path)
        return Verdict(wording.answer(number), rules, wording.rationale(path, number))

    def told(self, case: Case) -> str:
        shown = [
            f"a {o['size']} {o['color']} {o['material']} {o['shape']}" for o in case["objects"]
        ]
        return f"the picture shows {', '.join(shown)}"


def draw_facts(
    rng: random.Random, ruling: RuleSet, rule: Rule | None, boxes: Sequence[Box], near: float
) -> dict[str, str | int] | None:
    """A value for each attribute, so that `rule` decides, or nearly does.

    Args:
        rng: fixes the result.
        ruling: the rules.
        rule: the one that the case is about.
        boxes: where it decides; empty if not known.
        near: share of cases beside its conditions.
    """
    if rule is None or rule.when is None or rule.outcome is None:
        return None
    whole: Box = dict(ruling.attributes)
    if rule.when and rng.random() < near:
        beside = [box for box in without(whole, _one_of(rng, rule.when)) if box]
        parts = (overlap(box, _but_one(box, whole, rule.when)) for box in beside)
        close = [part for part in parts if part is not None]
        for _ in range(TRIES if close else 0):
            facts = _within(rng, rng.choice(close))
            if (found := ruling.decide(facts)) is not None and found.outcome is not None:
                return facts
    if boxes:
        return _within(rng, rng.choice(boxes))
    inside = overlap(whole, rule.when)
    for _ in range(TRIES if inside else 0):
        facts = _within(rng, inside or {})
        if ruling.decide(facts) == rule:
            return facts
    return None


def _one_of(rng: random.Random, when: Mapping[str, Extent]) -> dict[str, Extent]:
    name = rng.choice(list(when))
    return {name: when[name]}


def _but_one(box: Box, whole: Box, when: Mapping[str, Extent]) -> dict[str, Extent]:
    """The conditions on attributes that are whole in the box."""
    return {name: extent for name, extent in when.items() if box[name] == whole[name]}


def _within(rng: random.Random, box: Mapping[str, Extent]) -> dict[str, str | int]:
    return {name: _value(rng, extent) for name, extent in box.items()}


def _value(rng: random.Random, extent: Extent) -> str | int:
    if not isinstance(extent, Interval):
        return rng.choice(extent.values)
    if rng.random() < BOUNDARY:
        return rng.choice((extent.low, extent.high))
    return rng.randint(extent.low, extent.high)
