"""`trimpi doctor` and `trimpi recipe schema`: the machine, and what a recipe may hold."""

import json

import typer

from trimpi.cli.app import app, command, recipe_app
from trimpi.cli.options import out


@command(app)
def doctor() -> None:
    """Print versions and devices; exit 1 when a requirement is not met."""
    from trimpi.console import print_versions
    from trimpi.doctor import device_lines, requirement_faults
    from trimpi.runs import versions

    print_versions(out, versions())
    for line in device_lines():
        out.print(line)
    faults = requirement_faults()
    for fault in faults:
        out.print(f"[red]fault[/]: {fault}")
    if faults:
        raise typer.Exit(1)
    out.print("all requirements are met")


@command(recipe_app)
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from trimpi.recipe_file import recipe_schema

    print(json.dumps(recipe_schema(), indent=1))
