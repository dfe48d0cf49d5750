"""Tokens and memory of a recipe's stages, from real rows or those of a small data set built here.

Imports torch; loads no weights.
"""

import inspect
import tempfile
from pathlib import Path

from trimpi.data_checks import planned_build
from trimpi.errors import UserError
from trimpi.findings import Findings, StagePlan
from trimpi.graders import check_labels
from trimpi.grading import Grader
from trimpi.memory import estimate, read_size, this_device
from trimpi.parallel import as_shared
from trimpi.recipe import CptConfig, DataConfig, Recipe, RolloutConfig, SupervisedConfig
from trimpi.replay import read_general, target_of
from trimpi.resolve import resolve_callable
from trimpi.sample import DataFolder
from trimpi.trainer_fields import engine_short

PREVIEW_ROWS = 2
"""Rows per policy of the small data set that a dry run builds to count tokens."""
LOOKED_AT = 16
"""Rows of a split whose tokens are counted."""


def fill_estimates(
    recipe: Recipe,
    model: Path,
    data: DataFolder | None,
    replay: DataFolder | None,
    grader: Grader | None,
    found: Findings,
) -> None:
    """Fill in tokens and memory; general examples count where they are built already."""
    from trimpi.budget import text_budget, token_budget
    from trimpi.token_estimate import image_tokens, longest_sequence, measure

    if data is None:
        with tempfile.TemporaryDirectory(prefix="trimpi-") as folder:
            preview = _build_preview(recipe.data, Path(folder) / "data", found)
            if preview is not None:
                with found.noting():
                    _check_preview(recipe, preview, grader)
                fill_estimates(recipe, model, preview, replay, grader, found)
        return
    processor = resolve_callable("trimpi.processor:load_processor", "model")(model, recipe.model)
    size = read_size(model)
    with found.noting():
        resolve_callable("trimpi.model:check_adapters", "model")(recipe, model)
    long_policies = resolve_callable("trimpi.context:long_policies", "model")
    if faults := long_policies(recipe, processor, data, size.context):
        found.problems += faults
        return
    asked = {stage.split for stage in recipe.trained.values()} | {recipe.evaluation.split}
    policies: dict[str, int] = {}
    for split in sorted(asked & set(data.splits)):
        samples = data.read(split)
        policies[split] = len({sample.policy for sample in samples})
        step = max(1, len(samples) // LOOKED_AT)
        found.lengths[split] = measure(
            processor, data, samples[::step][:LOOKED_AT], f"{data.root / split}.jsonl: "
        )
    general = 0
    if replay is not None:
        shown = ((row, replay.policy_of(row), target_of(row)) for row in read_general(replay))
        general = max(token_budget(processor, *row).total for row in shown)
    plans = []
    for plan in found.stages:
        stage = recipe.trained[plan.name]
        training, generation = longest_sequence(stage, found.lengths[stage.split])
        if isinstance(stage, CptConfig) and stage.texts in data.splits:
            texts = (text_budget(processor, row).total for row in data.read(stage.texts))
            training = max(training, *texts)
        if isinstance(stage, SupervisedConfig) and stage.replay_ratio:
            training = max(training, general)
        if size.context is not None and max(training, generation) > size.context:
            found.problems.append(
                f"stages.{plan.name}: a row of split {stage.split!r} takes "
                f"{max(training, generation)} tokens, the model's context is {size.context}; "
                "shorten the policy, lower model.max_pixels or max_new_tokens"
            )
        if isinstance(stage, RolloutConfig):
            short = engine_short(stage, f"stages.{plan.name}", generation)
            found.problems += [short] if short else []
        images = image_tokens(stage, found.lengths[stage.split])
        sizes = (training, generation, recipe.devices, images)
        shared = as_shared(recipe, stage)
        several = policies[stage.split]
        memory = estimate(size, recipe.model, shared, *sizes, policies=several, **this_device())
        plans.append(
            StagePlan(plan.name, plan.schedule, training, generation, images, several, memory)
        )
    found.stages = plans


def _check_preview(recipe: Recipe, preview: DataFolder, grader: Grader | None) -> None:
    """Whether the grader knows the answers that the builder gives."""
    if grader is None:
        return
    asked = {stage.split for stage in recipe.trained.values()} | {recipe.evaluation.split}
    problems = []
    for split in sorted(asked & set(preview.splits)):
        problems += check_labels(grader, preview.read(split), f"data: {split}.jsonl")
    if problems:
        more = [f"data: {len(problems) - 20} more problems"] if len(problems) > 20 else []
        raise UserError.join([*problems[:20], *more])


def _build_preview(config: DataConfig, folder: Path, found: Findings) -> DataFolder | None:
    """A small data set by the same builder.

    Its plan may name arguments that make it small (`preview`); else arguments named like splits
    are taken for numbers of rows.
    """
    planned = planned_build(config, "data") if config.builder else None
    args = dict(planned["args"]) if planned else {}
    small = dict((planned or {}).get("preview", {}))
    if not small and not args.get("generate"):
        splits = (planned or {}).get("splits", {})
        counted = (split for split in splits if isinstance(args.get(split), int))
        small = dict.fromkeys(counted, PREVIEW_ROWS)
    if not small:
        found.unchecked.append("tokens and memory: the data are not built yet; `trimpi data build`")
        return None
    assert config.builder is not None
    args = {**config.args, **small}
    build = resolve_callable(config.builder, "data.builder")
    if "progress" in inspect.signature(build).parameters:
        args["progress"] = False
    build(folder, seed=config.seed, **args)
    return DataFolder(folder)
