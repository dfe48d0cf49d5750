"""The dry run: everything about a recipe that can be known without loading weights."""

import importlib.util
import inspect
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from trimpi.errors import UserError
from trimpi.memory import estimate, read_size
from trimpi.model_folder import check_model_folder
from trimpi.model_source import Unreachable, locate
from trimpi.picture_file import PICTURE_ERRORS
from trimpi.prompt import text_fault
from trimpi.recipe import CptConfig, DataConfig, Recipe, RlConfig, SftConfig, StageConfig
from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import bind_problems, resolve_callable
from trimpi.sample import DataFolder, Sample
from trimpi.schedule import Schedule, plan_schedule
from trimpi.trainer_fields import rl_conflicts, trainer_problems

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
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Findings:
    """The result of a dry run. `problems` stop a run; `unchecked` says what could not be seen."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
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


def check_recipe(recipe: Recipe, run: Path, estimates: bool = True) -> Findings:
    """Check names, model folder, data, stages; with `estimates` also tokens and memory.

    Args:
        recipe: local paths absolute.
        run: the run folder, whose data are looked at where they are built already.
        estimates: count tokens of real rows (a small data set is built in a temporary folder
            where there is none yet) and estimate memory. Imports torch, loads no weights.

    Returns:
        All findings; `problems` is empty when the recipe can run.
    """
    found = Findings()
    _check_functions(recipe, found)
    model = _check_model(recipe, estimates, found)
    data = _check_data(recipe.data, "data", run / "data", found)
    if recipe.evaluation.skills is not None:
        _check_data(recipe.evaluation.skills, "evaluation.skills", run / "skills", found)
    _check_evaluation(recipe, found)
    found.problems += trainer_problems(recipe.stages)
    for name, stage in recipe.stages.items():
        if isinstance(stage, RlConfig):
            found.problems += rl_conflicts(stage, recipe.model, f"stages.{name}")
    _check_quantization(recipe, estimates, found)
    for name, stage in recipe.stages.items():
        with found.noting():
            rows = _rows(found.rows.get("data"), stage.split, f"stages.{name}.split")
            texts = _text_rows(found.rows.get("data"), stage, f"stages.{name}.texts")
            if rows is not None:
                schedule = plan_schedule(stage, rows, recipe.devices, f"stages.{name}", texts)
                found.stages.append(StagePlan(name, schedule))
    if data is not None:
        # Pictures of a folder that the recipe built were whole then; opening all takes minutes.
        pictures = estimates or recipe.data.folder is not None
        with found.noting():
            check_rows(recipe, data, pictures)
    if estimates and model is not None and not found.problems:
        with found.noting():
            _estimate(recipe, model, data, found)
    if estimates and model is not None and data is not None and not found.problems:
        with found.noting():
            skills = _skills_folder(recipe, run)
            resolve_callable("trimpi.context:check_context", "model")(recipe, model, data, skills)
    return found


def _check_functions(recipe: Recipe, found: Findings) -> None:
    named = {"grader": (recipe.grader, 2), "evaluation.diagnose": (recipe.evaluation.diagnose, 2)}
    for key, (name, arguments) in named.items():
        if name is None:
            continue
        with found.noting():
            function = resolve_callable(name, key)
            try:
                inspect.signature(function).bind(*[None] * arguments)
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
    for name, stage in recipe.stages.items():
        if stage.lora is None:
            found.problems.append(
                f"stages.{name}.lora: model.quantization {kind} freezes the weights; give the "
                "stage a lora, or set quantization to none"
            )
    if importlib.util.find_spec("bitsandbytes") is None:
        fault = f"model.quantization: {kind} needs bitsandbytes; pip install 'trimpi[quantized]'"
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


def _check_data(config: DataConfig, key: str, folder: Path, found: Findings) -> DataFolder | None:
    """Note the rows per split; returns the folder where it exists already."""
    if config.folder is not None or (folder / "card.json").is_file():
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
        raise UserError(f"{key}: the data have no split {split!r}; {did_you_mean(split, splits)}")
    if not splits[split]:
        raise UserError(f"{key}: split {split!r} is empty; give it at least one row")
    return splits[split]


def _text_rows(splits: Mapping[str, int] | None, stage: StageConfig, key: str) -> int:
    if not isinstance(stage, CptConfig) or stage.texts is None:
        return 0
    try:
        return _rows(splits, stage.texts, key) or 0
    except UserError as error:
        cure = "builders make one where their argument policy_text asks for it"
        raise UserError(f"{error}; {cure}") from None


def _check_evaluation(recipe: Recipe, found: Findings) -> None:
    evaluation = recipe.evaluation
    needed = {"split": {"no_policy", "in_context", "efficiency"}, "override_split": {"override"}}
    for key, settings in needed.items():
        if settings & set(evaluation.settings):
            with found.noting():
                split = getattr(evaluation, key)
                _rows(found.rows.get("data"), split, f"evaluation.{key}")


def check_rows(recipe: Recipe, data: DataFolder, pictures: bool = False) -> None:
    """Read all rows that stages and evaluation will use: fields, policies, answers.

    Args:
        recipe: its stages and evaluation say which rows are read.
        data: the data folder.
        pictures: also open every picture.

    Raises:
        UserError: all faults (of a split the first 20), each with its file and row.
    """
    evaluation = recipe.evaluation
    users: list[tuple[str, str, int | None, StageConfig | None]] = [
        (name, stage.split, stage.limit, stage) for name, stage in recipe.stages.items()
    ]
    texts = {s.texts for s in recipe.stages.values() if isinstance(s, CptConfig) and s.texts}
    users += [("", split, None, None) for split in sorted(texts)]
    measured = {"split": {"no_policy", "in_context", "efficiency"}, "override_split": {"override"}}
    users += [
        ("evaluation", getattr(evaluation, key), evaluation.limit, None)
        for key, settings in measured.items()
        if settings & set(evaluation.settings)
    ]
    problems: list[str] = []
    opened: dict[str, str] = {}
    used: dict[str, str] = {}
    for name, split, limit, stage in users:
        file = data.root / f"{split}.jsonl"
        if not file.is_file() or not file.stat().st_size:
            continue  # told by the key that names the split
        try:
            samples = data.read(split)[:limit]
        except UserError as error:
            problems += str(error).splitlines()
            continue
        faults = []
        for number, sample in enumerate(samples, 1):
            if name:
                row = [*_unfit(sample, name, stage), *_answer_faults(data, sample)]
            else:
                row = [fault] if (fault := text_fault(sample)) else []
            if pictures:
                row += _picture_faults(sample.images, opened)
            faults += [f"{file}:{number}: {fault}" for fault in row]
            if sample.policy is not None:
                used[sample.policy] = f"{data.root}/policies/{sample.policy}.json"
        problems += faults[:20]
        if len(faults) > 20:
            problems.append(f"{file}: {len(faults) - 20} more problems")
    if pictures:
        for policy, place in used.items():
            faults = list(_picture_faults(data.policies[policy].images, opened))
            problems += [f"{place}: {fault}" for fault in faults]
    if problems:
        raise UserError.join(list(dict.fromkeys(problems)))


def _unfit(sample: Sample, name: str, stage: StageConfig | None) -> Iterator[str]:
    """What a stage needs and a row lacks."""
    reasons = isinstance(stage, CptConfig) or (
        isinstance(stage, SftConfig) and stage.target == "cot"
    )
    obeys = isinstance(stage, CptConfig) or (
        isinstance(stage, RlConfig) and stage.policy_fraction > 0
    )
    if reasons and sample.rationale is None:
        yield (
            f"stage {name} needs a rationale in every row; choose a split that has them, or "
            "target: answer"
        )
    if obeys and sample.policy is None:
        yield f"stage {name} needs a policy in every row; add one"


def _answer_faults(data: DataFolder, sample: Sample) -> Iterator[str]:
    """An answer outside of the policy's cases."""
    policy = data.policy_of(sample)
    cases = policy.metadata.get("cases") if policy else None
    if cases is not None and sample.answer not in cases:
        yield (
            f"answer {sample.answer!r} is not among the {len(cases)} cases of policy "
            f"{sample.policy}; correct it"
        )


