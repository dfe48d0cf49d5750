"""Whether a recipe's data are there, or can be built, and how many rows they have."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trimpi.data_step import other_data
from trimpi.errors import UserError
from trimpi.findings import Findings
from trimpi.recipe import CptConfig, DataConfig, TrainingConfig
from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import bind_problems, resolve_callable
from trimpi.sample import DataFolder


def check_data(
    config: DataConfig, key: str, folder: Path, found: Findings, overwrite: bool
) -> DataFolder | None:
    """Note the rows per split; returns the folder where it exists already."""
    built = config.folder is None and (folder / "card.json").is_file()
    if built and (fault := other_data(config, folder, key)):
        if not overwrite:
            found.problems.append(fault)
        built = False  # what would be built is checked all the same
    if config.folder is not None or built:
        data = DataFolder(Path(config.folder) if config.folder else folder)
        if not data.root.is_dir():
            found.problems.append(
                f"{key}.folder: no such folder {data.root}; correct the path, or build it"
            )
            return None
        with found.noting():
            _ = data.card
            found.rows[key] = {split: _count_lines(data, split) for split in data.splits}
            return data
        return None
    with found.noting():
        assert config.builder is not None
        build = resolve_callable(config.builder, f"{key}.builder")
        given = ("out", "seed", "progress")
        if problems := bind_problems(build, config.args, f"{key}.args", given):
            raise UserError.join(problems)
        planned = planned_build(config, key)
        if planned is None:
            found.unchecked.append(f"{key}: {config.builder} has no plan(), so rows are not known")
        else:
            found.rows[key] = dict(planned["splits"])
            found.notes += [f"{key}: {note}" for note in planned.get("notes", ())]
    return None


def built_data(config: DataConfig | None, folder: Path) -> DataFolder | None:
    """The data of a section where they are there already."""
    if config is None:
        return None
    folder = Path(config.folder) if config.folder else folder
    return DataFolder(folder) if (folder / "card.json").is_file() else None


def planned_build(config: DataConfig, key: str) -> dict[str, Any] | None:
    """What the builder's module says that it would build: `plan(seed=..., **args)`."""
    assert config.builder is not None
    module = config.builder.partition(":")[0]
    try:
        plan = resolve_callable(f"{module}:plan", key)
    except UserError:
        return None
    try:
        return dict(plan(seed=config.seed, **config.args))
    except UserError as error:
        raise UserError.join([f"{key}.args: {line}" for line in str(error).splitlines()]) from None


def rows_of(splits: Mapping[str, int] | None, split: str, key: str) -> int | None:
    """Rows of a split; None where the data are not known.

    Raises:
        UserError: no such split, or an empty one.
    """
    if splits is None:
        return None
    if split not in splits:
        why = ""
        if split == "train_cot" and "train" in splits:
            why = " (of rows with rationales)"
        known = did_you_mean(split, splits)
        raise UserError(f"{key}: the data have no split {split!r}{why}; {known}")
    if not splits[split]:
        raise UserError(f"{key}: split {split!r} is empty; give it at least one row")
    return splits[split]


def text_rows(splits: Mapping[str, int] | None, stage: TrainingConfig, key: str) -> int:
    """Texts that a CPT stage mixes in; 0 for stages without.

    Raises:
        UserError: as `rows_of`, with what makes such a split.
    """
    if not isinstance(stage, CptConfig) or stage.texts is None:
        return 0
    try:
        return rows_of(splits, stage.texts, key) or 0
    except UserError as error:
        cure = "builders make one where their argument policy_text asks for it"
        raise UserError(f"{error}; {cure}") from None


def _count_lines(data: DataFolder, split: str) -> int:
    with (data.root / f"{split}.jsonl").open("rb") as stream:
        return sum(1 for _ in stream)
