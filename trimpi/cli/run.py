"""`trimpi run`, `show`, `report`, `breakeven`: a recipe and its run folder."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from trimpi.cli.app import app, command
from trimpi.cli.options import Output, RecipeFile, Sets, load, out, print_report, say
from trimpi.disk import folder_problem
from trimpi.errors import UserError


@command(app)
def run(
    file: RecipeFile,
    sets: Sets = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, load no weights.")
    ] = False,
    output: Output = None,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds trained at the same time.")] = 1,
    overwrite: Annotated[
        bool, typer.Option(help="Redo folders of other settings; the old ones are kept aside.")
    ] = False,
) -> None:
    """Run a recipe: data, stages, evaluation, report. Run again to continue."""
    from trimpi.checks import check_recipe
    from trimpi.console import print_findings
    from trimpi.pipeline import run_recipe

    recipe, folder = load(file, sets, output)
    out.print(f"[bold]{recipe.name}[/] -> {escape(str(folder))}")
    findings = check_recipe(recipe, folder, estimates=dry_run, overwrite=overwrite)
    if problem := folder_problem(folder):
        findings.problems.insert(0, problem)
    print_findings(out, findings)
    findings.stop_if_faulty()
    if dry_run:
        rest = f", {len(findings.unchecked)} not checked (above)" if findings.unchecked else ""
        out.print(f"nothing wrong found{rest}; no weights were loaded")
        return
    report = run_recipe(recipe, folder, say=say, jobs=jobs, overwrite=overwrite)
    print_report(report)


@command(app)
def plan(
    file: RecipeFile,
    gpu: Annotated[str, typer.Option(help="Memory of a device: 24GB, 80GiB, or a card's name.")],
    sets: Sets = None,
    output: Output = None,
) -> None:
    """Estimate memory and steps of each stage on a GPU; exit 1 when a stage does not fit."""
    from trimpi.plan import gpu_memory, plan_recipe, print_plan

    memory = gpu_memory(gpu)
    recipe, folder = load(file, sets, output)
    _, verdicts = plan_recipe(recipe, folder, memory)
    if not print_plan(out, verdicts, recipe):
        raise typer.Exit(1)


@command(app)
def show(
    file: RecipeFile,
    stage: Annotated[str, typer.Argument(help="A stage of the recipe.")],
    row: Annotated[int, typer.Option(min=0, help="Row, from 0; texts come last.")] = 0,
    sets: Sets = None,
    output: Output = None,
) -> None:
    """Print a stage's real input, token by token, with what is in the loss."""
    from trimpi.quiet import quiet
    from trimpi.resolve import resolve_callable

    recipe, folder = load(file, sets, output)
    quiet()
    resolve_callable("trimpi.show:show_stage", "show")(recipe, folder, stage, row, out)


@command(app)
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")],
) -> None:
    """Write the report of a run again."""
    from trimpi.resolve import resolve_callable

    if not (folder / "run.json").is_file():
        raise UserError(f"{folder}: no run.json, so not a run folder; give the --output of a run")
    print_report(resolve_callable("trimpi.report:write_report", "report")(folder))


@command(app)
def breakeven(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")],
    price: Annotated[float | None, typer.Option(help="USD per million input tokens.")] = None,
    cached_price: Annotated[float | None, typer.Option(help="The same, cached tokens.")] = None,
    tuned_price: Annotated[
        float | None, typer.Option(help="The same, the trained model; default: --price.")
    ] = None,
    requests_per_day: Annotated[
        list[int] | None, typer.Option(help="A request rate; may be repeated.")
    ] = None,
    gpu_hour: Annotated[float | None, typer.Option(help="USD per hour of a device.")] = None,
    training_cost: Annotated[
        float | None, typer.Option(help="USD; default: time of the stages x --gpu-hour.")
    ] = None,
    arm: Annotated[str | None, typer.Option(help="A trained arm; default: the last.")] = None,
) -> None:
    """After how many requests and days training has paid for itself; loads no model."""
    from trimpi.breakeven import of_run, print_break_even

    given = {
        "price": price,
        "cached_price": cached_price,
        "tuned_price": tuned_price,
        "gpu_hour": gpu_hour,
        "training_cost": training_cost,
        "requests_per_day": requests_per_day or None,
    }
    print_break_even(of_run(folder, given, arm), out)
