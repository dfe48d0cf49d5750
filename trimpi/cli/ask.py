"""`trimpi ask`: one request to a model."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from trimpi.cli.app import app, command
from trimpi.cli.options import out
from trimpi.errors import UserError


@command(app)
def ask(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model folder, hub id, package://... or run.")
    ],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="The request; - reads it.")],
    image: Annotated[list[Path] | None, typer.Option(help="A picture; may be repeated.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="A policy to put in context: Markdown, or policies/ID.json.")
    ] = None,
    sections: Annotated[
        int | None, typer.Option(min=1, help="Of --policy, show the sections nearest to QUERY.")
    ] = None,
    target: Annotated[str, typer.Option(help="cot or answer.")] = "cot",
    arm: Annotated[str | None, typer.Option(help="Arm of a run folder.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a run folder.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put one request to a model, with or without a policy in its prompt."""
    from trimpi.ask import answer, image_fault, read_policy, to_json
    from trimpi.retrieval import Retriever

    problems = []
    if target not in ("cot", "answer"):
        problems.append(f"--target {target}: must be cot or answer")
    problems += [fault for file in image or [] if (fault := image_fault(file))]
    shown = None
    if policy is not None:
        try:
            shown = read_policy(policy)
        except UserError as error:
            problems += str(error).splitlines()
    if sections is not None and policy is None:
        problems.append("--sections: chooses among the sections of a policy; give --policy too")
    if problems:
        raise UserError.join(problems)
    query = sys.stdin.read() if query == "-" else query
    if shown is not None and sections is not None:
        found = Retriever(shown, sections)(query)
        shown = found.policy
        print(f"{found.sections} of {found.of} sections of the policy shown", file=sys.stderr)
    said = answer(
        model,
        query,
        image or [],
        shown,
        target="cot" if target == "cot" else "answer",
        arm=arm,
        seed=seed,
        max_new_tokens=max_new_tokens,
    )
    if as_json:
        print(to_json(said))
        return
    if said.rationale is not None:
        out.print(said.rationale, markup=False, style="dim")
    out.print(said.answer if said.answer is not None else said.text, markup=False, style="bold")
    if said.truncated:
        print(f"cut off at --max-new-tokens {max_new_tokens}", file=sys.stderr)
    prompt = "" if said.prompt_tokens is None else f"{said.prompt_tokens} tokens in, "
    print(f"{prompt}{said.tokens} out", file=sys.stderr)
