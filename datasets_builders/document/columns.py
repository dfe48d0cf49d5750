"""Which column of a table holds which field of an example."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets_builders.document.findings import Findings
from datasets_builders.hints import hint

FIELDS = ("id", "images", "query", "answer", "policy", "rationale", "rules", "split")
ALIKE = {
    "images": ("image", "img", "picture", "pictures", "photo", "file_name", "image_path", "path"),
    "query": ("question", "prompt", "request", "instruction", "text", "input"),
    "answer": ("label", "labels", "target", "gold", "response", "output", "category", "class"),
    "rationale": ("reasoning", "explanation", "cot", "thought"),
}
"""Names that such columns often have: they are asked about, never taken without being mapped."""


@dataclass(frozen=True)
class Columns:
    """Column of each field that the table has; `facts` maps names of facts to columns.

    `chat`: requests and answers come as turns, in `messages` or in `prompt` and `completion`.
    """

    fields: Mapping[str, str]
    facts: Mapping[str, str]
    facts_object: str | None
    chat: bool
    unused: tuple[str, ...] = ()

    def get(self, record: Mapping[str, Any], field: str) -> Any:
        """The value of a field, None where the table or the row has none."""
        column = self.fields.get(field)
        return None if column is None else record.get(column)


def spec_problems(spec: Any) -> list[str]:
    """What is wrong with the argument `columns`."""
    if not isinstance(spec, Mapping):
        return [f"columns: must map our fields to columns of the table, found {spec!r}"]
    problems = []
    known = (*FIELDS, "facts")
    for field, column in spec.items():
        if field not in known:
            problems.append(f"columns.{field}: unknown field; {hint(field, known)}")
        elif field != "facts" and not isinstance(column, str | None):
            problems.append(f"columns.{field}: must be a column's name or null, found {column!r}")
    facts = spec.get("facts")
    names = list(facts.values()) if isinstance(facts, Mapping) else facts
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not (facts is None or isinstance(facts, str) or listed):
        problems.append(
            "columns.facts: must be a column that holds objects, a list of columns, or a mapping "
            f"of attributes to columns; found {facts!r}"
        )
    return problems


def wanted(spec: Mapping[str, Any]) -> set[str]:
    """Columns that a table should have."""
    names = {spec.get(field, field) for field in (*FIELDS, "messages")}
    return {name for name in names if name} | set(_facts(spec).values())


def choose(
    name: str, have: Sequence[str], spec: Mapping[str, Any], query: bool, note: str, found: Findings
) -> Columns:
    """The columns of a table.

    Args:
        name: the table, for messages.
        have: its columns.
        spec: the argument `columns`.
        query: whether a request is given for rows that hold none.
        note: how the table was read.
        found: gets problems: a column that is missing, with the likeliest one that is there.
    """
    read = f" ({note})" if note else ""
    taken = {column for field, column in spec.items() if isinstance(column, str)}
    taken |= set(_facts(spec).values())
    turns = "messages" in have or {"prompt", "completion"} <= set(have)
    plain = "answer" in spec or ("answer" in have and "messages" not in have)
    chat = turns and not plain
    fields: dict[str, str] = {}
    for field in FIELDS:
        column = spec.get(field, field)
        if column is None or (chat and field in ("query", "answer", "rationale")):
            continue
        if column in have:
            fields[field] = column
            continue
        needed = field == "answer" or (field == "query" and not query)
        rest = [c for c in have if c not in taken]
        alike = [c for c in rest if c.lower() in ALIKE.get(field, ())]
        if field in spec:
            found.add(name, f"no column {column!r}, mapped to {field}{read}; {hint(column, have)}")
        elif needed or (field == "images" and alike):
            cure = f"set columns: {{{field}: {alike[0]}}}" if alike else hint(field, rest)
            if field == "images":
                cure += ", or {images: null} for rows without pictures"
            elif field == "query" and not alike:
                cure += " (or give the argument query, one request for all rows)"
            found.add(name, f"no column {field!r}{read}; {cure}")
    facts, facts_object = _facts(spec), None
    for fact, column in facts.items():
        if column not in have:
            found.add(
                name, f"no column {column!r}, mapped to facts.{fact}{read}; {hint(column, have)}"
            )
    named = spec.get("facts", "facts")
    if isinstance(named, str):
        if named in have:
            facts_object = named
        elif "facts" in spec:
            found.add(name, f"no column {named!r}, mapped to facts{read}; {hint(named, have)}")
    used = {*fields.values(), *facts.values(), facts_object}
    if chat:
        used |= {"messages", "prompt", "completion"}
    return Columns(fields, facts, facts_object, chat, tuple(c for c in have if c not in used))


def _facts(spec: Mapping[str, Any]) -> dict[str, str]:
    facts = spec.get("facts")
    if isinstance(facts, Mapping):
        return {str(fact): str(column) for fact, column in facts.items()}
    if isinstance(facts, list | tuple):
        return {str(column): str(column) for column in facts}
    return {}
