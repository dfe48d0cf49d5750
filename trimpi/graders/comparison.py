"""How one answer, or one field of a JSON answer, is compared with the gold one.

A comparison takes JSON values; a boxed answer is a text. `fault(gold)` says what is wrong with a
gold value that the comparison does not know, and `compare(gold, said)` is in [0, 1].
"""

import difflib
import json
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

from trimpi.graders.config import (
    ChoiceConfig,
    ExactConfig,
    NumberConfig,
    RegexConfig,
    TextField,
)
from trimpi.graders.likeness import lexical_similarity
from trimpi.graders.number import read_number
from trimpi.graders.pattern import Pattern
from trimpi.grading import folded

AnswerConfig = ExactConfig | ChoiceConfig | NumberConfig | RegexConfig | TextField
MAX_CHARACTERS = 20_000
"""Longer values are no answers."""


class Comparison(Protocol):
    """One rule of comparison."""

    about: str

    def fault(self, gold: Any) -> str:
        """What is wrong with a gold value, in words; empty when nothing is."""
        ...

    def compare(self, gold: Any, said: Any) -> float:
        """How right a value is, in [0, 1]; `gold` is without a fault."""
        ...


class Exact:
    """Equal JSON; texts in any case and spacing, numbers by value, true and 1 apart."""

    about = "exact"

    def fault(self, gold: Any) -> str:
        """Any JSON value is known."""
        return ""

    def compare(self, gold: Any, said: Any) -> float:
        """1 or 0."""
        return float(_plain(gold) == _plain(said))


class Choice:
    """The same option."""

    def __init__(self, config: ChoiceConfig) -> None:
        self._options = {folded(option): option for option in config.options}
        shown = config.options if len(config.options) <= 12 else [*config.options[:12], "..."]
        self.about = f"one of {', '.join(shown)}"

    def fault(self, gold: Any) -> str:
        """A gold value that is no option."""
        if (text := _text(gold)) is not None and folded(text) in self._options:
            return ""
        near = difflib.get_close_matches(folded(text or ""), self._options, 1, 0.6)
        hint = f"did you mean {self._options[near[0]]!r}?" if near else "correct it, or add it"
        return f"{shown(gold)} is none of the {len(self._options)} options ({self.about}); {hint}"

    def compare(self, gold: Any, said: Any) -> float:
        """1 or 0."""
        one, other = _text(gold), _text(said)
        return float(one is not None and other is not None and folded(one) == folded(other))


class Number:
    """A number near enough, in exact arithmetic: 0.8 is within 0.1 of 0.7."""

    def __init__(self, config: NumberConfig) -> None:
        self._tolerance = Fraction(str(config.tolerance))
        self._relative = Fraction(str(config.relative))
        self._units = config.units
        limits = [f"{config.tolerance:g}"] if config.tolerance or not config.relative else []
        limits += [f"{100 * config.relative:g} %"] if config.relative else []
        self.about = f"number within {' or '.join(limits)}" if limits != ["0"] else "number"

    def fault(self, gold: Any) -> str:
        """A gold value that is no number."""
        return "" if self._read(gold) is not None else f"{shown(gold)} is no number; correct it"

    def compare(self, gold: Any, said: Any) -> float:
        """1 or 0; what is no number is wrong."""
        right, found = self._read(gold), self._read(said)
        if right is None or found is None:
            return 0.0
        allowed = max(self._tolerance, self._relative * abs(right))
        return float(abs(found - right) <= allowed)

    def _read(self, value: Any) -> Fraction | None:
        if isinstance(value, str):
            return read_number(value, self._units)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return read_number(repr(value), ())
        return None


class Matching:
    """What a pattern finds."""

    def __init__(self, config: RegexConfig) -> None:
        self._pattern, self._whole = Pattern(config.pattern), config.fullmatch
        self.about = f"pattern {config.pattern}"

    def fault(self, gold: Any) -> str:
        """A gold value that does not match, or in more than one way."""
        found = self._found(gold)
        if found is None:
            return f"{shown(gold)} does not match the {self.about}; correct it, or the pattern"
        if len(found) > 1:
            return f"{shown(gold)} matches the {self.about} with two answers; correct it"
        return ""

    def compare(self, gold: Any, said: Any) -> float:
        """1 or 0; several matches that hold different texts are no answer."""
        found, right = self._found(said), self._found(gold)
        if found is None or right is None or self._pattern.group is None:
            return float(found is not None)
        return float(len(found) == 1 and folded(found[0]) == folded(right[0]))

    def _found(self, value: Any) -> list[str] | None:
        text = _text(value)
        if text is None or len(text) > MAX_CHARACTERS:
            return None
        return self._pattern.find(text, self._whole)


class Text:
    """Likeness of words and letters."""

    about = "text by likeness"

    def fault(self, gold: Any) -> str:
        """A gold value that is no text."""
        return "" if isinstance(gold, str) and gold.strip() else f"{shown(gold)} is no text"

    def compare(self, gold: Any, said: Any) -> float:
        """In [0, 1]."""
        text = _text(said)
        if text is None or len(text) > MAX_CHARACTERS:
            return 0.0
        return min(max(lexical_similarity(gold, text), 0.0), 1.0)


def comparison_of(config: AnswerConfig) -> Comparison:
    """The comparison that a declaration asks for."""
    kinds: dict[str, Callable[[Any], Comparison]] = {
        "exact": lambda _: Exact(),
        "choice": Choice,
        "number": Number,
        "regex": Matching,
        "text": lambda _: Text(),
    }
    return kinds[config.type](config)


def shown(value: Any) -> str:
    """A value for a message, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _text(value: Any) -> str | None:
    """A JSON scalar as text; None for null, lists, objects and what is no finite number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    return None


def _plain(value: Any) -> Any:
    """What two values are compared as: types apart, but 3 and 3.0 alike."""
    if isinstance(value, str):
        return ("text", folded(value))
    if isinstance(value, bool) or value is None:
        return ("word", value)
    if isinstance(value, int | float):
        return ("number", value)
    if isinstance(value, list | tuple):
        return ("list", [_plain(item) for item in value])
    return ("object", {key: _plain(item) for key, item in value.items()})
