"""CSV and TSV: the delimiter is found from the columns that are looked for."""

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from datasets_builders.document.findings import Findings

NAMES = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}
"""Delimiters that are told apart, as messages call them."""
LONGEST_FIELD = 1 << 30
"""Characters; a field may hold a whole picture as a data URI."""
_LOOKED_AT = 50


@dataclass(frozen=True)
class Delimited:
    """Header and rows as (line where the row begins, values by column)."""

    delimiter: str
    header: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_delimited(
    name: str, text: str, delimiter: str | None, wanted: Collection[str], found: Findings
) -> Delimited | None:
    """Rows of a CSV text (RFC 4180: fields that hold the delimiter stand in double quotes).

    Args:
        name: the file, for messages.
        delimiter: what separates fields; None finds it.
        wanted: names of columns that the header should hold; they tell a wrong delimiter.
        found: gets problems: a wrong delimiter, rows of another number of fields, open quotes,
            columns of one name.
    """
    best = _best(text, wanted)
    used = delimiter or best
    before = len(found.problems)
    records = list(_records(name, text, used, found))
    if not records:
        if len(found.problems) == before:
            found.add(f"{name}:1", "is empty; the first line must name the columns")
        return None
    (_, header), body = records[0], records[1:]
    header = [column.strip() for column in header]
    if delimiter and best != delimiter and _fit(text, best, wanted) > _fit(text, used, wanted):
        found.add(
            f"{name}:1",
            f"read with {NAMES.get(used, repr(used))} between fields, the header is "
            f"{', '.join(map(repr, header[:4]))}; it looks like {NAMES[best]}: set delimiter: "
            f"{best!r} or leave delimiter out",
        )
        return None
    for column in sorted({c for c in header if header.count(c) > 1}):
        found.add(f"{name}:1", f"column {column!r} stands twice in the header; rename one")
    rows = []
    for line, record in body:
        if len(record) != len(header):
            found.add(
                f"{name}:{line}",
                f"{_fields(len(record))} where the header has {len(header)} (read with "
                f"{NAMES.get(used, repr(used))} between fields); put a field that holds "
                f"{NAMES.get(used, repr(used))} into double quotes, or set delimiter",
            )
            continue
        rows.append((line, dict(zip(header, record, strict=True))))
    return Delimited(used, tuple(header), tuple(rows))


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count} fields"


def _records(
    name: str, text: str, delimiter: str, found: Findings | None
) -> Iterator[tuple[int, list[str]]]:
    """Records that are not blank, each with the line where it begins."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if found is not None:
                found.add(
                    f"{name}:{line}",
                    f"not CSV from here on ({error}); close the double quote, and double those "
                    "inside a field",
                )
            return
        if any(field.strip() for field in record):
            yield line, record
        line = reader.line_num + 1


def _best(text: str, wanted: Collection[str]) -> str:
    return max(NAMES, key=lambda delimiter: _fit(text, delimiter, wanted))


def _fit(text: str, delimiter: str, wanted: Collection[str]) -> tuple[int, float, int]:
    """How well a delimiter does: columns that are looked for, even rows, columns."""
    records = []
    for _, record in _records("", text, delimiter, None):
        records.append(record)
        if len(records) == _LOOKED_AT:
            break
    if not records:
        return 0, 0.0, 0
    header = {column.strip() for column in records[0]}
    width = len(records[0])
    even = sum(len(record) == width for record in records) / len(records)
    return len(header & set(wanted)), even if width > 1 else 0.0, width
