"""The data of a run: built into its folder once, or read from a folder that the recipe names."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.recipe import DataConfig
from trimpi.resolve import bind_problems, resolve_callable
from trimpi.runs import read_json, set_aside, write_json
from trimpi.sample import DataFolder

Say = Callable[[str], None]


def prepare_data(
    config: DataConfig,
    folder: Path,
    key: str,
    say: Say = print,
    overwrite: bool = False,
    marked: bool = True,
) -> DataFolder:
    """The data folder of a recipe, built at `folder` unless it is there already.

    Beside it `<folder>.json` tells what was asked for, so that the next run knows the folder
    again; `marked=False` leaves that out and leaves an existing folder to the builder to refuse.
    What a builder notes in its card (`notes`, a list of lines) is said when it is built.

    Raises:
        UserError: wrong builder, arguments or folder, or `folder` holds other data.
    """
    if config.folder is not None:
        data = DataFolder(Path(config.folder))
        if not data.root.is_dir():
            raise UserError(f"{key}.folder: no such folder {data.root}; correct the path")
        say(f"{key}: {data.root} ({sizes(data)})")
        return data
    whole = marked and (folder / "card.json").is_file()
    if whole and (fault := other_data(config, folder, key)):
        if not overwrite:
            raise UserError(fault)
    elif whole:
        data = DataFolder(folder)
        say(f"{key}: there already ({sizes(data)})")
        return data
    assert config.builder is not None
    build = resolve_callable(config.builder, f"{key}.builder")
    if problems := bind_problems(build, config.args, f"{key}.args", ("out", "seed", "progress")):
        raise UserError.join(problems)
    if whole:
        set_aside(folder)
    if marked:
        write_json(_mark(folder), _identity(config))
    start = time.time()
    try:
        build(folder, seed=config.seed, **config.args)
    except UserError as error:
        raise UserError.join([f"{key}.args: {line}" for line in str(error).splitlines()]) from None
    data = DataFolder(folder)
    say(f"{key}: built in {minutes(time.time() - start)} ({sizes(data)})")
    notes = data.card.get("notes")
    for note in notes if isinstance(notes, list) else ():
        say(f"{key}: note: {note}")
    return data


def other_data(config: DataConfig, folder: Path, key: str) -> str:
    """Why a folder that is built is not what the recipe asks for, in one line, or ""."""
    asked = read_json(_mark(folder))
    if asked == _identity(config):
        return ""
    fault = f"built with other arguments than {key} asks for"
    if asked is None:
        fault = f"{_mark(folder).name} is gone, which tells how it was built"
    return f"{folder}: {fault}; choose another --output, or build again with --overwrite"


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


def _identity(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", exclude={"folder"})


def sizes(data: DataFolder) -> str:
    """Rows of each split in words, from the card."""
    counts = data.card.get("splits") or data.card.get("counts") or {}
    rows = {name: c.get("rows") if isinstance(c, dict) else c for name, c in counts.items()}
    return ", ".join(f"{name} {count}" for name, count in rows.items()) or "no counts in its card"


def minutes(seconds: float) -> str:
    """A duration in words."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
