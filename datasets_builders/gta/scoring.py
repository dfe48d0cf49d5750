"""How right a tool call is: the tool, and each argument by its own kind of comparison.

Metrics of the paper (GTAPolicy): tool accuracy, argument score as the mean over fields in [0, 1],
and their mean, which is also the accuracy reward of RL.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from datasets_builders.gta.boxes import overlap
from datasets_builders.gta.calls import Call
from datasets_builders.gta.expression import same_value

Kind = Literal["exact", "text", "value", "box"]

KINDS: dict[str, Kind] = {
    **dict.fromkeys(("position", "color", "image", "k", "top1"), "exact"),
    **dict.fromkeys(
        ("attribute", "text", "query", "command", "annotation", "keywords", "instruction"), "text"
    ),
    "expression": "value",
    "bbox": "box",
}
"""How an argument is compared, by its name; any other is compared exactly."""

MOST_CHARACTERS = 2000
"""Of a text argument so many are compared: likeness takes time that grows with the square."""

Similarity = Callable[[str, str], float]
"""Of two texts, in [0, 1]."""


@dataclass(frozen=True)
class CallScore:
    """`tool` is 0 or 1; `fields` holds the score of every argument that either call has."""

    tool: float
    fields: Mapping[str, float] = field(default_factory=dict)

    @property
    def argument(self) -> float:
        """Mean over the fields; 1 where neither call has arguments."""
        return sum(self.fields.values()) / len(self.fields) if self.fields else 1.0

    @property
    def overall(self) -> float:
        """Mean of tool and argument score."""
        return (self.tool + self.argument) / 2


def score_call(
    gold: Call, said: Call | None, defaults: Mapping[str, Any], similarity: Similarity
) -> CallScore:
    """Compare what was said with the gold call.

    An argument that is missing scores 0, and so does one that the gold call has not: the mean goes
    over both. An optional argument that is left out counts as written with its default; a default
    that the gold call does not write earns nothing. The tool's name must be the same to the letter,
    version included; arguments are scored whether it is or not. No call at all scores 0 everywhere.

    Args:
        gold: the right call.
        said: the call that was made, or None.
        defaults: values of the gold tool's optional arguments.
        similarity: of texts.
    """
    if said is None:
        return CallScore(0.0, dict.fromkeys(gold.arguments, 0.0) or {"": 0.0})
    full, given = {**defaults, **gold.arguments}, {**defaults, **said.arguments}
    # A default that the gold call does not write is no argument of it, whether it is said or not.
    extra = [
        name
        for name, value in said.arguments.items()
        if name not in gold.arguments
        and not (name in defaults and field_score(name, defaults[name], value, similarity) == 1)
    ]
    names = [*gold.arguments, *extra]
    fields = {
        name: field_score(name, full[name], given[name], similarity)
        if name in full and name in given
        else 0.0
        for name in names
    }
    return CallScore(float(said.name == gold.name), fields)


def field_score(name: str, gold: Any, said: Any, similarity: Similarity) -> float:
    """The score of one argument in [0, 1].

    Exact fields are equal when they are the same word or number, however written (`4` and `"4"`,
    `true` and `"True"`); texts by similarity of their first 2,000 characters; expressions by value;
    boxes by intersection over union. A value of a kind that the field cannot hold scores 0.
    """
    kind = KINDS.get(name, "exact")
    if kind == "value":
        return float(same_value(gold, said))
    if kind == "box":
        return overlap(gold, said)
    one, other = _plain(gold), _plain(said)
    if one is None or other is None:
        return 0.0
    if kind == "exact":
        return float(_word(one) == _word(other))
    return min(max(similarity(one[:MOST_CHARACTERS], other[:MOST_CHARACTERS]), 0.0), 1.0)


def _plain(value: Any) -> str | None:
    """A JSON scalar as text; None for null, lists and objects, which no field holds."""
    if isinstance(value, bool | int | float | str):
        try:
            return str(value)
        except ValueError:  # a whole number of more digits than Python writes
            return None
    return None


def _word(text: str) -> str:
    text = text.strip()
    if re.fullmatch(r"-?\d{1,15}(\.0*)?", text):
        return str(int(text.partition(".")[0]))
    return text.casefold()
