"""Tools as GTA describes them: `toolmeta.json`, a description and typed inputs for each."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_builders.gta.calls import Call
from datasets_builders.hints import hint, shown
from trimpi.errors import UserError

TYPES = ("text", "image", "int", "float", "bool")


@dataclass(frozen=True)
class Input:
    """An argument of a tool; `default` stands for it where an optional one is left out."""

    name: str
    type: str
    description: str = ""
    optional: bool = False
    default: Any = None


@dataclass(frozen=True)
class Tool:
    """A tool, without its versions."""

    name: str
    description: str
    inputs: tuple[Input, ...]

    @property
    def defaults(self) -> dict[str, Any]:
        """Values of the optional inputs that have one."""
        return {i.name: i.default for i in self.inputs if i.optional and i.default is not None}

    def faults(self, call: Call) -> list[str]:
        """What of a call does not fit this tool, in words: arguments unknown, missing, mistyped."""
        known = {i.name: i for i in self.inputs}
        found = []
        for name, value in call.arguments.items():
            if name not in known:
                cure = hint(name, known, f"it has {', '.join(known) or 'none'}")
                found.append(f"{self.name} has no argument {name!r}; {cure}")
            elif not fits(value, known[name].type):
                found.append(
                    f"{self.name}.{name} must be of type {known[name].type}, found {shown(value)}"
                )
        missing = [i.name for i in self.inputs if not i.optional and i.name not in call.arguments]
        return found + [f"{self.name} needs the argument {name!r}; add it" for name in missing]


def read_tools(file: Path) -> dict[str, Tool]:
    """The tools of a `toolmeta.json`, by name.

    Raises:
        UserError: all faults at once, one line each.
    """
    content = read_json_object(file)
    tools, problems = {}, []
    for name, record in content.items():
        try:
            tools[name] = _tool(name, record)
        except ValueError as error:
            name = name.encode(errors="backslashreplace").decode()
            problems.append(f"{file}: {name}: {error}")
    if problems or not tools:
        raise UserError.join(problems or [f"{file}: holds no tool; give GTA's toolmeta.json"])
    return tools


def read_json_object(file: Path) -> dict[str, Any]:
    """A JSON object whose keys are all different.

    Raises:
        UserError: not readable, not JSON, not an object, or a key is given twice.
    """

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no number of JSON")

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        if len(set(keys)) < len(keys):
            twice = next(key for key in keys if keys.count(key) > 1)
            raise ValueError(f"key {twice!r} is given twice")
        return dict(pairs)

    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text, object_pairs_hook=unique, parse_constant=constant)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not readable JSON ({error}); restore the file") from None
    if not isinstance(content, dict):
        raise UserError(f"{file}: must hold a JSON object; restore the file")
    return content


def _tool(name: str, record: Any) -> Tool:
    if not isinstance(record, Mapping) or record.get("name") != name:
        raise ValueError("must be an object with this 'name'; restore the file")
    if not isinstance(record.get("description"), str):
        raise ValueError("'description' must be text; add it")
    rows = record.get("inputs")
    if not isinstance(rows, list):
        raise ValueError("'inputs' must be a list; add it")
    inputs = []
    for row in rows:
        if not isinstance(row, Mapping) or not isinstance(row.get("name"), str):
            raise ValueError("an input must be an object with a 'name'; correct it")
        if (kind := row.get("type")) not in TYPES:
            raise ValueError(
                f"input {row['name']!r}: type {shown(kind)} is none of {', '.join(TYPES)}"
            )
        optional, default = bool(row.get("optional")), row.get("default")
        if optional and default is not None and not fits(default, row["type"]):
            raise ValueError(f"input {row['name']!r}: default {shown(default)} is no {row['type']}")
        about = row.get("description") or ""
        inputs.append(Input(row["name"], row["type"], str(about), optional, default))
    if len({i.name for i in inputs}) < len(inputs):
        raise ValueError("an input is given twice; drop one")
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        character = error.object[error.start]
        raise ValueError(f"holds {character!r}, no character of UTF-8; correct it") from None
    return Tool(name, record["description"], tuple(inputs))


def fits(value: Any, kind: str) -> bool:
    """Whether a value is of one of `TYPES`; a whole number is a float too."""
    if kind in ("text", "image"):
        return isinstance(value, str)
    if kind == "bool":
        return isinstance(value, bool)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number if kind == "float" else number and isinstance(value, int)
