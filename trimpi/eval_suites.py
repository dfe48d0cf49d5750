"""Benchmarks of `trimpi eval TARGET --suite ...`: what TARGET is, who answers, where results go.

RUN/seed-S/benchmarks/<chain|base>/<suite>/    of a recipe
benchmarks/<name of the model>/<suite>/        of a model; or --output
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from trimpi.benchmarks.harness import run_harness
from trimpi.benchmarks.items import Item, Options, Suite
from trimpi.benchmarks.rows import SHOWN
from trimpi.benchmarks.run import Backend, Settings, answer_all, load_items, run_suite
from trimpi.benchmarks.source import Source
from trimpi.benchmarks.suites import parse_suites
from trimpi.benchmarks.table import print_summary
from trimpi.benchmarks.wildguard import JUDGE_TOKENS, judge_question
from trimpi.errors import UserError
from trimpi.evaluate.store import COMPLETIONS, SCORES, SUMMARY, write_rows
from trimpi.identities import stage_identity
from trimpi.lock import held
from trimpi.model_folder import check_model_folder
from trimpi.model_source import PACKAGE, locate
from trimpi.pipeline import alone_in
from trimpi.prompt import Message
from trimpi.quiet import quiet
from trimpi.recipe import ModelConfig, Recipe
from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import resolve_callable
from trimpi.runs import (
    STARTED,
    begin,
    chain_name,
    differences,
    digest,
    model_digest,
    read_json,
    stage_folder,
    write_json,
)

if TYPE_CHECKING:
    from trimpi.generate import Generator

BACKENDS: dict[str, str | None] = {
    "transformers": None,
    "vllm": None,
    "endpoint": "datasets_builders.endpoint:connect",
}


@dataclass(frozen=True)
class Request:
    """What the command line asks for, checked by `check`."""

    suites: list[str]
    settings: Settings
    backend: str = "transformers"
    judge: str | None = None
    judge_backend: str = "transformers"
    batch_size: int | None = None
    harness: bool = False

    def check(self) -> list[tuple[Suite, Source]]:
        """The suites with their sources.

        Raises:
            UserError: all faults of the options at once.
        """
        problems, found = list[str](), list[tuple[Suite, Source]]()
        try:
            found = parse_suites(self.suites)
        except UserError as error:
            problems += str(error).splitlines()
        for option, value in (("backend", self.backend), ("judge-backend", self.judge_backend)):
            if value not in BACKENDS and ":" not in value:
                known = did_you_mean(value, BACKENDS)
                problems.append(f"--{option} {value}: unknown; {known}, or give module:function")
        choices = (
            ("mode", self.settings.options.mode, ("cot", "direct")),
            ("extraction", self.settings.extraction, ("chain", "strict")),
        )
        problems += [
            f"--{name} {value}: must be {' or '.join(known)}"
            for name, value, known in choices
            if value not in known
        ]
        judged = [suite.name for suite, _ in found if suite.judged]
        if judged and self.judge is None:
            problems.append(f"--suite {judged[0]}: needs a judge; give --judge MODEL")
        if found and not judged and self.judge is not None:
            problems.append("--judge: no suite here is judged; leave it out")
        if self.harness and found and not any(s.name == "mmlu_pro" for s, _ in found):
            problems.append("--harness: lm-eval has mmlu_pro alone of these suites; leave it out")
        if self.harness and find_spec("lm_eval") is None:
            problems.append("--harness: lm-eval is missing; pip install 'trimpi[harness]'")
        if problems:
            raise UserError.join(problems)
        return found


def run_model(target: str, output: Path | None, request: Request, console: Console) -> None:
    """All suites for one model.

    Args:
        target: a model folder, hub id or package://..., or what another back end takes.
        output: None is `benchmarks/<name of the model>`.

    Raises:
        UserError: bad options, rows, model or server.
    """
    suites = request.check()
    folder = (output or Path("benchmarks") / _short_name(target)).absolute()
    make = _maker(request.batch_size or 16)
    model = _made(make, target, request.backend, suites, request.settings.options)
    busy = "another evaluation works in this folder; wait for it, or choose --output"
    with held(folder / ".lock", folder, busy, "choose another --output"):
        _run(suites, model, folder, request, console)


def run_arm(recipe: Recipe, run: Path, arm: str, request: Request, console: Console) -> None:
    """All suites for the models of an arm, every seed; of `base` once.

    Raises:
        UserError: bad options, no such arm, or one that is not trained; else as `run_model`.
    """
    suites = request.check()
    arms = {"base": (), **recipe.chains}
    if arm not in arms:
        raise UserError(f"--arm {arm}: unknown arm; {did_you_mean(arm, arms)}")
    if request.backend not in ("transformers", "vllm"):
        raise UserError(f"--backend {request.backend}: takes no recipe; give the model as TARGET")
    chain = arms[arm]
    seeds = recipe.all_seeds if chain else recipe.all_seeds[:1]
    make = _maker(request.batch_size or recipe.evaluation.batch_size, recipe.model)
    with alone_in(run):
        trained = [stage_folder(run, seed, chain) for seed in seeds]
        missing = [f for f in trained if chain and read_json(f / "done.json") is None]
        if missing:
            raise UserError.join(
                [f"{f}: not trained yet; `trimpi run` the recipe first" for f in missing]
            )
        asked = [stage_identity(recipe.stages[name]) for name in chain]
        if changed := [line for f in trained if chain and (line := _changed(f, asked))]:
            raise UserError.join(changed)
        for seed, stage in zip(seeds, trained, strict=True):
            path = str(stage / "model") if chain else recipe.model.path
            output = run / f"seed-{seed}" / "benchmarks" / chain_name(chain)
            model = _made(make, path, request.backend, suites, request.settings.options)
            _run(suites, model, output, request, console)


def _changed(stage: Path, asked: list[dict[str, Any]]) -> str:
    """What is wrong where a model was trained with other settings of its stages, or ""."""
    started = read_json(stage / STARTED)
    if not isinstance(started, dict) or started.get("stages") == asked:
        return ""
    told = differences({"stages": started.get("stages")}, {"stages": asked})
    return f"{stage}: trained with other settings ({told}); give the recipe of the run"


def _run(
    suites: list[tuple[Suite, Source]],
    model: Backend,
    output: Path,
    request: Request,
    console: Console,
) -> None:
    quiet()
    # Of its own, not loaded by the recipe's revision, precision or quantization.
    other, options, judge = _maker(model.batch_size), request.settings.options, None
    if request.judge:
        judge = _made(other, request.judge, request.judge_backend, suites, options)
    asked, problems = _loaded(suites, options, output)  # before any weights are loaded
    for (suite, _), items in zip(suites, asked, strict=False) if not problems else ():
        limit = request.settings.max_new_tokens or suite.max_new_tokens
        problems += _too_long(suite, items, limit, model, judge)
    if problems:
        raise UserError.join(problems)
    for (suite, source), items in zip(suites, asked, strict=True):
        summary = run_suite(suite, source, items, output, request.settings, model, judge)
        if request.harness and suite.name == "mmlu_pro":
            summary |= {"harness": _harness(source, output / suite.name, request, model)}
            write_json(output / suite.name / SUMMARY, summary)
        print_summary(summary, console)
        console.print(f"{suite.name}: {output / suite.name / SUMMARY}", markup=False)


def _loaded(
    suites: Sequence[tuple[Suite, Source]], options: Options, output: Path
) -> tuple[list[list[Item]], list[str]]:
    """The questions of all suites, and what is wrong with their rows."""
    asked, problems = list[list[Item]](), list[str]()
    for suite, source in suites:
        try:
            asked.append(load_items(suite, source, options, output))
        except UserError as error:
            problems += str(error).splitlines()
    return asked, problems


def _made(
    make: Callable[[str, str], Backend],
    target: str,
    backend: str,
    suites: Sequence[tuple[Suite, Source]],
    options: Options,
) -> Backend:
    """A model; where it is not to be had, that and the faults of rows are told together."""
    try:
        return make(target, backend)
    except UserError as error:
        problems = str(error).splitlines()
    # Nothing is downloaded for a run that cannot begin.
    here = [(suite, source) for suite, source in suites if source.local]
    with tempfile.TemporaryDirectory(prefix="trimpi-") as folder:
        problems += _loaded(here, options, Path(folder))[1]
    raise UserError.join(problems)


def _too_long(
    suite: Suite, items: Sequence[Item], limit: int, model: Backend, judge: Backend | None
) -> list[str]:
    """Prompts that leave the model, or the judge behind an answer of `limit` tokens, no room."""
    problems = list[str]()
    if model.faults is not None:
        prompts = [(item.id, item.messages) for item in items]
        problems += [f"{suite.name}: {line}" for line in model.faults(prompts, limit)]
    if suite.judged and judge is not None and judge.faults is not None:
        # How long the answers get is not known yet; of a judge's answer it is.
        prompts = [(item.id, judge_question(item, "")) for item in items]
        found = judge.faults(prompts, limit + JUDGE_TOKENS)
        problems += [f"{suite.name}: judge: {line}" for line in found]
    return problems


def _harness(source: Source, folder: Path, request: Request, model: Backend) -> dict[str, Any]:
    folder = folder / "harness"
    limit = request.settings.max_new_tokens or 2048

    def answer(asked: Any) -> list[str]:
        prompts = [[name, messages[0]["content"][0]["text"]] for name, messages in asked]
        identity = {
            "model": dict(model.identity),
            "prompts": digest(prompts),
            "max_new_tokens": limit,
            "batch_size": model.batch_size,
        }
        begin(folder, identity, request.settings.overwrite)
        return [row["text"] for row in answer_all(folder / COMPLETIONS, asked, model, limit)]

    found = run_harness(source, request.settings.options, answer)
    rows = found.pop("outputs")
    write_rows(folder / SCORES, [{n: r[n] for n in ("id", "lm_eval", "ours")} for r in rows])
    return found


def _maker(batch_size: int, loading: ModelConfig | None = None) -> Callable[[str, str], Backend]:
    """`make(target, backend)`: each model is made once, and loaded when it is first asked.

    `loading` says how local models are loaded; its path does not count.
    """

    @cache
    def make(target: str, backend: str) -> Backend:
        if backend in ("transformers", "vllm"):
            return _local(target, backend, batch_size, loading)
        name = BACKENDS.get(backend) or backend
        where = f"--backend {backend}"
        made = resolve_callable(name, where)(target)
        if not callable(made):
            raise UserError(f"{where}: {name!r} made {type(made).__name__}, not a generator")
        return Backend(_identity(made, name, target), lambda: made, batch_size)

    return make


def _local(target: str, backend: str, batch_size: int, loading: ModelConfig | None) -> Backend:
    path = Path(target).expanduser()
    if (path / "run.json").is_file():
        raise UserError(f"{target}: is a run folder; give its recipe with --arm")
    if path.is_dir():
        target = str(path.absolute())
    elif not target.startswith(PACKAGE) and (path.is_absolute() or target.count("/") > 1):
        raise UserError(f"{target}: no such model folder; check the path")
    config = (loading or ModelConfig(path=target)).model_copy(update={"path": target})
    folder = locate(config, "TARGET")
    check_model_folder(folder)
    how = config.loading
    identity = {"digest": model_digest(folder), "loading": how, "backend": backend}

    @cache
    def generator() -> "Generator":
        if backend == "vllm":
            from trimpi.vllm_generator import VllmGenerator

            return VllmGenerator(folder, max_pixels=config.max_pixels)
        from trimpi.generate import TransformersGenerator
        from trimpi.model import load_model, load_processor

        return TransformersGenerator(
            load_model(folder, config), load_processor(folder, config), batch_size
        )

    def faults(asked: Sequence[tuple[str, list[Message]]], limit: int) -> list[str]:
        from trimpi.batch import encode_text
        from trimpi.model import load_config, load_processor

        context = getattr(
            load_config(folder, config).get_text_config(), "max_position_embeddings", None
        )
        if context is None:
            return []
        processor = load_processor(folder, config)
        lengths = {
            name: len(encode_text(processor, messages).input_ids) for name, messages in asked
        }
        return too_long(lengths, limit, context)

    return Backend(identity, generator, batch_size, faults)


def too_long(lengths: Mapping[str, int], limit: int, context: int) -> list[str]:
    """A line for each prompt, by id, that leaves no room for `limit` tokens, up to 20."""
    lines = [
        f"row {name!r}: a prompt of {length} tokens and {limit} new ones exceed the model's "
        f"context of {context}; lower --shots or --max-new-tokens"
        for name, length in lengths.items()
        if length + limit > context
    ]
    more = len(lines) - SHOWN
    return lines[:SHOWN] + ([f"and {more} more rows like these"] if more > 0 else [])


def _identity(made: Any, name: str, target: str) -> Mapping[str, Any]:
    """What a named generator says of itself; one that says nothing is known by its name."""
    source = getattr(made, "source", made)
    told = source.identity() if hasattr(source, "identity") else {}
    return {"backend": name, "target": target, **told}


def _short_name(target: str) -> str:
    name = target.rstrip("/").rpartition("/")[2]
    # Every trained model lies in a folder of this name.
    if name == "model" and Path(target).is_dir():
        name = Path(target).absolute().parent.name
    return name or "model"
