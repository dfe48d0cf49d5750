"""Tool calls as text: the gold form, and reading what a model wrote. Nothing is executed."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import ascii_letters
from typing import Any

from trimpi.prompt import parse_response

MAX_CHARACTERS = 20_000
"""Longer texts are no calls: reading them would take time that a reward has not."""

MOST_FENCES = 8
"""Of a text's fenced blocks so many are looked at, from the last one on."""

_NAMES = ("name", "tool", "tool_name")
_ARGUMENTS = ("arguments", "parameters", "args", "inputs")
_AFTER_A_CALL = re.compile(r"(?:[\s`'\".,;:!*_)\]}]|</?\w{1,20}>|<\|\w{1,20}\|>)*")
"""What may follow a bare call: marks and closing tags, no words."""


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
    for candidate in _candidates(outside_of_thoughts(text)):
        if (call := _call(_content(candidate))) is not None:
            return call
    return None


def outside_of_thoughts(text: str) -> str:
    """A completion without its reasoning.

    Blocks `<think>...</think>` are taken out, and so is everything after a `<think>` without an end
    or before a `</think>` without a beginning, which chat templates leave.
    """
    kept: list[str] = []
    inside = begun = False
    for piece in re.split(r"(</?think>)", text):
        if piece == "<think>":
            inside = begun = True
        elif piece == "</think>":
            kept = kept if begun else []
            inside, begun = False, True
        elif not inside:
            kept.append(piece)
    return "".join(kept)


def _candidates(text: str) -> Iterator[str]:
    if (boxed := parse_response(text).answer) is not None:
        yield boxed
        yield from _fenced(boxed)
        if boxed.startswith("\\text{") and boxed.endswith("}"):
            yield boxed[len("\\text{") : -1]
        if "\\" in boxed:
            yield re.sub(r"\\([{}_])", r"\1", boxed)
    yield from _fenced(text)
    yield from _last_object(text)


def _fenced(text: str) -> Iterator[str]:
    """The contents of fenced blocks from the last one on, without the name of a language."""
    pieces = text.split("```")
    # Every second piece is fenced; the last one never is, for want of an end.
    inner = [piece for number, piece in enumerate(pieces[:-1]) if number % 2]
    for piece in reversed(inner[-MOST_FENCES:]):
        yield piece.lstrip(ascii_letters).strip()


def _last_object(text: str) -> Iterator[str]:
    """The stretch in braces that a text ends with; an opening brace without an end is passed over.

    First braces in double quotes do not count; then, since a stray quote hides braces, they do.
    """
    for quotes in (True, False):
        opened: list[int] = []
        start = end = 0
        quoted = False
        for match in re.finditer(r'\\.|["{}]', text, re.DOTALL):
            if quoted:
                quoted = match[0] != '"'
                continue
            mark = match[0][-1]
            if mark == "{":
                opened.append(match.end() - 1)
            elif mark == "}" and opened:
                start, end = opened.pop(), match.end()
            elif mark == '"':
                quoted = quotes and bool(opened)
        if end and _AFTER_A_CALL.fullmatch(text, end):
            yield text[start:end]


def _content(text: str) -> Any:
    """The list or object that a text is, in JSON or in Python's writing; None for anything else."""
    text = text.strip()
    if not text.startswith(("{", "[")) or not text.endswith(("}", "]")):
        return None
    for attempt in (text, re.sub(r",\s*([}\]])", r"\1", text)):
        try:
            return json.loads(attempt, parse_constant=lambda _: None, strict=False)
        except (ValueError, RecursionError):
            continue
    try:
        content = ast.literal_eval(text)  # reads constants and containers of them, runs nothing
        repr(content)  # a ValueError, if it holds a hexadecimal number too long for decimal digits
        return content
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
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
        arguments = _content(arguments)
    if not isinstance(arguments, dict) or not all(isinstance(key, str) for key in arguments):
        return None
    return Call(name.strip(), arguments)
