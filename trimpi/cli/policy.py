"""`trimpi policy`: policy files."""

from pathlib import Path
from typing import Annotated

import typer

from trimpi.cli.app import command, policy_app
from trimpi.cli.options import out

PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A policy, Markdown.")]
PolicyModel = Annotated[
    str, typer.Option("--model", help="Folder, hub id or package://... of a model; no weights.")
]
TINY = "package://trimpi/models/tiny-vlm"


@command(policy_app, name="lint")
def lint_policy_file(
    file: PolicyFile,
    model: PolicyModel = TINY,
    request_tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of a typical request without the policy.")
    ] = 150,
    price: Annotated[
        float | None, typer.Option(min=0, help="USD per million input tokens, for the cost.")
    ] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="Requests a day.")] = None,
) -> None:
    """What is wrong with a policy, its length and cost; exit 1 for faults, 2 if unreadable."""
    from trimpi.policy_view.lint import lint_policy

    code = lint_policy(file, model, request_tokens, price, requests, out)
    if code:
        raise typer.Exit(code)


@command(policy_app, name="show")
def show_policy_file(
    file: PolicyFile,
    model: PolicyModel = TINY,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with the pictures in place.")
    ] = None,
) -> None:
    """The prompt as the model sees it: chat template, policy, pictures."""
    from trimpi.policy_view.show import show_policy

    show_policy(file, model, html, out)


@command(policy_app, name="diff")
def diff_policy_files(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="The policy before.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The policy after.")],
) -> None:
    """Rules added, removed, changed; words that differ; values that get another outcome."""
    from trimpi.policy_view.difference import diff_policies

    diff_policies(old, new, out)
