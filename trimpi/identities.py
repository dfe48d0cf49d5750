"""What a step of a run depends on: the same again is skipped, anything else is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimpi.graders import make_grader
from trimpi.recipe import EfficiencyConfig, Recipe, StageConfig, SupervisedConfig
from trimpi.recipe_rl import RlOptions

NO_EFFECT = ("logging_steps", "save_steps", "keep_last", "reliance_every", "validation")
"""Keys of a stage that change nothing of its result, so that a change redoes nothing."""

YOUNGER: dict[str, tuple[Any, tuple[str, ...]]] = {
    "texts": (None, ("texts_epochs",)),
    "replay_ratio": (0.0, ()),
    "kl_reference": ("start", ()),
    "loss": ("nll", ()),
    "top_k": (None, ()),
    "instance_filter": ("none", ("filter_rollouts", "filter_solved")),
}
"""Keys of a stage that older runs do not know: the value that switches each off, and the keys that
mean nothing then."""

YOUNGER_INSIDE = {"teacher": {"while_ahead": False}}
"""The same of keys inside a section."""


@dataclass(frozen=True)
class Task:
    """What all seeds share: the recipe, its run folder, data and base model."""

    recipe: Recipe
    run: Path
    model: Path
    model_digest: str
    data: Path
    data_digest: str
    skills: Path | None
    skills_digest: str | None
    replay: Path | None
    replay_digest: str | None
    overwrite: bool


def identity_of(task: Task, seed: int, chain: tuple[str, ...]) -> dict[str, Any]:
    """Everything that the model at the end of `chain` depends on."""
    model = task.recipe.model.loading
    stages = [task.recipe.stages[name] for name in chain]
    replayed = any(isinstance(s, SupervisedConfig) and s.replay_ratio for s in stages)
    return {
        "stages": [stage_identity(stage) for stage in stages],
        "model": {**model, "digest": task.model_digest},
        "data": task.data_digest,
        **({"replay": task.replay_digest} if replayed else {}),
        "grader": make_grader(task.recipe.grader, "grader").identity,
        "seed": seed,
    }


def stage_identity(stage: StageConfig) -> dict[str, Any]:
    """The settings of a stage; younger keys only where they are used, so that older runs go on."""
    settings = stage.model_dump(mode="json", exclude=set(NO_EFFECT))
    unused = {k for k, off in RlOptions().model_dump(mode="json").items() if settings.get(k) == off}
    unused |= {k for key, (off, more) in YOUNGER.items() if settings.get(key, off) == off
              for k in (key, *more)}  # fmt: skip
    for section, keys in YOUNGER_INSIDE.items():
        if isinstance(inside := settings.get(section), dict):
            settings[section] = {k: v for k, v in inside.items() if k not in keys or v != keys[k]}
    return {key: value for key, value in settings.items() if key not in unused}


def evaluation_identity(task: Task, seed: int, chain: tuple[str, ...]) -> dict[str, Any]:
    """Everything that the measured numbers of a chain depend on."""
    evaluation = asked(task.recipe, chain).evaluation
    left_out = {"skills", "targets", "batch_size"}
    if evaluation.efficiency == EfficiencyConfig():
        left_out.add("efficiency")  # which older runs do not know
    if "retrieved" not in evaluation.settings:
        left_out.add("retrieval")
    left_out.add("referral")  # judged after, of completions that do not depend on it
    measured = evaluation.model_dump(mode="json", exclude=left_out)
    measured["settings"] = [name for name in measured["settings"] if name != "referral"]
    return {**identity_of(task, seed, chain), "evaluation": measured, "skills": task.skills_digest}


def asked(recipe: Recipe, chain: tuple[str, ...]) -> Recipe:
    """The recipe with the response format that this chain is asked for."""
    names = ["base"] if not chain else [a for a, c in recipe.chains.items() if c == chain]
    evaluation = recipe.evaluation.model_copy(update={"target": recipe.target_of(names[0])})
    return recipe.model_copy(update={"evaluation": evaluation})
