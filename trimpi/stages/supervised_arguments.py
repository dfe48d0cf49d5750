"""Arguments of TRL's SFT trainer for a stage."""

from dataclasses import fields
from typing import Any

import torch
from trl import SFTConfig

from trimpi.errors import UserError
from trimpi.recipe import SupervisedConfig
from trimpi.recipe_rules import did_you_mean
from trimpi.stages.inputs import StageInputs
from trimpi.stages.rl_arguments import watched
from trimpi.trackers import tracker_settings


def training_arguments(config: SupervisedConfig, inputs: StageInputs) -> SFTConfig:
    """TRL's arguments of a stage; keys of `config.trainer` are passed through.

    Raises:
        UserError: a key that TRL does not know, or a value that it refuses.
    """
    known = [field.name for field in fields(SFTConfig) if field.init]
    checkpointing = "activation_checkpointing"  # its name since transformers 5.20
    if checkpointing not in known:
        checkpointing = "gradient_checkpointing"
    ours: dict[str, Any] = {
        "output_dir": str(inputs.output / "checkpoints"),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.lr,
        "per_device_train_batch_size": config.micro_batch_size,
        "warmup_steps": min(config.warmup_ratio, 0.999),  # below 1 it is a share of all steps
        "lr_scheduler_type": config.lr_scheduler,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        checkpointing: config.gradient_checkpointing,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available() if config.bf16 is None else config.bf16,
        "logging_steps": config.logging_steps,
        "save_strategy": "epoch" if config.save_steps is None else "steps",
        "save_steps": config.save_steps or 500,
        "seed": inputs.seed,
        "data_seed": inputs.seed,
        "max_length": None,
        "remove_unused_columns": False,
        "dataset_kwargs": {"skip_prepare_dataset": True},
    }
    defaults: dict[str, Any] = {
        **tracker_settings(inputs.tracking),
        "disable_tqdm": not watched(),
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    problems = [
        f"{config.kind}.trainer.{key}: unknown; {did_you_mean(key, known)}"
        if key not in known
        else f"{config.kind}.trainer.{key}: is set by the stage; use the stage's own keys"
        for key in config.trainer
        if key not in known or key in ours
    ]
    if problems:
        raise UserError.join(problems)
    try:
        return SFTConfig(**(defaults | dict(config.trainer) | ours))
    except (TypeError, ValueError) as error:
        line = " ".join(str(error).split())
        raise UserError(f"{config.kind}: the trainer refuses its settings ({line})") from None
