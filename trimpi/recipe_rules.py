"""Rules of a recipe beyond the type of single keys: owned trainer fields, names that must match."""

import re
from collections.abc import Mapping
from typing import Any

from trimpi.errors import did_you_mean as did_you_mean

KINDS = ("cpt", "sft", "distill", "on_policy_distill", "rl", "interpolate")
"""Kinds of stages; a stage that is named like one is of that kind."""

OWNED_TRAINER_KEYS: dict[str, str] = {
    "output_dir": "the run folder decides it",
    "seed": "use the recipe's 'seed'",
    "data_seed": "use the recipe's 'seed'",
    "num_train_epochs": "use 'epochs'",
    "max_steps": "use 'max_steps'",
    "learning_rate": "use 'lr'",
    "per_device_train_batch_size": "use 'micro_batch_size'",
    "gradient_accumulation_steps": "it follows from the batch sizes",
    "steps_per_generation": "it follows from 'prompts_per_step' and 'updates_per_rollout'",
    "generation_batch_size": "it follows from 'prompts_per_step' and 'group_size'",
    "num_generations": "use 'group_size'",
    "num_iterations": "use 'updates_per_rollout'",
    "beta": "use 'beta'",
    "epsilon": "use 'epsilon'",
    "epsilon_high": "use 'epsilon_high'",
    "loss_type": "use 'loss_type'",
    "temperature": "use 'temperature'",
    "max_completion_length": "use 'max_new_tokens'",
    "reward_weights": "use 'accuracy_weight' and 'format_weight'",
    "warmup_ratio": "use 'warmup_ratio'",
    "lr_scheduler_type": "use 'lr_scheduler'",
    "weight_decay": "use 'weight_decay'",
    "max_grad_norm": "use 'max_grad_norm'",
    "gradient_checkpointing": "use 'gradient_checkpointing'",
    "bf16": "use 'bf16'",
    "fp16": "use 'bf16', or the model's 'dtype'",
    "save_steps": "use 'save_steps'",
    "save_strategy": "use 'save_steps'",
    "logging_steps": "use 'logging_steps'",
    "save_only_model": "resuming needs the whole checkpoint",
    "save_total_limit": "use 'keep_last'",
    "ignore_data_skip": "resuming continues the order of the rows",
    "max_length": "nothing is ever truncated here",
    "truncation_mode": "nothing is ever truncated here",
    "packing": "a row is one sequence here",
    "completion_only_loss": "the stage decides what is in the loss",
    "assistant_only_loss": "the stage decides what is in the loss",
    "remove_unused_columns": "the stage's own batches need it off",
    "dataset_text_field": "data come from the data folder",
    "dataset_kwargs": "data come from the data folder",
    "model_init_kwargs": "use the recipe's 'model'",
    "resume_from_checkpoint": "a run resumes by itself",
}
"""TRL and Trainer fields that a stage sets itself, each with what to use in its place."""


