"""Evaluation: samples -> completions.jsonl -> scores.jsonl -> summary.json, one loop per setting.

Completions are appended chunk by chunk, so an interrupted evaluation goes on where it stopped; a
finished one is reused for the same model, prompts and limits, and `regrade` scores it again
without a model.
"""

import gc
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimpi import __version__
from trimpi.errors import UserError
from trimpi.evaluate import efficiency, retrieved, scoring, serving
from trimpi.evaluate.diagnosis import Diagnose
from trimpi.evaluate.referral.setting import refer
from trimpi.evaluate.settings import OWN_GRADERS, REASONED, Request, build_requests, expand
from trimpi.evaluate.store import (
    COMPLETIONS,
    SCORES,
    SUMMARY,
    SettingFolder,
    prompts_digest,
    write_rows,
)
from trimpi.grading import Grader, grader_identity
from trimpi.prompt import Target
from trimpi.recipe import EvaluationConfig, ModelConfig, Recipe
from trimpi.resolve import resolve_callable
from trimpi.runs import model_digest, read_json, write_json
from trimpi.sample import Completion, DataFolder

if TYPE_CHECKING:
    from trimpi.generate import Generator

CHUNK_BATCHES = 16
"""Batches per chunk: enough for bucketing by length, few enough to lose little to a kill."""


def evaluate_model(
    model_folder: Path,
    recipe: Recipe,
    data: DataFolder,
    skills: DataFolder | None,
    output: Path,
    grader: Grader,
    seed: int,
    *,
    target: Target | None = None,
    generator: "Generator | None" = None,
    prefill: "efficiency.Prefill | None" = None,
    server: "serving.Server | None" = None,
) -> dict[str, Any]:
    """Measure a model in all settings of `recipe.evaluation`.

    Args:
        model_folder: a complete model folder; loaded only when something is left to generate.
        recipe: its `model` (how to load) and `evaluation`.
        data: the data folder of the policy.
        skills: the folder of general skills, for the setting `skills`.
        output: each setting gets a folder `output/<setting>/` (see `evaluate.store`).
        grader: the recipe's grader.
        seed: seed of generation (greedy, so that it matters to back ends alone).
        target: the response format asked for; None is the recipe's. A chain that ends in
            answers-only training is asked for answers.
        generator: what answers prompts; None loads the model with transformers.
        prefill: what counts and times prompts; None uses the loaded model.
        server: what times whole requests; None uses the loaded model.

    Returns:
        `{"model": digest, "target": target, "settings": {name: summary}}`.

    Raises:
        UserError: bad data, model folder, grader value or diagnosis.
    """
    config = recipe.evaluation
    target = target or config.target
    backend = _Backend(Path(model_folder), recipe.model, config, generator, prefill, server)
    diagnose: Diagnose | None = None
    if config.diagnose is not None:
        diagnose = resolve_callable(config.diagnose, "evaluation.diagnose")
    summaries: dict[str, Any] = {}
    for name in expand(config.settings):
        if name == "referral":
            continue  # below, of completions that are there by then
        if name == "efficiency":
            summaries[name] = _run_efficiency(backend, data, config, target, output / name)
            continue
        requests = build_requests(
            name,
            data,
            skills,
            target=target,
            split=config.split,
            override_split=config.override_split,
            limit=config.limit,
            retrieval=config.retrieval,
        )
        summaries[name] = run_setting(
            name,
            requests,
            output / name,
            root=skills.root if name == "skills" and skills else data.root,
            generate=lambda: backend.generator,
            identity=backend.identity,
            record=_retrieval(backend, data, requests, config) if name == "retrieved" else None,
            grader=OWN_GRADERS.get(name, grader),
            diagnose=diagnose if target == "cot" and name in REASONED else None,
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
            seed=seed,
        )
    backend.release()
    if "referral" in config.settings:
        summaries["referral"] = refer(output, recipe, data)
    return {"model": backend.digest, "target": target, "settings": summaries}


