"""The dry run: everything about a recipe that can be known without loading weights."""

import inspect
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimpi.data_step import other_data
from trimpi.errors import UserError
from trimpi.graders import check_labels, make_grader
from trimpi.grading import Grader
from trimpi.memory import estimate, read_size
from trimpi.model_folder import check_model_folder
from trimpi.model_source import Unreachable, locate
from trimpi.quiet import quiet
from trimpi.recipe import (
    CptConfig,
    DataConfig,
    Recipe,
    RlConfig,
    RolloutConfig,
    SupervisedConfig,
    TrainingConfig,
)
from trimpi.recipe_rules import did_you_mean
from trimpi.replay import read_general, target_of
from trimpi.resolve import bind_problems, resolve_callable
from trimpi.row_checks import SPLIT_OF, check_replay, check_rows
from trimpi.sample import DataFolder
from trimpi.schedule import Schedule, plan_schedule
from trimpi.trainer_fields import engine_missing, rl_conflicts, trainer_problems

if TYPE_CHECKING:
    from trimpi.token_estimate import Lengths

PREVIEW_ROWS = 2
"""Rows per policy of the small data set that a dry run builds to count tokens."""
LOOKED_AT = 16
"""Rows of a split whose tokens are counted."""


@dataclass(frozen=True)
class StagePlan:
    """What a dry run knows of one stage; tokens are 0 and memory empty where not estimated."""

    name: str
    schedule: Schedule
    training_tokens: int = 0
    generation_tokens: int = 0
    image_tokens: int = 0
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Findings:
    """The result of a dry run. `problems` stop a run; `unchecked` says what could not be seen."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a builder says of its sources, and stops nothing."""
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows per split of `data` and `skills`."""
    lengths: "dict[str, Lengths]" = field(default_factory=dict)
    """Token lengths by split."""
    stages: list[StagePlan] = field(default_factory=list)

    def stop_if_faulty(self) -> None:
        """Raises:
        UserError: all problems, one a line.
        """
        if self.problems:
            raise UserError.join(list(dict.fromkeys(self.problems)))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a `UserError` of the block as problems and go on."""
        try:
            yield
        except UserError as error:
            self.problems += str(error).splitlines()


def check_recipe(
    recipe: Recipe, run: Path, estimates: bool = True, overwrite: bool = False
) -> Findings:
    """Check names, model folder, data, stages; with `estimates` also tokens and memory.

    Args:
        recipe: local paths absolute.
        run: the run folder, whose data are looked at where they are built already.
        estimates: count tokens of real rows (a small data set is built in a temporary folder
            where there is none yet) and estimate memory. Imports torch, loads no weights.
        overwrite: the run sets data of other arguments aside and builds its own.

    Returns:
        All findings; `problems` is empty when the recipe can run.
    """
    found = Findings()
    grader = _check_grader(recipe, found)
    _check_diagnose(recipe, found)
    model = _check_model(recipe, estimates, found)
    data = _check_data(recipe.data, "data", run / "data", found, overwrite)
    if (config := recipe.evaluation.skills) is not None:
        _check_data(config, "evaluation.skills", run / "skills", found, overwrite)
    if recipe.replay is not None:
        replay = _check_data(recipe.replay, "replay", run / "replay", found, overwrite)
        if replay is not None:
            with found.noting():
                check_replay(recipe, replay, data, _built(recipe.evaluation.skills, run / "skills"))
    _check_evaluation(recipe, found)
    found.problems += trainer_problems(recipe.trained)
    for name, stage in recipe.trained.items():
        if isinstance(stage, RolloutConfig):
            found.problems += rl_conflicts(stage, recipe.model, f"stages.{name}")
    _check_quantization(recipe, estimates, found)
    _check_engine(recipe, estimates, found)
    for name, stage in recipe.trained.items():
        with found.noting():
            rows = _rows(found.rows.get("data"), stage.split, f"stages.{name}.split")
            if isinstance(stage, RlConfig) and stage.validation is not None:
                key = f"stages.{name}.validation.split"
                _rows(found.rows.get("data"), stage.validation.split, key)
            texts = _text_rows(found.rows.get("data"), stage, f"stages.{name}.texts")
            if rows is not None:
                schedule = plan_schedule(stage, rows, recipe.devices, f"stages.{name}", texts)
                found.stages.append(StagePlan(name, schedule))
    if data is not None:
        # Pictures of a folder that the recipe built were whole then; opening all takes minutes.
        pictures = estimates or recipe.data.folder is not None
        with found.noting():
            check_rows(recipe, data, pictures, grader)
            told = resolve_callable("trimpi.evaluate.referral.setting:referral_notes", "evaluation")
            found.notes += told(recipe, data)
    if estimates and model is not None and not found.problems:
        with found.noting():
            replay = _built(recipe.replay, run / "replay")
            _estimate(recipe, model, data, replay, grader, found)
    if estimates and model is not None and data is not None and not found.problems:
        with found.noting():
            check = resolve_callable("trimpi.context:check_context", "model")
            skills = _built(recipe.evaluation.skills, run / "skills")
            check(recipe, model, data, skills, _built(recipe.replay, run / "replay"))
    return found


