"""Calls that are nearly right, which a grader must not score 1."""

import json
from collections.abc import Iterator

from datasets_builders.gta.calls import Call
from trimpi.sample import Sample


def near_misses(sample: Sample) -> list[str]:
    """Wrong answers close to a row's own, as JSON.

    A tool that does not exist, for a versioned tool its name without and with another version, an
    argument more, and for each argument the call without it (but for one that has its default,
    which may be left out).

    Raises:
        ValueError: the row's answer is no call as the builder writes one.
    """
    content = json.loads(sample.answer)
    gold = Call(content["name"], content["arguments"])
    return [call.to_json() for call in _around(gold, sample)]


def _around(gold: Call, sample: Sample) -> Iterator[Call]:
    tool = str(sample.facts.get("tool", gold.name))
    yield Call(f"x{gold.name}", gold.arguments)
    if gold.name != tool:
        yield Call(tool, gold.arguments)
        yield Call(f"{gold.name}0", gold.arguments)
    yield Call(gold.name, {"unasked": 1, **gold.arguments})
    defaults = sample.facts.get("defaults", {})
    for name, value in gold.arguments.items():
        if name not in defaults or defaults[name] != value:
            yield Call(gold.name, {n: v for n, v in gold.arguments.items() if n != name})
