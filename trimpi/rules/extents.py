"""What an attribute can be, parts of it, and boxes: one part for each attribute.

A box stands for all combinations of values within its parts. Cutting boxes at one another is how
sets of rules are compared and proven; no combination is tried one by one.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Facts = Mapping[str, str | int]
"""A value for each attribute."""


@dataclass(frozen=True)
class Words:
    """An attribute with named values, or some of them."""

    values: tuple[str, ...]

    def holds(self, value: str | int) -> bool:
        return value in self.values


@dataclass(frozen=True)
class Interval:
    """Whole numbers from `low` to `high`, both included; `words` say it as the file does."""

    low: int
    high: int
    words: str = field(default="", compare=False)

    def holds(self, value: str | int) -> bool:
        return isinstance(value, int) and self.low <= value <= self.high


Extent = Words | Interval
Box = dict[str, Extent]


def read_attributes(content: Any, problems: list[str]) -> dict[str, Extent]:
    """Attributes from `{name: [words]}` or `{name: {from: n, to: m}}`.

    Args:
        content: as YAML or JSON gives it.
        problems: gets a line for each fault; each begins with `attributes` and the name.
    """
    if not isinstance(content, dict) or not content:
        problems.append("attributes: must map names to a list of words or to {from, to}")
        return {}
    found: dict[str, Extent] = {}
    for name, value in content.items():
        if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
            if len(set(value)) < len(value):
                problems.append(f"attributes.{name}: a word appears twice; drop one")
            found[str(name)] = Words(tuple(value))
        elif (
            isinstance(value, dict)
            and set(value) == {"from", "to"}
            and all(type(v) is int for v in value.values())
            and value["from"] <= value["to"]
        ):
            found[str(name)] = Interval(value["from"], value["to"])
        else:
            problems.append(
                f"attributes.{name}: must be a list of words, or {{from: n, to: m}} of whole "
                f"numbers with n at most m; found {value!r}"
            )
    return found


def attributes_to_json(attributes: Mapping[str, Extent]) -> dict[str, Any]:
    """The form that `read_attributes` takes."""
    return {
        name: list(whole.values)
        if isinstance(whole, Words)
        else {"from": whole.low, "to": whole.high}
        for name, whole in attributes.items()
    }


def either(words: Sequence[str]) -> str:
    """`A`, `A or B`, `A, B or C`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def in_range(name: str, extent: Extent) -> str:
    """A part of an attribute in short: `place kitchen or street`, `age 0 to 17`."""
    if isinstance(extent, Words):
        return f"{name} {either(extent.values)}"
    if extent.low == extent.high:
        return f"{name} {extent.low}"
    return f"{name} {extent.low} to {extent.high}"


def box_in_words(box: Mapping[str, Extent], attributes: Mapping[str, Extent]) -> str:
    """Those parts of a box that are not the whole of their attribute; empty for the whole."""
    return ", ".join(in_range(n, part) for n, part in box.items() if part != attributes[n])


def first(extent: Extent) -> str | int:
    """The first value."""
    return extent.values[0] if isinstance(extent, Words) else extent.low


def is_empty(extent: Extent) -> bool:
    """Whether no value is within."""
    return not extent.values if isinstance(extent, Words) else extent.low > extent.high


def count(box: Mapping[str, Extent]) -> int:
    """How many combinations of values a box holds."""
    return math.prod(
        len(part.values) if isinstance(part, Words) else max(part.high - part.low + 1, 0)
        for part in box.values()
    )


def meet(left: Extent, right: Extent) -> Extent:
    """The values of both; may be empty. Parts of unlike kinds share none."""
    if isinstance(left, Words) and isinstance(right, Words):
        return Words(tuple(value for value in left.values if value in right.values))
    if isinstance(left, Interval) and isinstance(right, Interval):
        return Interval(max(left.low, right.low), min(left.high, right.high))
    return Words(())


def overlap(box: Mapping[str, Extent], when: Mapping[str, Extent]) -> Box | None:
    """The part of a box where conditions hold, or None."""
    shared = {name: meet(part, when[name]) if name in when else part for name, part in box.items()}
    return None if any(is_empty(part) for part in shared.values()) else shared


def without(box: Mapping[str, Extent], when: Mapping[str, Extent]) -> list[Box]:
    """The rest of a box where conditions do not hold, as boxes that share nothing."""
    shared = overlap(box, when)
    if shared is None:
        return [dict(box)]
    rest: list[Box] = []
    left = dict(box)
    for name in when:
        for part in _outside(left[name], shared[name]):
            rest.append({**left, name: part})
        left[name] = shared[name]
    return rest


def _outside(whole: Extent, part: Extent) -> list[Extent]:
    if isinstance(whole, Words):
        assert isinstance(part, Words)
        values = tuple(value for value in whole.values if value not in part.values)
        return [Words(values)] if values else []
    assert isinstance(part, Interval)
    sides = [Interval(whole.low, part.low - 1), Interval(part.high + 1, whole.high)]
    return [side for side in sides if not is_empty(side)]


def grid(
    attributes: Mapping[str, Extent], conditions: Sequence[Mapping[str, Extent]]
) -> Iterator[Box]:
    """All combinations of the pieces that conditions cut attributes into.

    Words are cut into single ones. An attribute that no condition names stays whole.
    """
    pieces = {
        name: _pieces(whole, [when[name] for when in conditions if name in when])
        for name, whole in attributes.items()
    }
    for combination in itertools.product(*pieces.values()):
        yield dict(zip(pieces, combination, strict=True))


def _pieces(whole: Extent, extents: Sequence[Extent]) -> list[Extent]:
    """An attribute cut wherever one of `extents` begins or ends."""
    if isinstance(whole, Words):
        return [Words((word,)) for word in whole.values] if extents else [whole]
    starts = {whole.low}
    for extent in extents:
        assert isinstance(extent, Interval)
        starts |= {extent.low, extent.high + 1}
    inside = sorted(s for s in starts if whole.low <= s <= whole.high)
    return [
        Interval(low, following - 1)
        for low, following in itertools.pairwise([*inside, whole.high + 1])
    ]
