"""`trimpi init` and `trimpi data`: data folders."""

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from trimpi.cli.app import app, command, data_app
from trimpi.cli.options import load, out, say
from trimpi.errors import UserError


@command(app)
def init(
    folder: Annotated[Path, typer.Argument(metavar="NAME", help="A folder that is not there yet.")],
    policy: Annotated[
        Path | None,
        typer.Option("--from", metavar="POLICY", help="A policy file to start from."),
    ] = None,
    python: Annotated[
        bool, typer.Option("--python", help="Write the grader as grader.py, to be changed.")
    ] = False,
    template: Annotated[
        str | None,
        typer.Option(metavar="guardrail|toys", help="Policy and examples to start from."),
    ] = None,
) -> None:
    """Write a project folder that runs: policy, examples, grader, recipe."""
    from trimpi.resolve import resolve_callable

    write = resolve_callable("datasets_builders.starter.project:write_project", "init")
    lines = write(folder, policy, python, template)
    say(f"{folder}: written; next:")
    for line in lines:
        say(f"  {line}")


@command(data_app)
def build(
    source: Annotated[
        str, typer.Argument(metavar="RECIPE_OR_BUILDER", help="A recipe, or package.module:build.")
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override of the recipe, or argument of the builder."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder of a recipe; data folder of a builder.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed, for a builder; default 0.")] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Build a recipe's data again; the old ones are kept aside.")
    ] = False,
) -> None:
    """Build the data of a recipe, or call a builder."""
    from trimpi.data_step import prepare_data
    from trimpi.pipeline import alone_in
    from trimpi.recipe import MODULE_NAME, DataConfig
    from trimpi.recipe_file import parse_pairs

    if source.endswith((".yaml", ".yml")):
        if seed is not None:
            raise UserError("--seed: the recipe holds the seed; use --set data.seed=N")
        recipe, folder = load(Path(source), sets, output)
        with alone_in(folder):
            data = prepare_data(recipe.data, folder / "data", "data", say, overwrite)
            if (skills := recipe.evaluation.skills) is not None:
                prepare_data(skills, folder / "skills", "evaluation.skills", say, overwrite)
            if recipe.replay is not None:
                prepare_data(recipe.replay, folder / "replay", "replay", say, overwrite)
    elif re.fullmatch(MODULE_NAME, source):
        if output is None:
            raise UserError("--output: a builder needs the folder to write; give --output DIR")
        if overwrite:
            raise UserError("--overwrite: goes with a recipe; give a builder another --output")
        args = parse_pairs(sets or [])
        config = DataConfig(builder=source, args=args, seed=seed or 0)
        data = prepare_data(config, output, "data", say, marked=False)
    else:
        raise UserError(f"{source}: neither a recipe (.yaml) nor a builder (package.module:build)")
    say(f"data: {data.root}")


@command(data_app, name="show")
def show_data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")],
    split: Annotated[str | None, typer.Option(help="Split of the contact sheet.")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet PNG; default: beside the folder.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="Model whose tokenizer counts lengths; 'words' counts words.")
    ] = "package://trimpi/models/tiny-vlm",
) -> None:
    """Counts, balance, lengths and coverage of rules of a data folder, and a contact sheet."""
    from trimpi.data_view import show_folder

    show_folder(folder, split, sheet, model, out)


@command(data_app)
def check(folder: Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")]) -> None:
    """Hashes, images, rows and answers of a data folder; exit 1 when something is wrong.

    Rules that no training row or no test row exercises are warnings, which change no exit code.
    """
    from trimpi.data_view import check_folder, folder_warnings

    problems = check_folder(folder)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if problems:
        raise typer.Exit(1)
    for warning in folder_warnings(folder):
        print(f"warning: {warning}", file=sys.stderr)
    say(f"{folder}: nothing wrong found")
