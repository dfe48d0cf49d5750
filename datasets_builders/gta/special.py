"""Rules beyond versions, from the same file: which call comes first, or in place of another."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from datasets_builders.gta.rules import read_rule_file
from datasets_builders.hints import hint, shown
from trimpi.errors import UserError

Kind = Literal["describe_first", "needs", "substitute", "argument", "exact_names"]
QUESTIONS = ("closed", "open")
MARKS = ("mathematical",)

_KEYS: dict[str, tuple[str, ...]] = {
    "describe_first": ("tool",),
    "needs": ("tool", "first"),
    "substitute": ("tool", "use", "when"),
    "argument": ("tool", "argument", "values"),
    "exact_names": (),
}
"""The keys of each kind beside `id`, `kind` and `text`; all of them are required."""


@dataclass(frozen=True)
class SpecialRule:
    """One rule; what a kind does not have is empty.

    `describe_first`: of several pictures each is described by `tool` before other calls.
    `needs`: before `tool` is called on a picture, `first` is. `substitute`: `use` is called in
    place of `tool` in steps marked `when`; a source may have `use` itself. `argument`: `tool` gets
    `argument` by the kind of question. `exact_names`: pictures are named as given; nothing is
    rewritten.
    """

    id: str
    kind: Kind
    text: str
    tool: str = ""
    first: str = ""
    use: str = ""
    when: str = ""
    argument: str = ""
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ruled_argument(self) -> str:
        """The argument that shows whether a call follows the rule; empty where the tool does."""
        return "image" if self.kind in ("describe_first", "exact_names") else self.argument


def read_special_rules(file: Path, tools: Collection[str]) -> tuple[SpecialRule, ...]:
    """Read `special` of a rule file, in the order of the file, which is that of application.

    Args:
        file: the rule file; no `special` in it means no such rule.
        tools: names of all tools, without versions.

    Raises:
        UserError: all faults at once, one line each, with the key.
    """
    return special_rules(read_rule_file(file), str(file), tools)


def special_rules(
    content: Mapping[str, Any], where: str, tools: Collection[str]
) -> tuple[SpecialRule, ...]:
    """The same from what a rule file holds; `where` begins each line of an error.

    Raises:
        UserError: as `read_special_rules`, but for a file that cannot be read.
    """
    rows = content.get("special") or []
    if not isinstance(rows, list):
        raise UserError(f"{where}: special: must be a list of rules")
    problems = []
    rules: list[SpecialRule] = []
    for number, row in enumerate(rows, 1):
        faults = list(_faults(row, tools, {rule.id for rule in rules}))
        problems += [f"{where}: special.{number}: {fault}" for fault in faults]
        if not faults:
            rules.append(SpecialRule(**{**row, "text": " ".join(row["text"].split())}))
    if problems:
        raise UserError.join(problems)
    return tuple(rules)


def _faults(row: Any, tools: Collection[str], taken: Collection[str]) -> Iterator[str]:
    if not isinstance(row, dict):
        yield "must be an object with 'id', 'kind' and 'text'"
        return
    for key in ("id", "kind", "text"):
        if not isinstance(row.get(key), str) or not row[key].strip():
            yield f"{key!r} must be text; add it"
            return
    if row["id"] in taken:
        yield f"id {row['id']!r} is given twice; rename one"
    if row["kind"] not in get_args(Kind):
        yield f"unknown kind {row['kind']!r}; {hint(row['kind'], get_args(Kind))}"
        return
    wanted = _KEYS[row["kind"]]
    for key in row:
        if key not in ("id", "kind", "text", *wanted):
            yield f"unknown key {key!r}; {hint(key, wanted)}"
    for key in wanted:
        if key not in row:
            yield f"needs the key {key!r}; add it"
        elif key == "values":
            yield from _value_faults(row[key])
        elif not isinstance(row[key], str):
            yield f"{key}: must be a name, found {shown(row[key])}"
        elif key in ("tool", "first", "use") and row[key] not in tools:
            yield f"{key}: unknown tool {row[key]!r}; {hint(row[key], tools)}"
        elif key == "when" and row[key] not in MARKS:
            yield f"when: unknown mark {row[key]!r}; {hint(row[key], MARKS)}"


def _value_faults(values: Any) -> Iterator[str]:
    if not isinstance(values, dict) or set(values) != {*QUESTIONS}:
        yield f"values: must give a value for each of {', '.join(QUESTIONS)}"
        return
    for name, value in values.items():
        if not isinstance(value, str | int | float):
            yield f"values.{name}: must be a text, a number, true or false; found {shown(value)}"
