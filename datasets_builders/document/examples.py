"""Rows of tables -> labelled examples, every fault of every row noted."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from datasets_builders.document.chat import read_chat
from datasets_builders.document.columns import Columns, choose, wanted
from datasets_builders.document.findings import Findings, some
from datasets_builders.document.pictures import Picture, read_pictures
from datasets_builders.document.tables import Row, Table, read_table
from datasets_builders.hints import hint
from trimpi.policy import Policy
from trimpi.prompt import form_fault
from trimpi.sample import Sample

SPLIT = re.compile(r"[A-Za-z][\w-]{0,63}")
HALF = re.compile("[\ud800-\udfff]")
ID = re.compile(r"[\w@:+=~#-][\w@:+=~#. -]{0,127}")
"""Ids name files of pictures too."""


@dataclass(frozen=True)
class Labelled:
    """One row, read: `where` is "file:row". `split` None leaves it to the toolkit to deal it."""

    where: str
    id: str
    query: str
    answer: str
    policy: str
    pictures: tuple[Picture, ...] = ()
    rationale: str | None = None
    rules: tuple[str, ...] = ()
    split: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reading:
    """How tables are read: the arguments `columns`, `delimiter` and `query`, and the policies.

    Without policies, where their files do not read, rows are read all the same for what is wrong
    with them; what they say of policies is not judged, and conversations are left out.
    """

    columns: Mapping[str, Any]
    policies: Mapping[str, Policy]
    delimiter: str | None = None
    query: str | None = None

    def read(self, source: str, split: str | None, found: Findings) -> list[Labelled]:
        """All examples of one source; `split` is given to rows that name none."""
        names = wanted(self.columns)
        table = read_table(source, self.delimiter, names, found)
        if table is None:
            return []
        if not table.rows:
            if not any(line.startswith(f"{source}:") for line in found.problems):
                found.add(source, "has no rows; put labelled examples there")
            return []
        before = len(found.problems)
        given = self.query is not None
        columns = choose(table.name, table.columns, self.columns, given, table.note, found)
        if len(found.problems) > before:
            return []
        if columns.unused:
            left = ", ".join(columns.unused)
            found.warn(table.name, f"columns that are not used: {left}; map them under columns")
        examples = []
        for index, row in enumerate(table.rows):
            own = table.splits.get(index, split)
            example = self._example(table, index, row, columns, own, found)
            if example is not None:
                examples.append(example)
        bare = [example.where for example in examples if not example.pictures]
        if "images" in columns.fields and 0 < len(bare) < len(examples):
            found.warn(table.name, f"rows without a picture, where others have one: {some(bare)}")
        if found.moved:
            words = "pictures inside of a text stand before it"
            found.warn(table.name, f"{words}: {some(found.moved)}")
            found.moved.clear()
        return examples

    def _example(
        self,
        table: Table,
        index: int,
        row: Row,
        columns: Columns,
        split: str | None,
        found: Findings,
    ) -> Labelled | None:
        before = len(found.problems)
        shown = {name: columns.fields.get(name, name) for name in ("images", "query", "answer")}

        def fault(column: str, text: str) -> None:
            found.add(row.where, f"{column}: {text}")

        pictures: list[Picture] = []
        try:
            pictures = read_pictures(columns.get(row.record, "images"), table.folder)
        except ValueError as error:
            fault(shown["images"], str(error))
        for name in ("query", "rationale"):
            value = columns.get(row.record, name)
            if not isinstance(value, str) and _text(value):
                kind = type(value).__name__
                fault(columns.fields.get(name, name), f"must be a text, found {kind}; correct it")
        query, answer = _text(columns.get(row.record, "query")), ""
        rationale = _text(columns.get(row.record, "rationale")) or None
        policy = self._policy(_text(columns.get(row.record, "policy")), columns, fault)
        if columns.chat and not self.policies:
            return None
        if columns.chat:
            within = (
                {policy: self.policies[policy]}
                if policy and "policy" in columns.fields
                else (self.policies)
            )
            try:
                chat = read_chat(row.record, pictures, within)
                pictures = [p for v in chat.images for p in read_pictures(v, table.folder)]
                query, answer, rationale = chat.query, chat.answer, chat.rationale
                policy = policy or chat.policy
                if chat.moved:
                    found.moved.append(row.where)
            except ValueError as error:
                fault("messages" if "messages" in table.columns else "completion", str(error))
                return None
        else:
            answer = _text(columns.get(row.record, "answer"))
        if policy is None and len(found.problems) == before:
            known = ", ".join(self.policies)
            fault("policy", f"names none of the policies ({known}); add a column 'policy'")
        if not query and self.query is not None and policy is not None:
            name = self.policies[policy].name if policy else policy
            query = self.query.replace("{policy}", name)
        for name, value in (("query", query), ("answer", answer)):
            if not value:
                fault(shown[name], "is empty; fill it in, or remove the row")
        facts = self._facts(row.record, columns, fault)
        named = _text(columns.get(row.record, "split")) or split
        if named and not SPLIT.fullmatch(named):
            fault(columns.fields.get("split", "split"), f"{named!r} is no name of a split")
        rules: tuple[str, ...] = ()
        try:
            rules = tuple(_rules(columns.get(row.record, "rules")))
        except TypeError:
            kind = type(columns.get(row.record, "rules")).__name__
            fault(columns.fields["rules"], f"must be a list of ids, or R1, R2; found {kind}")
        if policy:
            for text in _unknown_rules(self.policies[policy], rules):
                fault(columns.fields["rules"], text)
        id = _text(columns.get(row.record, "id")) or f"{index + 1:06d}"
        if not ID.fullmatch(id):
            fault(
                columns.fields["id"],
                f"{id[:40]!r} must be up to 128 letters, digits, spaces and -_.:@+=~#; change it, "
                "or set columns: {id: null} to have rows numbered",
            )
        held = {"query": query, "answer": answer, "rationale": rationale or ""}
        held["facts"] = json.dumps(facts, ensure_ascii=False, default=str)
        for name, text in held.items():
            if HALF.search(text):
                fault(name, "holds half of a surrogate pair, which is no character; correct it")
        if len(found.problems) == before:
            sample = Sample(id, (), query, policy, answer, rationale, {})
            if wrong := form_fault(sample):
                fault(shown["answer"], wrong)
        if len(found.problems) > before or policy is None:
            return None
        return Labelled(
            row.where, id, query, answer, policy, tuple(pictures), rationale, rules, named, facts
        )

    def _policy(self, named: str, columns: Columns, fault: Any) -> str | None:
        """Id of the policy of a row: by its id or its name; the only one where none is named.

        None where there is none, "" where no policy could be read.
        """
        if not self.policies:
            return ""
        if not named:
            return next(iter(self.policies)) if len(self.policies) == 1 else None
        if named in self.policies:
            return named
        names = {policy.name: id for id, policy in self.policies.items()}
        if named in names:
            return names[named]
        fault(columns.fields["policy"], f"unknown policy {named!r}; {hint(named, self.policies)}")
        return None

    def _facts(self, record: Mapping[str, Any], columns: Columns, fault: Any) -> dict[str, Any]:
        facts: dict[str, Any] = {}
        if columns.facts_object is not None:
            held = record.get(columns.facts_object)
            if isinstance(held, str) and held.strip():
                try:
                    held = json.loads(held)
                except ValueError as error:
                    fault(columns.facts_object, f"not JSON ({error}); write an object")
                    return {}
            if isinstance(held, Mapping):
                facts |= {str(k): v for k, v in held.items() if v is not None}
            elif held not in (None, ""):
                fault(columns.facts_object, f"must be an object, found {type(held).__name__}")
        values = {fact: record.get(column) for fact, column in columns.facts.items()}
        return facts | {fact: value for fact, value in values.items() if value not in (None, "")}


def _text(value: Any) -> str:
    """A value as text: objects and lists as JSON, whole floats as whole numbers."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bool | int | float | dict | list):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _rules(value: Any) -> list[str]:
    """Ids of rules, given as a list, as JSON or divided by commas."""
    if isinstance(value, str):
        if value.strip().startswith("["):
            try:
                return _rules(json.loads(value))
            except ValueError:
                pass  # told as an unknown rule
        value = value.replace(";", ",").split(",")
    return [str(item).strip() for item in value or () if str(item).strip()]


def _unknown_rules(policy: Policy, rules: tuple[str, ...]) -> list[str]:
    known = policy.metadata.get("conditions", {})
    return [
        f"{rule!r} is no rule of {policy.name}; {hint(rule, known)}"
        for rule in rules
        if rule not in known
    ]


def check_ids(examples: list[Labelled], found: Findings) -> None:
    """Ids that stand twice in one split are a problem."""
    seen: dict[tuple[str | None, str], str] = {}
    for example in examples:
        key = (example.split, example.id)
        if key in seen:
            found.add(
                example.where, f"id {example.id!r} stands in {seen[key]} too; ids must be unique"
            )
        seen.setdefault(key, example.where)
