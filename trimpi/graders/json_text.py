"""JSON in what a model wrote: boxed, fenced or bare, in JSON's or Python's writing.

Nothing is executed, and every step takes time linear in the text.
"""

import ast
import json
import re
from collections.abc import Iterator
from string import ascii_letters
from typing import Any

from trimpi.prompt import parse_response

MAX_CHARACTERS = 20_000
"""Longer texts hold no answer: reading them would take time that a reward has not."""
MAX_DEPTH = 32
"""Deeper lists and objects are no answer: comparing them would exhaust the stack."""

MOST_FENCES = 8
"""Of a text's fenced blocks so many are looked at, from the last one on."""

_AFTER = re.compile(r"(?:[\s`'\".,;:!*_)\]}]|</?\w{1,20}>|<\|\w{1,20}\|>)*")
"""What may follow a bare object: marks and closing tags, no words."""


class DuplicateKey(ValueError):
    """An object holds a key twice, so that it has two answers in one place."""


def candidates(text: str) -> Iterator[str]:
    """Where JSON may stand in a completion, the likeliest first.

    The last `\\boxed{}` (and a fenced block or `\\text{}` in it), then the fenced blocks from the
    last one on, then the object in braces that the text ends with, all outside of `<think>`.
    """
    text = outside_of_thoughts(text)
    yield from boxed(text) or ()
    yield from _fenced(text)
    yield from _last_object(text)


def boxed(text: str) -> list[str] | None:
    """Readings of the last `\\boxed{}`: its content, fenced blocks in it, that of `\\text{}`, and
    without LaTeX's backslashes.

    None without a box.
    """
    content = parse_response(text).answer
    if content is None:
        return None
    found = [content, *_fenced(content)]
    if content.startswith("\\text{") and content.endswith("}"):
        found.append(content[len("\\text{") : -1])
    if "\\" in content:
        found.append(re.sub(r"\\([{}_])", r"\1", content))
    return found


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
        if end and _AFTER.fullmatch(text, end):
            yield text[start:end]


def read_answer(text: str) -> dict[str, Any] | None:
    """The one object that a completion answers with, or None.

    The last `\\boxed{}` where there is a box, readable or not; else the last fenced block, else the
    last object in braces outside of `<think>`. A completion cannot offer several to choose from.

    Raises:
        DuplicateKey: the object, or one in it, holds a key twice.
    """
    if len(text) > MAX_CHARACTERS:
        return None
    text = outside_of_thoughts(text)
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

    A comma before a closing bracket and line breaks inside of texts are tolerated, `NaN` and
    `Infinity` are null.

    Args:
        text: the whole text.
        unique: refuse keys that stand twice in an object, instead of taking the last.

    Raises:
        DuplicateKey: with `unique`, a key stands twice.
    """
    text = text.strip()
    if not text.startswith(("{", "[")) or not text.endswith(("}", "]")):
        return None
    hook = _distinct if unique else dict
    for attempt in (text, re.sub(r",\s*([}\]])", r"\1", text)):
        try:
            return json.loads(attempt, parse_constant=_null, object_pairs_hook=hook, strict=False)
        except DuplicateKey:
            raise
        except (ValueError, RecursionError):
            continue
    try:
        tree = ast.parse(text, mode="eval")
        if unique:
            _check_literal(tree)
        content = ast.literal_eval(tree)  # reads constants and containers of them, runs nothing
        repr(content)  # a ValueError, if it holds a hexadecimal number too long for decimal digits
        return content
    except DuplicateKey:
        raise
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _null(_: str) -> None:
    """NaN and Infinity."""


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