def cross_problems(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Faults between parts of a raw recipe, as (dotted key, what is wrong); types may be wrong."""
    stages, arms = data.get("stages") or {}, data.get("arms")
    if not isinstance(stages, Mapping):
        return []
    names, problems = list(map(str, stages)), []
    for name in names:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name in ("base", "eval"):
            fault = "a stage name holds letters, digits, _ and -, and is not 'base' or 'eval'"
            problems.append((f"stages.{name}", fault))
        kind = stages[name].get("kind", name) if isinstance(stages.get(name), Mapping) else name
        if name in KINDS and kind != name:
            fault = f"a stage named {name!r} is of that kind, not {kind!r}; rename it"
            problems.append((f"stages.{name}.kind", fault))
    seeds = data.get("seeds")
    if isinstance(seeds, list | tuple) and not seeds:
        problems.append(("seeds", "the list is empty; give at least one seed"))
    elif isinstance(seeds, list | tuple) and len(set(map(str, seeds))) < len(seeds):
        problems.append(("seeds", "a seed appears twice; seeds must differ"))
    known_arms = ["main"]
    if isinstance(arms, Mapping):
        known_arms = list(map(str, arms))
        if not arms:
            problems.append(("arms", "the mapping is empty; name an arm or drop the key"))
        for arm, chain in arms.items():
            problems += _chain_problems(str(arm), chain, names)
            problems += _start_problems(str(arm), chain, stages)
    else:
        problems += _start_problems("main", names, stages)
    evaluation = data.get("evaluation")
    targets = evaluation.get("targets") if isinstance(evaluation, Mapping) else None
    if not isinstance(targets, Mapping):
        targets = {}
    for arm in targets:
        if arm not in [*known_arms, "base"]:
            hint = did_you_mean(str(arm), [*known_arms, "base"])
            problems.append((f"evaluation.targets.{arm}", f"unknown arm {arm!r}; {hint}"))
    problems += _replay_problems(data, stages)
    return problems + _target_problems(arms, targets)


def _start_problems(arm: str, chain: Any, stages: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """An interpolation at the start of a chain would mix the base with itself."""
    first = chain[0] if isinstance(chain, list | tuple) and chain else None
    stage = stages.get(first) if isinstance(first, str) else None
    kind = stage.get("kind", first) if isinstance(stage, Mapping) else None
    if kind != "interpolate":
        return []
    fault = f"{first!r} interpolates between the base and a trained model; put a stage before it"
    return [(f"arms.{arm}.0", fault)]


def _replay_problems(data: Mapping[str, Any], stages: Mapping[Any, Any]) -> list[tuple[str, str]]:
    """Replay without examples, examples that nothing uses, and those that are measured on."""
    replay, problems = data.get("replay"), []
    ratios = {
        str(name): ratio
        for name, stage in stages.items()
        if isinstance(stage, Mapping) and (ratio := stage.get("replay_ratio"))
    }
    if replay is None:
        fault = "needs general examples; give the recipe a 'replay' (builder or folder)"
        return [(f"stages.{name}.replay_ratio", fault) for name in ratios]
    if not ratios:
        fault = "no stage has a replay_ratio; give one to a cpt or sft stage, or drop the section"
        problems.append(("replay", fault))
    evaluation = data.get("evaluation")
    skills = evaluation.get("skills") if isinstance(evaluation, Mapping) else None
    if isinstance(replay, Mapping) and isinstance(skills, Mapping):
        ours, theirs = ({**{"seed": 0, "args": {}}, **x} for x in (replay, skills))
        if all(ours.get(k) == theirs.get(k) for k in ("builder", "args", "seed", "folder")):
            fault = (
                "the same examples as evaluation.skills: forgetting would be measured on rows "
                "that were trained; give another seed or folder"
            )
            problems.append(("replay", fault))
    return problems


def _target_problems(arms: Any, targets: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Arms of one chain share its evaluation, so they must ask for the same response format."""
    asked: dict[tuple[str, ...], tuple[str, Any]] = {(): ("base", targets.get("base"))}
    problems = []
    for arm, chain in arms.items() if isinstance(arms, Mapping) else ():
        if isinstance(chain, list | tuple):
            twin, target = asked.setdefault(tuple(map(str, chain)), (arm, targets.get(arm)))
            if target != targets.get(arm):
                fault = f"same stages as arm {twin!r}, so it needs the same target"
                problems.append((f"evaluation.targets.{arm}", fault))
    return problems


def _chain_problems(arm: str, chain: Any, stages: list[str]) -> list[tuple[str, str]]:
    problems = []
    if not re.fullmatch(r"[A-Za-z0-9_-]+", arm):
        problems.append((f"arms.{arm}", "an arm's name holds letters, digits, _ and -"))
    if arm == "base" and chain:
        problems.append(("arms.base", "'base' is the model before training; rename the arm"))
    for index, name in enumerate(chain if isinstance(chain, list | tuple) else ()):
        if isinstance(name, str) and name not in stages:
            hint = did_you_mean(name, stages) if stages else "there are no stages"
            problems.append((f"arms.{arm}.{index}", f"unknown stage {name!r}; {hint}"))
    return problems