def run_setting(
    name: str,
    requests: Sequence[Request],
    output: Path,
    *,
    root: Path,
    generate: "Callable[[], Generator]",
    identity: Mapping[str, Any],
    grader: Grader,
    record: Mapping[str, Any] | None = None,
    diagnose: Diagnose | None = None,
    max_new_tokens: int,
    batch_size: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Answer, grade and summarize the requests of one setting.

    Args:
        name: the setting, for the record.
        requests: what is asked, in order.
        output: the setting's folder.
        root: the data folder that the images lie in.
        generate: gives the generator; not called when all completions are there already.
        identity: what identifies the model.
        grader: scores a completion.
        record: further entries of the summary, under `retrieval`.
        diagnose: error analysis of the reasoning, or None.
        max_new_tokens: length limit of a completion.
        batch_size: prompts generated together.
        seed: seed of generation.

    Returns:
        The content of `summary.json`.
    """
    if not requests:
        raise UserError(f"{name}: nothing to ask; raise evaluation.limit")
    folder = SettingFolder(output)
    made_by = {
        "setting": name,
        **identity,
        "prompts": prompts_digest(requests),
        "target": "+".join(sorted({request.target for request in requests})),
        "rows": len(requests),
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "seed": seed,
    }
    if record is not None:
        made_by["retrieval"] = dict(record)
    folder.open(made_by, requests, root)
    chunk = batch_size * CHUNK_BATCHES
    done = len(folder.completions())
    if done < len(requests):
        # whole chunks only: batches, and so numerics, are those of an evaluation never interrupted
        done -= done % chunk
        folder.keep(done)
    for start in range(done, len(requests), chunk):
        asked = requests[start : start + chunk]
        answers = generate()(
            [request.messages for request in asked],
            max_new_tokens=max_new_tokens,
            temperature=0.0,
            seed=seed,
        )
        folder.append(
            Completion(request.sample.id, answer.text, answer.tokens, answer.truncated)
            for request, answer in zip(asked, answers, strict=True)
        )
    return _grade(folder, grader, diagnose, reuse=True)


def regrade(
    folder: Path, grader: Grader | None = None, diagnose: Diagnose | None = None
) -> dict[str, Any]:
    """Score the stored completions of a setting again; needs neither model nor data folder.

    Args:
        folder: a setting's folder, or the folder of an evaluation that holds several.
        grader: None uses the setting's own grader, which only recital and skills have; these
            keep it also where several settings are graded again at once.
        diagnose: error analysis to add, for reasoned settings.

    Returns:
        The new summary, or for several settings `{"settings": {name: summary}}`.

    Raises:
        UserError: not such a folder, completions missing, or no grader.
    """
    inner = sorted(p.parent for p in folder.glob("*/samples.jsonl") if ".old-" not in p.parent.name)
    if inner:
        graders = {p: OWN_GRADERS.get(p.name, grader) for p in inner}
        return {"settings": {p.name: regrade(p, graders[p], diagnose) for p in inner}}
    store = SettingFolder(folder)
    made_by = store.identity
    grader = grader or OWN_GRADERS.get(made_by["setting"])
    if grader is None:
        raise UserError(f"{folder}: setting {made_by['setting']!r} needs a grader; give one")
    return _grade(store, grader, _fitting(diagnose, made_by), reuse=False)


def graded_otherwise(folder: Path, grader: Grader, diagnose: Diagnose | None = None) -> list[str]:
    """Settings below `folder` whose scores are of another grader or error analysis than these.

    They come from a `regrade` with other functions; the same functions bring them back.
    """
    found = []
    for file in sorted(folder.glob(f"*/{SUMMARY}")):
        made_by = (read_json(file) or {}).get("identity", {})
        if ".old-" in file.parent.name or "grader" not in made_by:
            continue
        name = file.parent.name
        analysis = _fitting(diagnose, made_by["completions"])
        wanted = (
            grader_identity(OWN_GRADERS.get(name, grader)),
            grader_identity(analysis) if analysis else None,
        )
        if (made_by["grader"], made_by.get("diagnose")) != wanted:
            found.append(name)
    return found


def _fitting(diagnose: Diagnose | None, made_by: Mapping[str, Any]) -> Diagnose | None:
    """The error analysis where completions of this identity hold reasoning to be analysed."""
    return diagnose if made_by["setting"] in REASONED and made_by["target"] == "cot" else None


def _grade(
    folder: SettingFolder, grader: Grader, diagnose: Diagnose | None, reuse: bool
) -> dict[str, Any]:
    made_by = folder.identity
    identity = {
        "completions": made_by,
        "grader": grader_identity(grader),
        "diagnose": grader_identity(diagnose) if diagnose else None,
        "trimpi": __version__,
    }
    file = folder.path / SUMMARY
    before = read_json(file)
    if reuse and isinstance(before, dict) and before.get("identity") == identity:
        return before
    pairs, completions = folder.samples(), folder.completions()
    asked = [sample.id for sample, _ in pairs]
    if [completion.sample_id for completion in completions] != asked:
        raise UserError(
            f"{folder.path}: {len(completions)} of {len(asked)} completions, or another order;"
            " run the evaluation again to complete it"
        )
    written = str(folder.path / COMPLETIONS)
    rows = scoring.score_rows(pairs, completions, grader, diagnose, written)
    write_rows(folder.path / SCORES, rows)
    summary = {
        "setting": made_by["setting"],
        "target": made_by["target"],
        "policy_in_prompt": folder.policy_in_prompt,
        **({"retrieval": made_by["retrieval"]} if "retrieval" in made_by else {}),
        **scoring.summarize([sample for sample, _ in pairs], completions, rows),
        "grading": getattr(grader, "about", ""),
        "identity": identity,
    }
    write_json(file, summary)
    return summary


def _retrieval(
    backend: "_Backend", data: DataFolder, requests: Sequence[Request], config: EvaluationConfig
) -> dict[str, Any]:
    """What retrieval shows of the policies, and the prompt tokens of that where they are known."""
    found = retrieved.record(data, [request.sample for request in requests], config.retrieval)
    if found["whole"] == 1:
        print(
            f"retrieved: no policy has more than {config.retrieval.sections} sections, so each is "
            "shown whole; lower evaluation.retrieval.sections"
        )
    if (processor := backend.processor) is not None:
        asked = efficiency.chosen(requests)
        rows = [(request.sample, request.shown) for request in asked]
        found["prompt_tokens"] = retrieved.prompt_tokens(processor, data, rows, asked[0].target)
    return found


def _run_efficiency(
    backend: "_Backend",
    data: DataFolder,
    config: EvaluationConfig,
    target: Target,
    output: Path,
) -> dict[str, Any]:
    shown = build_requests("in_context", data, None, target=target, split=config.split)
    identity = {
        "setting": "efficiency",
        **backend.identity,
        "prompts": prompts_digest(efficiency.chosen(shown)),
        "options": config.efficiency.model_dump(mode="json"),
        "trimpi": __version__,
    }
    file = output / SUMMARY
    before = read_json(file)
    if isinstance(before, dict) and before.get("identity") == identity:
        return before
    summary = {
        "setting": "efficiency",
        "target": target,
        **efficiency.measure(shown, backend.prefill),
        "serving": serving.measure(shown, backend.server, config.efficiency),
        "identity": identity,
    }
    write_json(file, summary)
    return summary


class _Backend:
    """The model, loaded when something is first asked of it."""

    def __init__(
        self,
        folder: Path,
        model: ModelConfig,
        config: EvaluationConfig,
        generator: "Generator | None",
        prefill: "efficiency.Prefill | None",
        server: "serving.Server | None",
    ) -> None:
        self.digest = model_digest(folder)
        loading = model.loading
        self.identity = {"model": self.digest, "loading": loading}
        self._folder, self._model, self._config = folder, model, config
        self._generator, self._prefill, self._server = generator, prefill, server

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        from trimpi.model import load_model, load_processor

        processor = load_processor(self._folder, self._model)
        return load_model(self._folder, self._model), processor

    @property
    def processor(self) -> Any | None:
        """What counts tokens without weights; None beside a generator that is given."""
        if self._generator is not None:
            return None
        from trimpi.processor import load_processor

        return load_processor(self._folder, self._model)

    @cached_property
    def generator(self) -> "Generator":
        """What answers prompts."""
        if self._generator is not None:
            return self._generator
        from trimpi.generate import TransformersGenerator

        return TransformersGenerator(*self._loaded, self._config.batch_size, sys.stderr.isatty())

    @cached_property
    def prefill(self) -> "efficiency.Prefill":
        """What counts and times prompts."""
        if self._prefill is not None:
            return self._prefill
        return efficiency.TransformersPrefill(*self._loaded)

    @cached_property
    def server(self) -> "serving.Server":
        """What times whole requests."""
        if self._server is not None:
            return self._server
        from trimpi.evaluate.model_server import TransformersServer

        return TransformersServer(*self._loaded, self._config.efficiency.new_tokens)

    def release(self) -> None:
        """Let go of the model."""
        for name in ("_loaded", "generator", "prefill", "server"):
            self.__dict__.pop(name, None)
        gc.collect()
        if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
