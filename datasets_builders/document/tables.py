"""Tables of examples: JSONL, JSON, CSV, TSV, Parquet, a folder of `datasets`, or a hub id."""

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_builders.document.arrow import from_file, from_folder, from_hub
from datasets_builders.document.delimited import read_delimited
from datasets_builders.document.findings import Findings
from datasets_builders.document.text_file import read_text

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
"""`owner/name`, with `@revision` if wished."""
FORMS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Row:
    """One row: `where` is "file:row" (a line of a text file, else a count from 1)."""

    where: str
    record: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Rows in their order; `folder` is what paths of pictures are relative to, if anything.

    `split` is the split of rows by index where the source itself has splits. `note` says how the
    table was read, for messages about its columns.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[Row]
    folder: Path | None = None
    splits: Mapping[int, str] = field(default_factory=dict)
    note: str = ""


def is_hub_id(source: str) -> bool:
    """Whether a source names a data set of the hub: no file of this name, and not like one."""
    like_file = source.lower().endswith(FORMS)
    return bool(HUB_ID.fullmatch(source)) and not like_file and not Path(source).exists()


def read_table(
    source: str, delimiter: str | None, wanted: Collection[str], found: Findings
) -> Table | None:
    """All rows of a source, or None where it does not read (`found` says why).

    Args:
        source: a file (told by its suffix), a folder saved by `datasets`, or a hub id.
        delimiter: of a CSV file; None finds it.
        wanted: columns that are looked for.
        found: gets the problems.
    """
    if is_hub_id(source):
        return _of_arrow(source, None, from_hub(source, found))
    file = Path(source)
    if file.is_dir():
        return _of_arrow(source, file, from_folder(file, found))
    if not file.is_file():
        found.add(source, "no such file or folder; check the path")
        return None
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _of_arrow(source, file.parent, from_file(file, found))
    if suffix not in FORMS:
        found.add(source, f"unknown kind of table; known: {', '.join(FORMS)}, a folder or hub id")
        return None
    text = read_text(file, found)
    if text is None:
        return None
    if suffix in (".csv", ".tsv"):
        given = delimiter or ("\t" if suffix == ".tsv" else None)
        table = read_delimited(source, text, given, wanted, found)
        if table is None:
            return None
        rows = [Row(f"{source}:{line}", record) for line, record in table.rows]
        how = {"\t": "tabs"}.get(table.delimiter, repr(table.delimiter))
        note = f"read with {how} between fields"
        return Table(source, table.header, rows, file.parent, note=note)
    read = _json_lines if suffix in (".jsonl", ".ndjson") else _json_array
    return _of_records(source, file.parent, read(source, text, found))


def _of_records(name: str, folder: Path, rows: list[Row] | None) -> Table | None:
    if rows is None:
        return None
    columns = tuple(dict.fromkeys(key for row in rows for key in row.record))
    return Table(name, columns, rows, folder)


def _json_lines(name: str, text: str, found: Findings) -> list[Row] | None:
    rows = []
    before = len(found.problems)
    # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            record = _parse(f"{name}:{number}", line, found, "one JSON object a line")
            if record is not None:
                rows.append(Row(f"{name}:{number}", record))
    return rows if rows or len(found.problems) == before else None


def _parse(where: str, line: str, found: Findings, form: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        found.add(where, f"not JSON ({error}); write {form}")
        return None
    if not isinstance(record, dict):
        found.add(where, f"must be a JSON object, found {type(record).__name__}; write {form}")
        return None
    return record


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands there twice")
    return record


def _json_array(name: str, text: str, found: Findings) -> list[Row] | None:
    try:
        content = json.loads(text, object_pairs_hook=_distinct)
    except (ValueError, RecursionError) as error:
        several = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        cure = "name a file of one object a line .jsonl" if several else "write a list of objects"
        found.add(name, f"not JSON ({error}); {cure}")
        return None
    if not isinstance(content, list):
        found.add(name, f"must be a list of objects, found {type(content).__name__}; put it in []")
        return None
    rows = []
    for number, record in enumerate(content, 1):
        where = f"{name}:{number}"
        if isinstance(record, dict):
            rows.append(Row(where, record))
        else:
            found.add(where, f"must be a JSON object, found {type(record).__name__}; correct it")
    return rows


def _of_arrow(name: str, folder: Path | None, parts: "Mapping[str, Any] | None") -> Table | None:
    if parts is None:
        return None
    rows: list[Row] = []
    splits: dict[int, str] = {}
    columns: dict[str, None] = {}
    record: Callable[[int], dict[str, Any]]
    for split, part in parts.items():
        columns |= dict.fromkeys(part.columns)
        for number in range(len(part)):
            if split:
                splits[len(rows)] = split
            place = f"{name}[{split}]:{number + 1}" if split else f"{name}:{number + 1}"
            record = part.record
            rows.append(Row(place, record(number)))
    return Table(name, tuple(columns), rows, folder, splits)
