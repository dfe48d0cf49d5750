"""`trimpi model`: model folders."""

from pathlib import Path
from typing import Annotated

import typer

from trimpi.cli.app import command, model_app
from trimpi.cli.options import say


@command(model_app, name="interpolate")
def interpolate_models(
    base: Annotated[str, typer.Argument(help="Folder, hub id or package://... of the base.")],
    model: Annotated[str, typer.Argument(help="The same, of the model trained from it.")],
    weight: Annotated[
        list[float],
        typer.Option(min=0.0, max=1.0, help="Share of MODEL, 0 to 1; may be repeated."),
    ],
    output: Annotated[Path, typer.Option(help="Folder to write; of several weights: w0.5, ...")],
) -> None:
    """Write models between a base and a trained model: (1 - w) BASE + w MODEL."""
    from trimpi.resolve import resolve_callable

    write = resolve_callable("trimpi.model_command:write_between", "model")
    for line in write(base, model, weight, output):
        say(line)
