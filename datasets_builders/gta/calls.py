"""Tool calls as text: the gold form, and reading what a model wrote. Nothing is executed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimpi.graders.json_text import MAX_CHARACTERS, candidates, read_json

_NAMES = ("name", "tool", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args", "inputs")


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

    Looked for outside of `<think>`, in this order: the last `\\boxed{...}`, the last fenced block,
    an object in braces that the text ends with. A bare object that words follow is none: "Never
    call {...}, it is wrong" calls nothing. (Words before it are not read; only a box is safe.) A
    `<think>` that does not end has nothing after it.

    What models do is tolerated: Python's quotes, `True` and `None`, a comma before a closing brace,
    line breaks inside of texts, LaTeX's `\\{` and `\\_`, a brace too many before or after,
    `{"function": {...}}` or `{"tool_calls": [{...}]}` around the call, `tool` for `name`,
    `parameters` for `arguments`, arguments as a string of JSON, no arguments at all. A list of
    several calls is no call: one was asked for.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    for candidate in candidates(text):
        if (call := _call(read_json(candidate))) is not None:
            return call
    return None


def _call(content: Any) -> Call | None:
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        return None
    if isinstance(calls := content.get("tool_calls"), list) and len(calls) == 1:
        content = calls[0] if isinstance(calls[0], dict) else {}
    if isinstance(inner := content.get("function"), dict):
        content = inner
    name = next((content[key] for key in _NAMES if key in content), content.get("function"))
    if not isinstance(name, str) or not name.strip():
        return None
    arguments: Any = next((content[key] for key in _ARGUMENTS if key in content), {})
    if arguments is None or arguments == "":
        arguments = {}
    if isinstance(arguments, str):
        arguments = read_json(arguments)
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        return None
    return Call(name.strip(), arguments)
