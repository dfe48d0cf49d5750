"""Tool calls as text: the gold form, and reading what a model wrote. Nothing is executed."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from trimpi.prompt import parse_response

MAX_CHARACTERS = 20_000
"""Longer texts are no calls: reading them would take time that a reward has not."""

_NAMES = ("name", "tool", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args", "inputs")
_FENCE = re.compile(r"```[a-zA-Z]*\s*\n?(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """One call: the name with its version, and arguments as JSON values."""

    name: str
    arguments: Mapping[str, Any]

    def to_json(self) -> str:
        """The gold form: `{"name": ..., "arguments": {...}}` on one line."""
        content = {"name": self.name, "arguments": dict(self.arguments)}
        return json.dumps(content, ensure_ascii=False)


def parse_call(text: str) -> Call | None:
    """The call that a completion ends with, or None.

    Looked for, in this order: the last `\\boxed{...}`, the last fenced block, the last object in
    braces outside of `<think>`. What models do is tolerated: Python's quotes, `True` and `None`,
    a comma before a closing brace, `{"function": {...}}` around the call, `tool` for `name`,
    `parameters` for `arguments`, arguments as a string of JSON, no arguments at all. A list of
    several calls is no call: one was asked for.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    for candidate in _candidates(text):
        if (call := _call(_content(candidate))) is not None:
            return call
    return None


def _candidates(text: str) -> Iterator[str]:
    if (boxed := parse_response(text).answer) is not None:
        yield boxed
        yield from reversed(_FENCE.findall(boxed))
        if boxed.startswith("\\text{") and boxed.endswith("}"):
            yield boxed[len("\\text{") : -1]
    tail = text.rpartition("</think>")[2]
    yield from reversed(_FENCE.findall(tail))
    yield from reversed(list(_objects(tail)))


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


def _content(text: str) -> Any:
    """The JSON, or the literal in Python's writing, that a text is; None for anything else."""
    text = text.strip()
    for attempt in (text, re.sub(r",\s*([}\]])", r"\1", text)):
        try:
            return json.loads(attempt, parse_constant=lambda _: None)
        except (ValueError, RecursionError):
            continue
    try:
        return ast.literal_eval(text)  # reads constants and containers of them, runs nothing
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _call(content: Any) -> Call | None:
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        return None
    if isinstance(inner := content.get("function"), dict):
        content = inner
    name = next((content[key] for key in _NAMES if key in content), content.get("function"))
    if not isinstance(name, str) or not name.strip():
        return None
    arguments: Any = next((content[key] for key in _ARGUMENTS if key in content), {})
    if arguments is None or arguments == "":
        arguments = {}
    if isinstance(arguments, str):
        arguments = _content(arguments)
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        return None
    return Call(name.strip(), arguments)
