"""Cases in words for a policy with checkable rules: a start until pictures are there."""

import random
from typing import Any

from trimpi.policy import Policy
from trimpi.rules import Extent, RuleSet, Words

SEED = 0
_TRIES = 20


def write_cases(policy: Policy, rows: int) -> list[dict[str, Any]]:
    """Rows without pictures whose request says the facts; every rule decides some of them.

    Empty for a policy whose rules are not checkable or have no outcomes. Fewer than `rows` where
    the attributes have no more combinations of values.
    """
    rules = RuleSet.from_metadata(policy.metadata)
    if not rules.attributes or any(rule.outcome is None for rule in rules.checkable):
        return []
    rng = random.Random(f"{SEED}/cases")
    boxes = [(box, rule) for box, rule in rules.regions() if rule is not None]
    by_rule = {rule.id: [box for box, r in boxes if r is rule] for _, rule in boxes}
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for _ in range(_TRIES * rows):
        if len(found) == rows or not by_rule:
            break
        box = rng.choice(by_rule[rng.choice(list(by_rule))])
        facts = {name: _draw(rng, extent) for name, extent in box.items()}
        decides = rules.decide(facts)
        assert decides is not None
        told = ", ".join(f"{name} is {value}" for name, value in facts.items())
        found.setdefault(
            tuple(facts.values()),
            {
                "query": f"{told[:1].upper()}{told[1:]}. What is the response of {policy.name}?",
                "answer": decides.outcome,
                "facts": facts,
            },
        )
    return [{"id": f"{n:04d}", **row} for n, row in enumerate(found.values())]


def _draw(rng: random.Random, extent: Extent) -> str | int:
    if isinstance(extent, Words):
        return rng.choice(extent.values)
    return rng.randint(extent.low, extent.high)
