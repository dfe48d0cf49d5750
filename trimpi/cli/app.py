"""The application: its groups of commands, and how every command ends.

Exit codes: 0 done, 1 a check found faults, 2 bad input (one line each, no traceback), 130 Ctrl-C.
"""

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any

import typer

from trimpi.disk import disk_faults_named
from trimpi.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Move a long multimodal policy from the prompt into the weights.",
)
recipe_app = typer.Typer(no_args_is_help=True, help="About recipes.")
data_app = typer.Typer(no_args_is_help=True, help="Build, show and check data folders.")
app.add_typer(recipe_app, name="recipe")
app.add_typer(data_app, name="data")
export_app = typer.Typer(no_args_is_help=True, help="Data sets and models for other tools.")
app.add_typer(export_app, name="export")
policy_app = typer.Typer(no_args_is_help=True, help="Check, show and compare policy files.")
app.add_typer(policy_app, name="policy")
model_app = typer.Typer(no_args_is_help=True, help="Models between two models.")
app.add_typer(model_app, name="model")


def main() -> None:
    """Entry point of the `trimpi` command."""
    # On a processor it advises a faster kernel when PEFT imports it, whatever the command is.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    app(prog_name="trimpi")


def command(group: typer.Typer, **options: Any) -> Callable[[Callable[..., None]], Any]:
    """Register a command that ends cleanly on bad input and on Ctrl-C."""

    def register(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def clean(*args: Any, **kwargs: Any) -> None:
            try:
                with disk_faults_named(""):
                    function(*args, **kwargs)
            except UserError as error:
                for line in str(error).splitlines():
                    print(f"error: {line}", file=sys.stderr)
                raise typer.Exit(2) from None
            except KeyboardInterrupt:
                print("stopped; the same command goes on from here", file=sys.stderr)
                raise typer.Exit(130) from None

        return group.command(**options)(clean)

    return register
