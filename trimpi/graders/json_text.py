"""JSON in what a model wrote: boxed, fenced or bare, in JSON's or Python's writing.

Nothing is executed, and every step takes time linear in the text.
"""

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from trimpi.prompt import parse_response

MAX_CHARACTERS = 20_000
"""Longer texts hold no answer: reading them would take time that a reward has not."""
MAX_DEPTH = 32
"""Deeper lists and objects are no answer: comparing them would exhaust the stack."""

_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)


class DuplicateKey(ValueError):
    """An object holds a key twice, so that it has two answers in one place."""


def candidates(text: str) -> Iterator[str]:
    """Where JSON may stand in a completion, the likeliest first.

    The last `\\boxed{}` (and a fenced block or `\\text{}` in it), then the fenced blocks outside of
    `<think>`, then the objects in braces there, both from the last to the first.
    """
    yield from boxed(text) or ()
    tail = text.rpartition("</think>")[2]
    yield from reversed(_FENCE.findall(tail))
    yield from reversed(list(_objects(tail)))


def boxed(text: str) -> list[str] | None:
    """Readings of the last `\\boxed{}`: its content, fenced blocks in it, that of `\\text{}`.

    None without a box.
    """
    content = parse_response(text).answer
    if content is None:
        return None
    found = [content, *reversed(_FENCE.findall(content))]
    if content.startswith("\\text{") and content.endswith("}"):
        found.append(content[len("\\text{") : -1])
    return found


def read_answer(text: str) -> dict[str, Any] | None:
    """The one object that a completion answers with, or None.

    The last `\\boxed{}` where there is a box, readable or not; else the last fenced block, else the
    last object in braces outside of `<think>`. A completion cannot offer several to choose from.

    Raises:
        DuplicateKey: the object, or one in it, holds a key twice.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    offered = boxed(text)
    if offered is None:
        offered = list(candidates(text))[:1]
    for candidate in offered:
        found = read_json(candidate, unique=True)
        if isinstance(found, dict) and _is_plain(found):
            return found
    return None


def read_json(text: str, unique: bool = False) -> Any:
    """The JSON, or the literal in Python's writing, that a text is; None for anything else.

    A comma before a closing bracket is tolerated, `NaN` and `Infinity` are null.

    Args:
        text: the whole text.
        unique: refuse keys that stand twice in an object, instead of taking the last.

    Raises:
        DuplicateKey: with `unique`, a key stands twice.
    """
    text = text.strip()
    hook = _distinct if unique else dict
    for attempt in (text, re.sub(r",\s*([}\]])", r"\1", text)):
        try:
            return json.loads(attempt, parse_constant=lambda _: None, object_pairs_hook=hook)
        except DuplicateKey:
            raise
        except (ValueError, RecursionError):
            continue
    try:
        tree = ast.parse(text, mode="eval")
        if unique:
            _check_literal(tree)
        return ast.literal_eval(tree)  # reads constants and containers of them, runs nothing
    except DuplicateKey:
        raise
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise DuplicateKey(key)
        found[key] = value
    return found


def _check_literal(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            _distinct([(k.value, None) for k in node.keys if isinstance(k, ast.Constant)])  # type: ignore[misc]


def _is_plain(value: Any) -> bool:
    """Whether a value is made of what JSON has, and not too deep."""
    level = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                if not all(isinstance(key, str) for key in item):
                    return False
                below += item.values()
            elif isinstance(item, list | tuple):
                below += item
            elif item is not None and not isinstance(item, str | bool | int | float):
                return False
        if not below:
            return True
        level = below
    return False


def _objects(text: str) -> Iterator[str]:
    """Outermost stretches in braces, in order; braces inside of double quotes do not count."""
    depth = start = 0
    quoted = escaped = False
    for index, character in enumerate(text):
        if quoted:
            quoted = escaped or character != '"'
            escaped = character == "\\" and not escaped
        elif depth and character == '"':
            quoted, escaped = True, False
        elif character == "{":
            start = start if depth else index
            depth += 1
        elif character == "}" and depth:
            depth -= 1
            if not depth:
                yield text[start : index + 1]
