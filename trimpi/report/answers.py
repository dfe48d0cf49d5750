"""Answers that are JSON objects, such as tool calls, by lines; what differs from gold is marked."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Line:
    """A line of reasoning or of an answer; `wrong` marks a fault, `note` says more of it."""

    text: str
    wrong: bool = False
    note: str = ""


def read_object(text: str | None) -> dict[str, Any] | None:
    """The JSON object that a text is, or None."""
    try:
        content = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def object_lines(
    said: Mapping[str, Any], gold: Mapping[str, Any], parts: Mapping[str, float]
) -> list[Line]:
    """An object by lines, objects in it opened once.

    Args:
        said: what is shown.
        gold: what it is compared with, key by key; its keys that `said` lacks follow as left out.
        parts: of the score. An inner key whose part `field/<key>` is 1 is right however written.
    """
    lines = [Line("{")]
    for key, value, comma in _listed(said):
        right = gold.get(key)
        if isinstance(value, Mapping):
            lines.append(Line(f"  {_text(key)}: {{"))
            inner = right if isinstance(right, Mapping) else {}
            lines += _entries(value, inner, parts, "    ")
            lines.append(Line(f"  }}{comma}"))
        else:
            lines.append(Line(f"  {_text(key)}: {_text(value)}{comma}", value != right))
    lines += [Line(f"  {_text(key)}", True, "left out") for key in gold if key not in said]
    return [*lines, Line("}")]


def _entries(
    said: Mapping[str, Any], gold: Mapping[str, Any], parts: Mapping[str, float], indent: str
) -> Iterator[Line]:
    for key, value, comma in _listed(said):
        score = parts.get(f"field/{key}")
        same = key in gold and gold[key] == value
        wrong = not same and score != 1
        note = "" if not wrong else "not asked for" if key not in gold else "wrong"
        if wrong and score is not None and 0 < score < 1:
            note = f"scores {score:.2f}"
        yield Line(f"{indent}{_text(key)}: {_text(value)}{comma}", wrong, note)
    for key, value in gold.items():
        if key not in said and parts.get(f"field/{key}") != 1:
            yield Line(f"{indent}{_text(key)}: {_text(value)}", True, "left out")


def _listed(content: Mapping[str, Any]) -> Iterator[tuple[str, Any, str]]:
    """Keys and values, each with the comma after it."""
    for number, (key, value) in enumerate(content.items(), 1):
        yield key, value, "," if number < len(content) else ""


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
