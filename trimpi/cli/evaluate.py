"""`trimpi eval`: an arm of a run, or benchmarks on any model."""

from pathlib import Path
from typing import Annotated

import typer

from trimpi.cli.app import app, command
from trimpi.cli.options import Sets, load, out, print_report, say
from trimpi.errors import UserError


@command(app, name="eval")
def evaluate(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="A recipe; with --suite also a model folder, hub id, package://...",
        ),
    ],
    arm: Annotated[
        str | None, typer.Option(help="Arm of the recipe, or base; default: base.")
    ] = None,
    sets: Sets = None,
    output: Annotated[
        Path | None, typer.Option(help="Run folder of a recipe; folder of a model's results.")
    ] = None,
    regrade: Annotated[
        bool, typer.Option(help="Score the stored completions again; loads no model.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option(help="Redo an evaluation of other settings; the old one is kept.")
    ] = False,
    suite: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[=SOURCE]", help="A benchmark; file, folder or hub id."),
    ] = None,
    per_category: Annotated[
        int | None, typer.Option(min=1, help="Rows of each category; default: all.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --per-category.")] = 0,
    shots: Annotated[int, typer.Option(min=0, help="mmlu_pro: examples before a question.")] = 5,
    shots_from: Annotated[
        str | None, typer.Option(help="mmlu_pro: source of the validation split.")
    ] = None,
    mode: Annotated[str, typer.Option(help="mmmu_pro: cot or direct.")] = "cot",
    extraction: Annotated[
        str, typer.Option(help="Reading of answers: chain, or the strict level alone.")
    ] = "chain",
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens of an answer; default: the official.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Prompts at a time.")] = None,
    backend: Annotated[
        str, typer.Option(help="transformers, vllm, endpoint, or module:function.")
    ] = "transformers",
    judge: Annotated[
        str | None,
        typer.Option(help="Model that judges referral (or exact), or wildguard_answers."),
    ] = None,
    judge_backend: Annotated[
        str, typer.Option(help="The judge's: transformers, endpoint, or module:function.")
    ] = "transformers",
    harness: Annotated[
        bool, typer.Option(help="mmlu_pro: run lm-eval's task as well, and compare.")
    ] = False,
) -> None:
    """Evaluate a trained arm, the base model of a run, or (benchmarks) any model."""
    is_recipe = target.endswith((".yaml", ".yml"))
    if suite:
        from trimpi.benchmarks.items import Options
        from trimpi.benchmarks.run import Settings
        from trimpi.eval_suites import Request, run_arm, run_model

        if regrade:
            raise UserError("--regrade: benchmarks are scored again by the same command; drop it")
        options = Options(shots, shots_from, mode, per_category, seed)  # type: ignore[arg-type]
        settings = Settings(options, extraction, max_new_tokens, overwrite)  # type: ignore[arg-type]
        request = Request(suite, settings, backend, judge, judge_backend, batch_size, harness)
        if is_recipe:
            recipe, folder = load(Path(target), sets, output)
            run_arm(recipe, folder, arm or "base", request, out)
            return
        if arm or sets:
            raise UserError(f"{target}: --arm and --set go with a recipe; leave them out")
        run_model(target, output, request, out)
        return
    given = {
        "--per-category": per_category,
        "--seed": seed,
        "--shots": shots - 5,
        "--shots-from": shots_from,
        "--mode": mode != "cot",
        "--extraction": extraction != "chain",
        "--max-new-tokens": max_new_tokens,
        "--batch-size": batch_size,
        "--backend": backend != "transformers",
        "--harness": harness,
    }
    if alone := [name for name, value in given.items() if value]:
        raise UserError(f"{', '.join(alone)}: goes with --suite; name a benchmark, or drop it")
    from trimpi.pipeline import evaluate_arm

    if judge is None and judge_backend != "transformers":
        raise UserError("--judge-backend: needs a model; give --judge, or drop it")
    if judge is not None and regrade:
        raise UserError("--judge: asks a model, and --regrade loads none; drop either")
    recipe, folder = load(Path(target), sets, output)
    if judge is not None:
        from trimpi.evaluate.referral.make import judged_by

        recipe = judged_by(recipe, judge, judge_backend)
    print_report(
        evaluate_arm(recipe, folder, arm or "base", say=say, regrade=regrade, overwrite=overwrite)
    )
