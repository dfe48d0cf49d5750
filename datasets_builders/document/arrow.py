"""Tables that `datasets` reads. Pictures stay encoded and are read one at a time."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets_builders.document.findings import Findings


@dataclass(frozen=True)
class Stored:
    """A value of a picture column, read from its data set when it is asked for."""

    table: Any
    row: int
    column: str

    def read(self) -> Any:
        """`{"bytes", "path"}`, a list of such, or None."""
        return self.table[self.row : self.row + 1].column(self.column)[0].as_py()


class Part:
    """One split of a data set: labels as their names, pictures as `Stored`."""

    def __init__(self, dataset: Any) -> None:
        from datasets import ClassLabel

        features = dataset.features
        self.columns = tuple(dataset.column_names)
        self._table = dataset.with_format("arrow")  # as stored: decodes and caches nothing
        self._pictures = [name for name in self.columns if _holds_pictures(features[name])]
        self._plain = [name for name in self.columns if name not in self._pictures]
        self._labels = {
            name: feature for name, feature in features.items() if isinstance(feature, ClassLabel)
        }

    def __len__(self) -> int:
        return len(self._table)

    def record(self, row: int) -> dict[str, Any]:
        """One row by column."""
        stored = self._table[row : row + 1].select(self._plain)
        record = dict(stored.to_pylist()[0]) if self._plain else {}
        for name, feature in self._labels.items():
            value = record[name]
            known = value is not None and value >= 0  # -1 is "no label"
            record[name] = feature.int2str(value) if known else None
        return record | {name: Stored(self._table, row, name) for name in self._pictures}


def _holds_pictures(feature: Any) -> bool:
    from datasets import Image, List

    inner = feature.feature if isinstance(feature, List) else feature
    return isinstance(inner, Image)


def from_folder(folder: Path, found: Findings) -> Mapping[str, Part] | None:
    """A folder that `datasets.save_to_disk` wrote, by split ("" for a set without splits)."""
    if not any((folder / name).is_file() for name in ("state.json", "dataset_dict.json")):
        found.add(
            str(folder),
            "no data set saved by datasets' save_to_disk (no state.json or dataset_dict.json); "
            "name the file of examples in it",
        )
        return None
    from datasets import load_from_disk

    try:
        return _parts(load_from_disk(str(folder)))
    except Exception as error:  # whatever pyarrow and datasets raise for damaged files
        found.add(str(folder), f"does not load ({_short(error)}); save it again")
        return None


def from_file(file: Path, found: Findings) -> Mapping[str, Part] | None:
    """A Parquet file; pictures are told by the features that `datasets` wrote into it."""
    from datasets import Dataset

    try:
        import pyarrow.parquet as parquet

        return {"": Part(Dataset(parquet.read_table(file)))}
    except Exception as error:  # whatever pyarrow and datasets raise for damaged files
        found.add(str(file), f"not a whole Parquet file ({_short(error)}); write it again")
        return None


def from_hub(name: str, found: Findings) -> Mapping[str, Part] | None:
    """A data set of the hub, by split; `owner/name@revision` pins it."""
    from datasets import load_dataset

    repository, _, revision = name.partition("@")
    try:
        return _parts(load_dataset(repository, revision=revision or None))
    except Exception as error:  # no network, no such set, no right to it, several configurations
        found.add(
            name,
            f"is no file here, and the hub does not give a data set of this name "
            f"({_short(error)}); check the path, or the name and the network",
        )
        return None


def _parts(loaded: Any) -> dict[str, Part]:
    if isinstance(loaded, Mapping):
        return {str(split): Part(dataset) for split, dataset in loaded.items()}
    return {"": Part(loaded)}


def _short(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "..."
