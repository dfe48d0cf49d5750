"""Batch arithmetic and arguments of RL: from prompts per step to what TRL's trainer takes."""

import os
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from trl import GRPOConfig

from trimpi.errors import UserError
from trimpi.recipe import RlConfig, RolloutConfig
from trimpi.recipe_rules import did_you_mean
from trimpi.schedule import plan_schedule
from trimpi.stages.inputs import StageInputs
from trimpi.trainer_fields import rl_conflicts

SCALES = {"group_mean": "none", "batch": "batch"}
"""TRL's names of what advantages are divided by; `group` is its default."""


@dataclass(frozen=True)
class BatchPlan:
    """How rollouts and updates are cut for TRL; `arithmetic` is the derivation in words."""

    updates: int
    accumulation: int
    steps_per_generation: int
    save_steps: int
    arithmetic: str


def plan_batches(config: RolloutConfig, rows: int, devices: int) -> BatchPlan:
    """Derive TRL's numbers from prompts per step, group size and updates per rollout.

    Every update takes an equal share of the rollout batch (`num_iterations` is 1), and
    checkpoints fall between rollout batches: a resume inside of one would sample it again.

    Args:
        config: the stage.
        rows: rows of the split, after the stage's `limit`.
        devices: processes that train together.

    Raises:
        UserError: the sizes do not divide.
    """
    schedule = plan_schedule(config, rows, devices, config.kind)
    updates = config.updates_per_rollout
    wanted = config.save_steps or rows // config.prompts_per_step * updates
    save_steps = -(-wanted // updates) * updates
    steps_per_generation = schedule.accumulation * updates
    arithmetic = (
        f"{schedule.arithmetic}; for TRL: per_device_train_batch_size {config.micro_batch_size}, "
        f"gradient_accumulation_steps {schedule.accumulation}, steps_per_generation "
        f"{steps_per_generation}, num_iterations 1, num_generations {config.group_size}"
    )
    if config.save_steps and save_steps != config.save_steps:
        arithmetic += f"; save_steps {config.save_steps} becomes {save_steps}, whole rollouts"
    return BatchPlan(
        schedule.updates, schedule.accumulation, steps_per_generation, save_steps, arithmetic
    )


def device_count() -> int:
    """Processes that train together, as the launcher has set them up."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def watched() -> bool:
    """Whether somebody looks at a terminal."""
    return sys.stderr.isatty()


def grpo_arguments(
    config: RolloutConfig,
    inputs: StageInputs,
    plan: BatchPlan,
    visual: Collection[int],
    stops: Collection[int],
) -> GRPOConfig:
    """TRL's arguments; keys of `config.trainer` are passed through.

    Args:
        config: the stage.
        inputs: where it writes, and the seed.
        plan: the batch arithmetic.
        visual: ids of visual tokens; never sampled, since no picture belongs to them.
        stops: ids that end a completion.

    Raises:
        UserError: a key that TRL does not know, that the stage owns, or that would break
            PolicyRollout; or a value that TRL refuses.
    """
    known = [field.name for field in fields(GRPOConfig) if field.init]
    cuda = torch.cuda.is_available()
    checkpointing = "activation_checkpointing"  # its name since transformers 5.20
    if checkpointing not in known:
        checkpointing = "gradient_checkpointing"
    ours: dict[str, Any] = {
        "output_dir": str(inputs.output / "checkpoints"),
        "max_steps": plan.updates,
        "per_device_train_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": plan.accumulation,
        "steps_per_generation": plan.steps_per_generation,
        "num_iterations": 1,
        "num_generations": config.group_size,
        **_objective(config),
        "temperature": config.temperature,
        "max_completion_length": config.max_new_tokens,
        "learning_rate": config.lr,
        "warmup_steps": min(config.warmup_ratio, 0.999),  # below 1 it is a share of all steps
        "lr_scheduler_type": config.lr_scheduler,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        checkpointing: config.gradient_checkpointing,
        "use_cpu": not cuda,
        "bf16": cuda if config.bf16 is None else config.bf16,
        "logging_steps": config.logging_steps,
        "save_strategy": "steps",
        "save_steps": plan.save_steps,
        "seed": inputs.seed,
        "data_seed": inputs.seed,
        "remove_unused_columns": False,
        "generation_kwargs": generation_kwargs(config.trainer, visual, stops),
    }
    defaults: dict[str, Any] = {
        "use_bias_correction_kl": False,  # the paper's KL term carries no ratio
        "report_to": "none",
        "disable_tqdm": not watched(),
        "dataloader_pin_memory": cuda,
    }
    merged = set(ours) - {"generation_kwargs"}
    problems = [
        f"{config.kind}.trainer.{key}: unknown; {did_you_mean(key, known)}"
        if key not in known
        else f"{config.kind}.trainer.{key}: is set by the stage; use the stage's own keys"
        for key in config.trainer
        if key not in known or key in merged
    ]
    problems += rl_conflicts(config, inputs.model_config, config.kind)
    if problems:
        raise UserError.join(problems)
    if config.group_size == 1:
        # TRL asks for two, to have a baseline; whatever needs none is set after its checks.
        ours["num_generations"] = config.rollouts
    try:
        arguments = GRPOConfig(**(defaults | dict(config.trainer) | ours))
        arguments.num_generations = config.group_size
        return arguments
    except (TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{config.kind}: the trainer refuses its settings ({line})") from None


def _objective(config: RolloutConfig) -> dict[str, Any]:
    """What TRL's loss is told; nothing where the stage has a loss of its own."""
    if not isinstance(config, RlConfig):
        return {"beta": 0.0}
    told: dict[str, Any] = {
        "beta": config.beta,
        "epsilon": config.epsilon,
        "epsilon_high": config.epsilon_high,
        "loss_type": config.loss_type,
    }
    if config.advantage in SCALES:
        told["scale_rewards"] = SCALES[config.advantage]
    return told


def generation_kwargs(
    trainer: Mapping[str, Any], visual: Collection[int], stops: Collection[int]
) -> dict[str, Any]:
    """What the sampler gets beside temperature and length; the recipe's own come first."""
    own = dict(trainer.get("generation_kwargs") or {})
    if trainer.get("use_vllm"):
        # Colocated engines take the keys as they are, and token ids are numbers.
        bias = {int(k): v for k, v in (own.pop("logit_bias", None) or {}).items()}
        bias |= {index: -100.0 for index in sorted(visual)}
        stopping = sorted({*stops, *(own.pop("stop_token_ids", None) or ())})
        return {"logit_bias": bias, "stop_token_ids": stopping, **own}
    suppressed = sorted({*visual, *(own.pop("suppress_tokens", None) or ())})
    return {"suppress_tokens": suppressed, **own}