def _check_grader(recipe: Recipe, found: Findings) -> Grader | None:
    """The grader; None where it cannot be used, which is noted."""
    with found.noting():
        grader = make_grader(recipe.grader, "grader")
        grader.check()
        return grader
    return None


def _check_diagnose(recipe: Recipe, found: Findings) -> None:
    key, name = "evaluation.diagnose", recipe.evaluation.diagnose
    if name is None:
        return
    with found.noting():
        function = resolve_callable(name, key)
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise UserError(
                f"{key}: {name!r} cannot be called with (sample, completion): {error}"
            ) from None
        if callable(check := getattr(function, "check", None)):
            check()


def _check_quantization(recipe: Recipe, dry: bool, found: Findings) -> None:
    """A dry run may be on another machine than the training: there, a missing package is a note."""
    kind = recipe.model.quantization
    if kind == "none":
        return
    for name, stage in recipe.trained.items():
        if stage.lora is None:
            found.problems.append(
                f"stages.{name}.lora: model.quantization {kind} freezes the weights; give the "
                "stage a lora, or set quantization to none"
            )
    quiet()  # bitsandbytes speaks when it is imported
    check = resolve_callable("trimpi.quantization:check_quantization", "model.quantization")
    try:
        check(recipe.model)
    except UserError as error:
        (found.unchecked if dry else found.problems).append(str(error))


def _check_engine(recipe: Recipe, dry: bool, found: Findings) -> None:
    """The same of vLLM."""
    for name, stage in recipe.stages.items():
        if isinstance(stage, RolloutConfig) and (fault := engine_missing(stage, f"stages.{name}")):
            (found.unchecked if dry else found.problems).append(fault)


def _check_model(recipe: Recipe, need_processor: bool, found: Findings) -> Path | None:
    try:
        model = locate(recipe.model, weights=False)
        if Path(recipe.model.path).is_absolute() or recipe.model.path.startswith("package:"):
            check_model_folder(model)
        if need_processor:
            resolve_callable("trimpi.processor:load_processor", "model")(model, recipe.model)
        return model
    except Unreachable as error:
        found.unchecked.append(str(error))
    except UserError as error:
        found.problems += [
            line if line.startswith("model") else f"model.path: {line}"
            for line in str(error).splitlines()
        ]
    return None


def _check_data(
    config: DataConfig, key: str, folder: Path, found: Findings, overwrite: bool
) -> DataFolder | None:
    """Note the rows per split; returns the folder where it exists already."""
    built = config.folder is None and (folder / "card.json").is_file()
    if built and (fault := other_data(config, folder, key)):
        if not overwrite:
            found.problems.append(fault)
        built = False  # what would be built is checked all the same
    if config.folder is not None or built:
        data = DataFolder(Path(config.folder) if config.folder else folder)
        if not data.root.is_dir():
            found.problems.append(
                f"{key}.folder: no such folder {data.root}; correct the path, or build it"
            )
            return None
        with found.noting():
            _ = data.card
            found.rows[key] = {split: _count_lines(data, split) for split in data.splits}
            return data
        return None
    with found.noting():
        assert config.builder is not None
        build = resolve_callable(config.builder, f"{key}.builder")
        given = ("out", "seed", "progress")
        if problems := bind_problems(build, config.args, f"{key}.args", given):
            raise UserError.join(problems)
        planned = _plan(config, key)
        if planned is None:
            found.unchecked.append(f"{key}: {config.builder} has no plan(), so rows are not known")
        else:
            found.rows[key] = dict(planned["splits"])
            found.notes += [f"{key}: {note}" for note in planned.get("notes", ())]
    return None


