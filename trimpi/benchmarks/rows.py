"""Checks that all suites share: columns, ids, letters, pictures; all faults at once."""

import ast
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from PIL import Image

from trimpi.benchmarks.source import Table, as_mapping
from trimpi.errors import UserError, did_you_mean
from trimpi.picture_file import PICTURE_ERRORS

SHOWN = 20
"""Faults that are listed; the rest are counted."""


class Faults:
    """Faults of rows, gathered and raised together."""

    def __init__(self, suite: str) -> None:
        self.lines: list[str] = []
        self._suite = suite

    def add(self, place: str, fault: str) -> None:
        """Note one."""
        self.lines.append(f"{self._suite}: {place}: {fault}")

    def stop(self) -> None:
        """Raise all that were noted.

        Raises:
            UserError: there are some.
        """
        if not self.lines:
            return
        more = len(self.lines) - SHOWN
        rest = [f"{self._suite}: and {more} more faults like these"] if more > 0 else []
        raise UserError.join(self.lines[:SHOWN] + rest)


def check_columns(suite: str, table: Table, wanted: Sequence[str]) -> None:
    """Refuse a table that lacks a column of the official schema, or all rows.

    Raises:
        UserError: one line a column.
    """
    if not len(table):
        raise UserError(f"{suite}: the source has no rows; give another")
    where = table.place(0)
    missing = [name for name in wanted if name not in table.columns]
    if missing:
        raise UserError.join(
            [
                f"{suite}: {where}: no column {name!r} of the official schema; "
                f"{did_you_mean(name, table.columns)}"
                for name in missing
            ]
        )


def check_ids(table: Table, ids: Sequence[str], faults: Faults) -> None:
    """Note rows whose id was there before: their answers could not be told apart."""
    seen: dict[str, int] = {}
    for row, name in enumerate(ids):
        if name in seen:
            faults.add(table.place(row), f"id {name!r} again, first at {table.place(seen[name])}")
        seen.setdefault(name, row)


def read_options(value: Any) -> tuple[str, ...] | None:
    """Options as texts: a list, or a list written as text (MMMU-Pro); None where it is neither."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(value, list) or not value:
        return None
    # MMMU-Pro's validation_Accounting_29 has its options in a list of their own.
    if len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not value or not all(isinstance(option, str | int | float) for option in value):
        return None
    return tuple(map(str, value))


def answer_fault(answer: Any, options: Sequence[str]) -> str:
    """What is wrong with a gold letter, or ""."""
    if len(options) > len(ascii_uppercase):
        return f"{len(options)} options, more than letters; drop the row"
    letters = ascii_uppercase[: len(options)]
    if isinstance(answer, str) and len(answer) == 1 and answer in letters:
        return ""
    return f"answer {answer!r} is no letter of its {len(options)} options (A-{letters[-1]})"


def save_picture(value: Any, folder: Path) -> tuple[str | None, str]:
    """Path of a stored picture, and what is wrong with it ("" where nothing is).

    Bytes are written to the folder under their digest; a picture of a local file stays there.
    """
    stored = as_mapping(value)
    content, path = stored.get("bytes"), stored.get("path")
    if content is None and not path:
        return None, "no image"
    try:
        if content is None:
            with Image.open(str(path)) as picture:
                picture.load()
            return str(Path(str(path)).absolute()), ""
        with Image.open(io.BytesIO(content)) as picture:
            picture.load()
            kind = (picture.format or "png").lower()
    except PICTURE_ERRORS as error:
        return None, f"not a whole picture ({' '.join(str(error).split())[:120]})"
    file = folder / f"{hashlib.sha256(content).hexdigest()[:24]}.{kind}"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(".part")
        part.write_bytes(content)
        part.replace(file)
    return str(file.absolute()), ""
