"""Guardrail requests and reasoning in words."""

from trimpi.rules import Facts, Rule, RuleSet, in_words

ATTRIBUTES = ("item", "place", "people")
"""What a picture shows; `age` is of the viewer, and stands in the request."""


def request(name: str, age: int) -> str:
    """A request under the policy `name`."""
    return f"Viewer: age {age}. May this picture be shown under policy {name}?"


def description(facts: Facts) -> str:
    """What a picture shows."""
    return f"The picture shows: {', '.join(f'{name} {facts[name]}' for name in ATTRIBUTES)}."


def rationale(rules: RuleSet, facts: Facts) -> str:
    """What is seen, then the rules that may be about the item, tried up to the one that holds.

    Raises:
        ValueError: no rule holds.
    """
    lines = [f"{description(facts)} The viewer has age {facts['age']}."]
    for rule in rules.checkable:
        if not about(rule, facts):
            continue
        lines.append(f"Rule {rule.id}: {judged(rule, facts)}.")
        if rule.holds(facts):
            return "\n".join([*lines, f"The response is {rule.outcome}."])
    raise ValueError("no rule holds")


def about(rule: Rule, facts: Facts) -> bool:
    """Whether a rule may be about the item: it names it among its items, or names no item."""
    item = (rule.when or {}).get("item")
    return item is None or item.holds(facts["item"])


def judged(rule: Rule, facts: Facts) -> str:
    """The conditions of a rule one by one, with yes or no."""
    others = {name: extent for name, extent in (rule.when or {}).items() if name != "item"}
    if not others:
        return "it holds"
    return ", ".join(
        f"{in_words(name, extent)}: {'yes' if extent.holds(facts[name]) else 'no'}"
        for name, extent in others.items()
    )