def _plan(config: DataConfig, key: str) -> dict[str, Any] | None:
    """What the builder's module says that it would build: `plan(seed=..., **args)`."""
    assert config.builder is not None
    module = config.builder.partition(":")[0]
    try:
        plan = resolve_callable(f"{module}:plan", key)
    except UserError:
        return None
    try:
        return dict(plan(seed=config.seed, **config.args))
    except UserError as error:
        raise UserError.join([f"{key}.args: {line}" for line in str(error).splitlines()]) from None


def _count_lines(data: DataFolder, split: str) -> int:
    with (data.root / f"{split}.jsonl").open("rb") as stream:
        return sum(1 for _ in stream)


def _rows(splits: Mapping[str, int] | None, split: str, key: str) -> int | None:
    if splits is None:
        return None
    if split not in splits:
        why = ""
        if split == "train_cot" and "train" in splits:
            why = " (of rows with rationales)"
        known = did_you_mean(split, splits)
        raise UserError(f"{key}: the data have no split {split!r}{why}; {known}")
    if not splits[split]:
        raise UserError(f"{key}: split {split!r} is empty; give it at least one row")
    return splits[split]


def _text_rows(splits: Mapping[str, int] | None, stage: TrainingConfig, key: str) -> int:
    if not isinstance(stage, CptConfig) or stage.texts is None:
        return 0
    try:
        return _rows(splits, stage.texts, key) or 0
    except UserError as error:
        cure = "builders make one where their argument policy_text asks for it"
        raise UserError(f"{error}; {cure}") from None


def _check_evaluation(recipe: Recipe, found: Findings) -> None:
    evaluation = recipe.evaluation
    for key, settings in SPLIT_OF.items():
        if settings & set(evaluation.settings):
            with found.noting():
                split = getattr(evaluation, key)
                _rows(found.rows.get("data"), split, f"evaluation.{key}")
    if "referral" in evaluation.settings:
        with found.noting():
            make = resolve_callable("trimpi.evaluate.referral.make:make_judge", "evaluation")
            make(evaluation.referral)


def _estimate(
    recipe: Recipe,
    model: Path,
    data: DataFolder | None,
    replay: DataFolder | None,
    grader: Grader | None,
    found: Findings,
) -> None:
    """Fill in tokens and memory; general examples count where they are built already."""
    import torch

    from trimpi.budget import text_budget, token_budget
    from trimpi.token_estimate import image_tokens, longest_sequence, measure

    if data is None:
        with tempfile.TemporaryDirectory(prefix="trimpi-") as folder:
            preview = _build_preview(recipe.data, Path(folder) / "data", found)
            if preview is not None:
                with found.noting():
                    _check_preview(recipe, preview, grader)
                _estimate(recipe, model, preview, replay, grader, found)
        return
    processor = resolve_callable("trimpi.processor:load_processor", "model")(model, recipe.model)
    size = read_size(model)
    check_adapter = resolve_callable("trimpi.model:check_adapter", "model")
    for name, stage in recipe.trained.items():
        with found.noting():
            try:
                check_adapter(model, recipe.model, stage.lora)
            except UserError as error:
                raise UserError(f"stages.{name}.{error}") from None
    long_policies = resolve_callable("trimpi.context:long_policies", "model")
    if faults := long_policies(recipe, processor, data, size.context):
        found.problems += faults
        return
    asked = {stage.split for stage in recipe.trained.values()} | {recipe.evaluation.split}
    for split in sorted(asked & set(data.splits)):
        samples = data.read(split)
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
        images = image_tokens(stage, found.lengths[stage.split])
        sizes = (training, generation, recipe.devices, images)
        memory = estimate(size, recipe.model, stage, *sizes, triton=torch.cuda.is_available())
        plans.append(StagePlan(plan.name, plan.schedule, training, generation, images, memory))
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


def _built(config: DataConfig | None, folder: Path) -> DataFolder | None:
    """The data of a section where they are there already."""
    if config is None:
        return None
    folder = Path(config.folder) if config.folder else folder
    return DataFolder(folder) if (folder / "card.json").is_file() else None


def _build_preview(config: DataConfig, folder: Path, found: Findings) -> DataFolder | None:
    """A small data set by the same builder.

    Its plan may name arguments that make it small (`preview`); else arguments named like splits
    are taken for numbers of rows.
    """
    planned = _plan(config, "data") if config.builder else None
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
