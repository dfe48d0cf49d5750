"""Options that several commands share, and what they print with."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trimpi.errors import UserError

if TYPE_CHECKING:
    from trimpi.recipe import Recipe

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe YAML.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. stages.rl.lr=2e-6."),
]
Output = Annotated[Path | None, typer.Option(help="Run folder; default: the recipe's own.")]

out = Console(highlight=False, soft_wrap=True)


def load(file: Path, sets: list[str] | None, output: Path | None) -> "tuple[Recipe, Path]":
    from trimpi.recipe_file import load_recipe

    recipe = load_recipe(file, sets or [])
    folder = (output or Path(recipe.output or f"runs/{recipe.name}")).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another --output")
    return recipe, folder


def print_report(report: Path) -> None:
    from trimpi.resolve import resolve_callable
    from trimpi.runs import read_json

    resolve_callable("trimpi.report:print_table", "report")(
        read_json(report.parent / "summary.json"), out
    )
    say(f"report: {report}")


def say(line: str) -> None:
    out.print(line, markup=False)  # paths and names may hold brackets
