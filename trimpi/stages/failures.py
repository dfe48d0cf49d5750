"""Failures of training in one line: out of memory, a loss that is not a number."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trimpi.disk import bytes_text, size_of
from trimpi.errors import UserError, is_out_of_memory
from trimpi.memory import estimate, read_size, size_text, this_device
from trimpi.recipe import ModelConfig, RlConfig, RolloutConfig, StageConfig, TrainingConfig
from trimpi.runs import read_metrics
from trimpi.stages.checkpoints import last_whole
from trimpi.stages.inputs import StageInputs

LOOKED_AT = 16
"""Rows whose length goes into the estimate."""
SHOWN = 8
"""Rows of a batch that are named."""


@contextmanager
def memory_faults_named(config: StageConfig, inputs: StageInputs) -> Iterator[None]:
    """Turn an out-of-memory error of the block, on GPU or CPU, into one line.

    Raises:
        UserError: says when, what to lower, and the estimate by part.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        steps = [row["step"] for row in read_metrics(inputs.output)]
        when = f"after step {steps[-1]}" if steps else "before the end of the first step"
        if not isinstance(config, TrainingConfig):
            raise UserError(f"{config.kind}: out of memory; free some on this machine") from None
        raise UserError(
            f"{config.kind}: out of memory {when}; "
            f"{what_to_lower(config, inputs.model_config)}{_estimated(config, inputs)}; "
            f"{kept_checkpoint(inputs.output / 'checkpoints')}"
        ) from None


def kept_on_disk(inputs: StageInputs) -> str:
    """The end of a line about a disk: what a stage needs there, and what it goes on from."""
    checkpoints = inputs.output / "checkpoints"
    last = last_whole(checkpoints)
    needs = ""
    if last is not None:
        needs = f"a checkpoint takes {bytes_text(size_of(last))}; "
    elif inputs.model.is_dir():
        needs = f"the model that enters takes {bytes_text(size_of(inputs.model))}, a checkpoint "
        needs += "up to three times as much; "
    return f"{needs}{kept_checkpoint(checkpoints)}, the same command goes on"


def what_to_lower(config: TrainingConfig, model: ModelConfig) -> str:
    """The keys that would save memory and are not at their end yet."""
    cures = []
    if config.micro_batch_size > 1:
        cures.append(f"lower micro_batch_size ({config.micro_batch_size})")
    if not config.gradient_checkpointing:
        cures.append("set gradient_checkpointing: true")
    if isinstance(config, RolloutConfig):
        cures.append(f"lower max_new_tokens ({config.max_new_tokens}) or prompts_per_step")
        if isinstance(config, RlConfig) and config.beta and config.lora is None:
            cures.append("set beta: 0 (no reference model)")
    if config.lora is None:
        cures.append("train a lora")
    if model.quantization == "none":
        cures.append(f"set model.quantization: nf4{' with a lora' if config.lora is None else ''}")
    if model.max_pixels is None:
        cures.append("set model.max_pixels")
    return ", or ".join(cures) or "shorten the policy, or take more devices"


def check_loss(
    loss: torch.Tensor, stage: str, step: int, rows: Callable[[], Sequence[str]], checkpoints: Path
) -> None:
    """Stop a run whose loss is NaN or infinite, before a gradient of it exists.

    Args:
        loss: of a micro batch.
        stage: kind of the stage.
        step: the optimizer update under way, from 1.
        rows: gives what the rows of the micro batch are called; asked only where they are told.
        checkpoints: their folder.

    Raises:
        UserError: names stage, step and rows, and the checkpoint that is kept.
    """
    value = float(loss.detach())
    if math.isfinite(value):
        return
    names = rows()
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")
    raise UserError(
        f"{stage}: step {step}: the loss is {value} on {shown or 'this batch'}; lower lr, or look "
        f"at these rows; {kept_checkpoint(checkpoints)}"
    )


def kept_checkpoint(folder: Path) -> str:
    """Which checkpoint a stopped stage would go on from, in words."""
    last = last_whole(folder)
    return f"{last.name} is kept" if last is not None else "there is no checkpoint yet"


def _estimated(config: TrainingConfig, inputs: StageInputs) -> str:
    """The estimate by part, largest first; nothing where it cannot be made."""
    from trimpi.processor import load_processor
    from trimpi.token_estimate import image_tokens, longest_sequence, measure

    try:
        processor = load_processor(inputs.model, inputs.model_config)
        samples = inputs.data.read(config.split)[: config.limit]
        step = max(1, len(samples) // LOOKED_AT)
        lengths = measure(processor, inputs.data, samples[::step][:LOOKED_AT])
        training, generation = longest_sequence(config, lengths)
        size = read_size(inputs.model)
    except UserError:
        return ""
    images = image_tokens(config, lengths)
    sizes = (training, generation, _devices(), images)
    policies = len({sample.policy for sample in samples})
    parts = estimate(size, inputs.model_config, config, *sizes, policies=policies, **this_device())
    total = parts.pop("total")
    ranked = sorted(parts.items(), key=lambda item: -item[1])
    named = ", ".join(f"{name} {size_text(value)}" for name, value in ranked)
    return f"; estimated {size_text(total)} per device: {named}"


def _devices() -> int:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return int(torch.distributed.get_world_size())
    return 1


def row_names(split: str, samples: Sequence[Any]) -> list[str]:
    """What rows of a split are called in messages."""
    return [f"{split} row {sample.id!r}" for sample in samples]
