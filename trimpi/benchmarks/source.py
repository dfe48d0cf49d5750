"""Rows of a benchmark: a hub id, Parquet files, or JSONL in the official schema.

Pictures stay encoded until they are asked for, one at a time.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from trimpi.errors import UserError

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(@[\w./-]+)?")
FILES = (".parquet", ".jsonl", ".json")


class Table(Protocol):
    """Rows with columns. `column` decodes no picture; `cell` gives one value."""

    columns: tuple[str, ...]

    def __len__(self) -> int: ...

    def column(self, name: str) -> list[Any]: ...

    def cell(self, row: int, name: str) -> Any: ...

    def place(self, row: int) -> str: ...


@dataclass(frozen=True)
class Source:
    """Where rows come from: `name` as the user gave it, `config` of a hub data set."""

    name: str
    config: str | None = None

    @property
    def local(self) -> bool:
        """Whether the rows are files on this machine, or nothing at all, and not of a hub."""
        path = Path(self.name).expanduser()
        return path.exists() or path.suffix in FILES or not HUB_ID.fullmatch(self.name)

    def table(self, split: str) -> Table:
        """The rows of a split.

        Of a file, its rows are those of any split. Of a folder, the files whose name or folder is
        the split's: `test.jsonl`, `data/test-00000-of-00001.parquet`, `vision/test-*.parquet`.

        Raises:
            UserError: no such file, folder, split or data set, or it is damaged.
        """
        path = Path(self.name).expanduser()
        if path.is_file():
            return _file(path)
        if path.is_dir():
            return _joined(_split_files(path, split, self.config))
        if HUB_ID.fullmatch(self.name) and path.suffix not in FILES:
            return _hub(self.name, self.config, split)
        raise UserError(f"{path}: no such file or folder, and no hub id; correct the source")


class JsonTable:
    """Rows of a JSONL file, or of a JSON file that holds a list of rows."""

    def __init__(self, file: Path) -> None:
        self._file, self._rows, problems = file, list[dict[str, Any]](), list[str]()
        self._lines: list[int] = []
        for number, row in _json_rows(file):
            if isinstance(row, dict):
                self._rows.append(row)
                self._lines.append(number)
            else:
                problems.append(f"{file}:{number}: not a JSON object; correct the line")
        if problems:
            raise UserError.join(problems[:20])
        self.columns = tuple(dict.fromkeys(name for row in self._rows for name in row))

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self._rows]

    def cell(self, row: int, name: str) -> Any:
        """A path of a picture is taken beside the file."""
        value = self._rows[row].get(name)
        if isinstance(value, str) and name.startswith("image"):
            return {"bytes": None, "path": str(self._file.parent / value)}
        return value

    def place(self, row: int) -> str:
        return f"{self._file}:{self._lines[row]}"


class ArrowTable:
    """Rows of Parquet files or of a hub data set; rows count from 0, as `datasets` does."""

    def __init__(self, name: str, table: Any) -> None:
        self._name, self._table = name, table
        self.columns = tuple(table.column_names)

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def column(self, name: str) -> list[Any]:
        return list(self._table.column(name).to_pylist())

    def cell(self, row: int, name: str) -> Any:
        return self._table.column(name)[row].as_py()

    def place(self, row: int) -> str:
        return f"{self._name}: row {row}"


class Joined:
    """Tables of one split, one after the other."""

    def __init__(self, tables: Sequence[Table]) -> None:
        self._tables = tables
        self.columns = tuple(c for c in tables[0].columns if all(c in t.columns for t in tables))

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def column(self, name: str) -> list[Any]:
        return [value for table in self._tables for value in table.column(name)]

    def cell(self, row: int, name: str) -> Any:
        table, inner = self._find(row)
        return table.cell(inner, name)

    def place(self, row: int) -> str:
        table, inner = self._find(row)
        return table.place(inner)

    def _find(self, row: int) -> tuple[Table, int]:
        for table in self._tables:
            if row < len(table):
                return table, row
            row -= len(table)
        raise IndexError(row)


def _joined(files: Sequence[Path]) -> Table:
    return _file(files[0]) if len(files) == 1 else Joined([_file(file) for file in files])


def _file(path: Path) -> Table:
    if path.suffix == ".parquet":
        return ArrowTable(str(path), _parquet(path))
    if path.suffix in (".jsonl", ".json"):
        return JsonTable(path)
    raise UserError(f"{path}: must end in {', '.join(FILES)}; give such a file")


def _parquet(path: Path) -> Any:
    import pyarrow.parquet as parquet

    try:
        return parquet.read_table(path, memory_map=True)
    except Exception as error:  # whatever pyarrow raises for damaged files
        raise UserError(f"{path}: not a whole Parquet file ({_short(error)}); restore it") from None


def _json_rows(file: Path) -> list[tuple[int, Any]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot be read as UTF-8 ({_short(error)}); restore it") from None
    if file.suffix == ".json":
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{file}: not JSON ({_short(error)}); restore it") from None
        if not isinstance(found, list):
            raise UserError(f"{file}: not a list of rows; write one, or JSONL")
        return list(enumerate(found, 1))
    rows: list[tuple[int, Any]] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except (ValueError, RecursionError):
                rows.append((number, None))
    return rows


def _split_files(folder: Path, split: str, config: str | None) -> list[Path]:
    named = re.compile(rf"{re.escape(split)}([-_.].*)?\.(parquet|jsonl|json)")
    files = sorted(f for f in folder.rglob("*") if f.is_file() and named.fullmatch(f.name))
    inner = [f for f in files if config in f.relative_to(folder).parts]
    if files := inner or [f for f in files if f.parent in (folder, folder / "data")]:
        return files
    where = f" (also not below {config!r})" if config else ""
    raise UserError(f"{folder}: no {split}*.parquet or {split}*.jsonl in it{where}; give the file")


def _hub(name: str, config: str | None, split: str) -> Table:
    from datasets import load_dataset

    repository, _, revision = name.partition("@")
    try:
        data = load_dataset(repository, config, split=split, revision=revision or None)
    except Exception as error:  # no network, no such set, no right to it
        raise UserError(
            f"{name}: is no file here, and the hub does not give its split {split!r} "
            f"({_short(error)}); check name and network, or give a local file"
        ) from None
    return ArrowTable(f"{name}/{split}", data.data.table)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "..."


def as_mapping(value: Any) -> Mapping[str, Any]:
    """A stored picture as `{"bytes", "path"}`; empty for none."""
    return value if isinstance(value, Mapping) else {}
