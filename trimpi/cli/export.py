"""`trimpi export`: data sets and models for other tools."""

from pathlib import Path
from typing import Annotated

import typer

from trimpi.cli.app import command, export_app
from trimpi.cli.options import say
from trimpi.errors import UserError


@command(export_app, name="data")
def export_data_folder(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    form: Annotated[str, typer.Option("--format", help="trl, llamafactory or ms-swift.")] = "trl",
    split: Annotated[list[str] | None, typer.Option(help="A split; default: all.")] = None,
    policy: Annotated[str, typer.Option(help="none, or context: in the prompts.")] = "none",
    target: Annotated[str, typer.Option(help="cot or answer.")] = "cot",
) -> None:
    """Write a data folder as JSONL and pictures for another trainer, with a card for the hub."""
    from trimpi.export.data import export_data, unknown_splits
    from trimpi.export.formats import FORMATS
    from trimpi.sample import DataFolder

    problems = [
        f"--{name} {value}: must be one of {', '.join(known)}"
        for name, value, known in (
            ("format", form, FORMATS),
            ("policy", policy, ("none", "context")),
            ("target", target, ("cot", "answer")),
        )
        if value not in known
    ]
    try:
        problems += unknown_splits(DataFolder(folder), split or ())
    except UserError as error:
        problems += str(error).splitlines()
    if problems:
        raise UserError.join(problems)
    counts = export_data(folder, output, form, splits=split or (), policy=policy, target=target)  # type: ignore[arg-type]
    say(f"{output}: {', '.join(f'{name} {rows}' for name, rows in counts.items())}")


@command(export_app, name="model")
def export_trained_model(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")],
    arm: Annotated[str, typer.Option(help="A trained arm.")],
    output: Annotated[Path, typer.Option(help="The folder to write.")],
    seed: Annotated[int | None, typer.Option(help="Of several seeds; default: the first.")] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as trained.")
    ] = None,
) -> None:
    """Write a trained model as a folder for vLLM and transformers, with a card."""
    from trimpi.export.model import export_model

    say(f"model: {export_model(folder, output, arm=arm, seed=seed, dtype=dtype)}")
