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
    if whole and (fault := other_data(config, folder, key, say)):
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
        write_json(_mark(folder), _identity(config, key, None, say))
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


def _identity(config: DataConfig, key: str, known: Any, say: Say) -> dict[str, Any]:
    """What data are built from: builder, seed and arguments.

    A builder's module may have `identity(**args)`, which gives what its files hold in place of
    their paths, so that an edit is seen and a moved project is known again. Where files of data
    that are `known` do not read any more, the data stand for themselves.
    """
    identity = config.model_dump(mode="json", exclude={"folder"})
    assert config.builder is not None
    try:
        function = resolve_callable(f"{config.builder.partition(':')[0]}:identity", key)
    except UserError:
        return identity  # it has none, or is not there, which is told when it is called
    try:
        identity["args"] = function(**config.args)
    except UserError as error:
        if isinstance(known, dict) and "args" in known:
            fault = str(error).splitlines()[0]
            say(f"{key}: taken as built, since what they were built from does not read ({fault})")
            identity["args"] = known["args"]
    return identity


def other_data(config: DataConfig, folder: Path, key: str, say: Say = lambda line: None) -> str:
    """Why a folder that is built is not what the recipe asks for, in one line, or ""."""
    known = read_json(_mark(folder))
    if known == _identity(config, key, known, say):
        return ""
    fault = f"built with other arguments than {key} asks for"
    if known is None:
        fault = f"{_mark(folder).name} is gone, which tells how it was built"
    return f"{folder}: {fault}; choose another --output, or build again with --overwrite"


def _mark(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.json")


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
