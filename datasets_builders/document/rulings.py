"""Rows under checkable rules: which rule decides, whether the label agrees, the reasoning in words.

Rows tell what they show by `facts`, a value for each attribute of the policy. The rules decide by
these; a label that differs is one that somebody got wrong, or a rule that is not meant as written.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings, some
from datasets_builders.hints import hint
from trimpi.policy import Policy
from trimpi.rules import Extent, Rule, RuleSet, Words


def rule_sets(policies: Mapping[str, Policy]) -> dict[str, RuleSet]:
    """The checkable rules of each policy that has any."""
    found = {id: RuleSet.from_metadata(p.metadata, p.name) for id, p in policies.items()}
    return {id: rules for id, rules in found.items() if rules.attributes and rules.checkable}


def apply_rules(
    examples: Sequence[Labelled],
    policies: Mapping[str, Policy],
    trust: str,
    write: bool,
    found: Findings,
) -> list[Labelled]:
    """Examples with the rule that decides each, and reasons from the rules where they have none.

    Args:
        examples: rows; those without values of attributes are left as they are.
        policies: by id.
        trust: "rules": a label that differs from the rules' outcome is a problem; "labels": a
            warning, and the row keeps its label without reasons from the rules.
        write: write reasons for rows that have none.
        found: gets problems and warnings.
    """
    sets = rule_sets(policies)
    decided: list[tuple[Labelled, Rule | None]] = []
    for example in examples:
        rules = sets.get(example.policy)
        decided.append((example, None) if rules is None else _decide(example, rules, trust, found))
    comparable = _comparable(decided, policies, found)
    return [
        _ruled(example, rule, policies[example.policy], sets, trust, write, found)
        if rule is not None and example.policy in comparable
        else _noted(example, rule)
        for example, rule in decided
    ]


def _decide(
    example: Labelled, rules: RuleSet, trust: str, found: Findings
) -> tuple[Labelled, Rule | None]:
    values: dict[str, Any] = {}
    before = len(found.problems)
    for name, whole in rules.attributes.items():
        if name in example.facts:
            try:
                values[name] = _value(example.facts[name], whole)
            except ValueError as error:
                found.add(example.where, f"facts.{name}: {error}")
    if not values or len(found.problems) > before:
        return example, None
    example = replace(example, facts={**example.facts, **values})
    try:
        rule = rules.decide(values)
    except KeyError as error:
        found.add(
            example.where,
            f"facts.{error.args[0]}: no value, and rules of the policy ask for it; add it",
        )
        return example, None
    if rule is None:
        shown = ", ".join(f"{name} {value}" for name, value in values.items())
        say = found.warn if trust == "labels" else found.add
        say(example.where, f"facts: no rule decides for {shown}; add a rule, or correct the facts")
    return example, rule


def _value(value: Any, whole: Extent) -> str | int:
    """A value as its attribute has it.

    Raises:
        ValueError: it is none of its values.
    """
    if isinstance(whole, Words):
        text = str(value).strip() if not isinstance(value, bool) else str(value).lower()
        for word in whole.values:
            if word.casefold() == text.casefold():
                return word
        raise ValueError(f"{text!r} is no value of it; {hint(text, whole.values)}")
    try:
        number = int(str(value).strip()) if not isinstance(value, float) else int(value)
        if isinstance(value, bool) or number != float(value):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"must be a whole number, found {value!r}") from None
    if not whole.holds(number):
        raise ValueError(f"{number} is not from {whole.low} to {whole.high}")
    return number


def _comparable(
    decided: Sequence[tuple[Labelled, Rule | None]],
    policies: Mapping[str, Policy],
    found: Findings,
) -> set[str]:
    """Policies whose outcomes are written as the labels are; a warning for each other one."""
    ids = set()
    for id, policy in policies.items():
        pairs = [(e.answer, r.outcome) for e, r in decided if e.policy == id and r is not None]
        outcomes = sorted({outcome for _, outcome in pairs if outcome is not None})
        if any(agree(answer, outcome) for answer, _ in pairs for outcome in outcomes):
            ids.add(id)
        elif pairs:
            labels = sorted({answer for answer, _ in pairs})
            found.warn(
                policy.name,
                f"the rules' outcomes ({some(outcomes) or 'none'}) are none of the labels "
                f"({some(labels)}), so labels were not compared with the rules; write the answer "
                "of a rule in backticks",
            )
    return ids


def agree(answer: str, outcome: str | None) -> bool:
    """Whether an answer is a rule's outcome, or a JSON object with it among its values."""
    if outcome is None or _folded(answer) == _folded(outcome):
        return True
    try:
        content = json.loads(answer)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and _folded(outcome) in {_folded(v) for v in _leaves(content)}


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _leaves(content: Any) -> Iterator[str]:
    if isinstance(content, dict):
        for value in content.values():
            yield from _leaves(value)
    elif isinstance(content, list):
        for value in content:
            yield from _leaves(value)
    elif content is not None:
        yield content if isinstance(content, str) else json.dumps(content)


def _ruled(
    example: Labelled,
    rule: Rule,
    policy: Policy,
    sets: Mapping[str, RuleSet],
    trust: str,
    write: bool,
    found: Findings,
) -> Labelled:
    if agree(example.answer, rule.outcome):
        example = _noted(example, rule)
        if write and example.rationale is None and rule.outcome is not None:
            facts = {**example.facts, "reasons": "rules"}
            text = reasons(policy, sets[example.policy], facts)
            example = replace(example, rationale=text, facts=facts)
        return example
    shown = ", ".join(f"{name} {example.facts[name]}" for name in sets[example.policy].attributes
                      if name in example.facts)  # fmt: skip
    text = f"answer {example.answer!r}, but rule {rule.id} gives {rule.outcome!r} for {shown}"
    if trust == "labels":
        found.warn(example.where, f"{text}; kept, since trust is labels")
        return replace(example, facts={**example.facts, "rules_say": rule.outcome})
    if example.where in found.places:  # a label that the grader does not know is told already
        return example
    found.add(
        example.where, f"{text}; correct the row or the rule, or set trust: labels to keep labels"
    )
    return example


def _noted(example: Labelled, rule: Rule | None) -> Labelled:
    """With `facts.rules`: as the row gives them, else the rule that decides."""
    ids = list(example.rules) or ([rule.id] if rule is not None else [])
    return replace(example, facts={**example.facts, "rules": ids}) if ids else example


def reasons(policy: Policy, rules: RuleSet, facts: Mapping[str, Any]) -> str:
    """The reasoning from the rules to their outcome, in words.

    With order "first" every rule is tried up to the one that holds; with "any" that one alone is
    named, since the order means nothing.

    Raises:
        KeyError: a value that the rules ask for is missing.
        ValueError: no rule decides.
    """
    decides = rules.decide(facts)
    if decides is None:
        raise ValueError("no rule decides")
    unit = policy.metadata.get("unit", "Rule")
    tried = rules.checkable
    tried = tried[: tried.index(decides) + 1] if rules.order == "first" else (decides,)
    lines = [f"{unit} {rule.id}: {rule.text} {_verdict(rule, facts, rules)}" for rule in tried]
    return "\n".join([*lines, f"So the response is {decides.outcome}."])


def _verdict(rule: Rule, facts: Mapping[str, Any], rules: RuleSet) -> str:
    if not rule.when:
        return "No rule before it holds." if rules.order == "first" else "No other rule holds."
    checked = (
        f"{name} is {facts[name]}: {'yes' if extent.holds(facts[name]) else 'no'}"
        for name, extent in rule.when.items()
    )
    return f"Here {', '.join(checked)}."