def _picture_faults(images: Sequence[str], opened: dict[str, str]) -> Iterator[str]:
    """Pictures that do not open; `opened` remembers."""
    for image in images:
        if image not in opened:
            opened[image] = _image_fault(image)
        if opened[image]:
            yield f"image {image} is not a whole picture ({opened[image]}); restore it"


def _image_fault(image: str) -> str:
    try:
        with Image.open(image) as picture:
            picture.load()  # verify() does not see a JPEG that is cut off
    except PICTURE_ERRORS as error:
        return " ".join(str(error).split())
    return ""


def _estimate(recipe: Recipe, model: Path, data: DataFolder | None, found: Findings) -> None:
    """Fill in tokens and memory."""
    from trimpi.budget import text_budget
    from trimpi.token_estimate import longest_sequence, measure

    if data is None:
        with tempfile.TemporaryDirectory(prefix="trimpi-") as folder:
            preview = _build_preview(recipe.data, Path(folder) / "data", found)
            if preview is not None:
                _estimate(recipe, model, preview, found)
        return
    processor = resolve_callable("trimpi.processor:load_processor", "model")(model, recipe.model)
    size = read_size(model)
    asked = {stage.split for stage in recipe.stages.values()} | {recipe.evaluation.split}
    for split in sorted(asked & set(data.splits)):
        samples = data.read(split)
        step = max(1, len(samples) // LOOKED_AT)
        found.lengths[split] = measure(processor, data, samples[::step][:LOOKED_AT])
    plans = []
    for plan in found.stages:
        stage = recipe.stages[plan.name]
        training, generation = longest_sequence(stage, found.lengths[stage.split])
        if isinstance(stage, CptConfig) and stage.texts in data.splits:
            texts = (text_budget(processor, row).total for row in data.read(stage.texts))
            training = max(training, *texts)
        if size.context is not None and max(training, generation) > size.context:
            found.problems.append(
                f"stages.{plan.name}: a row of split {stage.split!r} takes "
                f"{max(training, generation)} tokens, the model's context is {size.context}; "
                "shorten the policy, lower model.max_pixels or max_new_tokens"
            )
        memory = estimate(size, recipe.model, stage, training, generation, recipe.devices)
        plans.append(StagePlan(plan.name, plan.schedule, training, generation, memory))
    found.stages = plans


def _skills_folder(recipe: Recipe, run: Path) -> DataFolder | None:
    config = recipe.evaluation.skills
    if config is None:
        return None
    folder = Path(config.folder) if config.folder else run / "skills"
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
