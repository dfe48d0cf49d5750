"""The command line: parse, call, print. Heavy imports stay inside the commands.

Exit codes: 0 done, 1 a check found faults, 2 bad input (one line each, no traceback), 130 Ctrl-C.
"""

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from trimpi.errors import UserError

if TYPE_CHECKING:
    from trimpi.recipe import Recipe

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

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe YAML.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override, e.g. stages.rl.lr=2e-6."),
]
Output = Annotated[Path | None, typer.Option(help="Run folder; default: the recipe's own.")]
PolicyFile = Annotated[Path, typer.Argument(metavar="FILE", help="A policy, Markdown.")]
PolicyModel = Annotated[
    str, typer.Option("--model", help="Folder, hub id or package://... of a model; no weights.")
]
TINY = "package://trimpi/models/tiny-vlm"

out = Console(highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `trimpi` command."""
    app(prog_name="trimpi")


def command(group: typer.Typer, **options: Any) -> Callable[[Callable[..., None]], Any]:
    """Register a command that ends cleanly on bad input and on Ctrl-C."""

    def register(function: Callable[..., None]) -> Any:
        @functools.wraps(function)
        def clean(*args: Any, **kwargs: Any) -> None:
            try:
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

    recipe, folder = _load(file, sets, output)
    out.print(f"[bold]{recipe.name}[/] -> {escape(str(folder))}")
    findings = check_recipe(recipe, folder, estimates=dry_run, overwrite=overwrite)
    print_findings(out, findings)
    findings.stop_if_faulty()
    if dry_run:
        rest = f", {len(findings.unchecked)} not checked (above)" if findings.unchecked else ""
        out.print(f"nothing wrong found{rest}; no weights were loaded")
        return
    report = run_recipe(recipe, folder, say=_say, jobs=jobs, overwrite=overwrite)
    _print_report(report)


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
    _say(f"{folder}: written; next:")
    for line in lines:
        _say(f"  {line}")


@command(app)
def show(
    file: RecipeFile,
    stage: Annotated[str, typer.Argument(help="A stage of the recipe.")],
    row: Annotated[int, typer.Option(min=0, help="Row, from 0; texts come last.")] = 0,
    sets: Sets = None,
    output: Output = None,
) -> None:
    """Print a stage's real input, token by token, with what is in the loss."""
    from trimpi.resolve import resolve_callable

    recipe, folder = _load(file, sets, output)
    resolve_callable("trimpi.show:show_stage", "show")(recipe, folder, stage, row, out)


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
    judge: Annotated[str | None, typer.Option(help="wildguard_answers: the judge's model.")] = None,
    judge_backend: Annotated[str, typer.Option(help="Back end of the judge.")] = "transformers",
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
            recipe, folder = _load(Path(target), sets, output)
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
        "--judge": judge,
        "--judge-backend": judge_backend != "transformers",
        "--harness": harness,
    }
    if alone := [name for name, value in given.items() if value]:
        raise UserError(f"{', '.join(alone)}: goes with --suite; name a benchmark, or drop it")
    from trimpi.pipeline import evaluate_arm

    recipe, folder = _load(Path(target), sets, output)
    _print_report(
        evaluate_arm(recipe, folder, arm or "base", say=_say, regrade=regrade, overwrite=overwrite)
    )


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
    target: Annotated[str, typer.Option(help="cot or answer.")] = "cot",
    arm: Annotated[str | None, typer.Option(help="Arm of a run folder.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of a run folder.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of the answer.")] = 512,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Put one request to a model, with or without a policy in its prompt."""
    from trimpi.ask import answer, read_policy, to_json

    if target not in ("cot", "answer"):
        raise UserError(f"--target {target}: must be cot or answer")
    said = answer(
        model,
        sys.stdin.read() if query == "-" else query,
        image or [],
        None if policy is None else read_policy(policy),
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


@command(app)
def report(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A run folder.")],
) -> None:
    """Write the report of a run again."""
    from trimpi.resolve import resolve_callable

    if not (folder / "run.json").is_file():
        raise UserError(f"{folder}: no run.json, so not a run folder; give the --output of a run")
    _print_report(resolve_callable("trimpi.report:write_report", "report")(folder))


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
        recipe, folder = _load(Path(source), sets, output)
        with alone_in(folder):
            data = prepare_data(recipe.data, folder / "data", "data", _say, overwrite)
            if (skills := recipe.evaluation.skills) is not None:
                prepare_data(skills, folder / "skills", "evaluation.skills", _say, overwrite)
    elif re.fullmatch(MODULE_NAME, source):
        if output is None:
            raise UserError("--output: a builder needs the folder to write; give --output DIR")
        if overwrite:
            raise UserError("--overwrite: goes with a recipe; give a builder another --output")
        args = parse_pairs(sets or [])
        config = DataConfig(builder=source, args=args, seed=seed or 0)
        data = prepare_data(config, output, "data", _say, marked=False)
    else:
        raise UserError(f"{source}: neither a recipe (.yaml) nor a builder (package.module:build)")
    _say(f"data: {data.root}")


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
    _say(f"{folder}: nothing wrong found")


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
    from trimpi.export.data import export_data
    from trimpi.export.formats import FORMATS

    problems = [
        f"--{name} {value}: must be one of {', '.join(known)}"
        for name, value, known in (
            ("format", form, FORMATS),
            ("policy", policy, ("none", "context")),
            ("target", target, ("cot", "answer")),
        )
        if value not in known
    ]
    if problems:
        raise UserError.join(problems)
    counts = export_data(folder, output, form, splits=split or (), policy=policy, target=target)  # type: ignore[arg-type]
    _say(f"{output}: {', '.join(f'{name} {rows}' for name, rows in counts.items())}")


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

    _say(f"model: {export_model(folder, output, arm=arm, seed=seed, dtype=dtype)}")


def _load(file: Path, sets: list[str] | None, output: Path | None) -> "tuple[Recipe, Path]":
    from trimpi.recipe_file import load_recipe

    recipe = load_recipe(file, sets or [])
    folder = (output or Path(recipe.output or f"runs/{recipe.name}")).absolute()
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file; choose another --output")
    return recipe, folder


def _print_report(report: Path) -> None:
    from trimpi.resolve import resolve_callable
    from trimpi.runs import read_json

    resolve_callable("trimpi.report:print_table", "report")(
        read_json(report.parent / "summary.json"), out
    )
    _say(f"report: {report}")


def _say(line: str) -> None:
    out.print(line, markup=False)  # paths and names may hold brackets


if __name__ == "__main__":
    main()
