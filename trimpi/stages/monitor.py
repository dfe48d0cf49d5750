"""What a stage records while it trains: the log, and whether every tensor learns."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimpi.errors import UserError
from trimpi.runs import METRICS, read_json, write_json
from trimpi.stages.failures import kept_checkpoint

GRADIENTS = "gradients.json"


class MetricsLog(TrainerCallback):
    """Appends one JSON line a logged step to `metrics.jsonl`; says at times how far it is.

    Args:
        output: the stage folder.
        name: what the lines on the terminal begin with.
        every: seconds between two such lines.
    """

    def __init__(self, output: Path, name: str = "train", every: float = 30.0) -> None:
        self._file, self._name, self._every = output / METRICS, name, every
        self._said = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> None:
        """Called by the trainer with the means since the last log."""
        # The summary at the end of training holds no loss of a step.
        if not state.is_world_process_zero or not logs or "train_runtime" in logs:
            return
        row = {"step": state.global_step, **logs}
        row = {key: _plain(value) for key, value in row.items()}
        try:
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row) + "\n")
        except OSError as error:
            error.filename = str(self._file)  # a write that fails names none
            raise
        if args.disable_tqdm and "loss" in logs and time.monotonic() - self._said > self._every:
            self._said = time.monotonic()
            loss = f"loss {logs['loss']:.4g}"
            print(f"{self._name}: step {state.global_step}/{state.max_steps}, {loss}")


class FiniteGradients(TrainerCallback):
    """Stops a run whose gradient is infinite or NaN, before it is applied or saved.

    DeepSpeed keeps gradients to itself and has applied them by then; it tells their norm.

    Args:
        name: what the line begins with.
        accelerator: the trainer's, which knows DeepSpeed's engine.
    """

    def __init__(self, name: str, accelerator: Any) -> None:
        self._name, self._accelerator = name, accelerator

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: object,
    ) -> None:
        """Called by the trainer when the gradients of an update are complete.

        Raises:
            UserError: a gradient is not finite.
        """
        gradients = [_shard(p.grad) for p in model.parameters() if p.grad is not None]
        norms = list(torch._foreach_norm(gradients)) if gradients else []
        engine = getattr(self._accelerator, "deepspeed_engine_wrapped", None)
        if engine is not None and (norm := engine.get_global_grad_norm()) is not None:
            norms.append(torch.as_tensor(norm))
        if not all(bool(norm.isfinite()) for norm in norms):
            raise UserError(
                f"{self._name}: step {state.global_step + 1}: the gradient is not finite; lower "
                f"lr; {kept_checkpoint(Path(str(args.output_dir)))}"
            )


class GradientAudit(TrainerCallback):
    """Finds trainable tensors that get no gradient in the first steps.

    A tensor is cleared by its first gradient that is not zero. One step is not always enough: the
    first factor of a LoRA pair has a zero gradient until the second has moved away from zero.
    Steps without any gradient (in RL: no group had signal) tell nothing and are not counted.

    Writes `gradients.json`: `{"steps", "tensors", "without_gradient": [names]}`.
    """

    def __init__(self, output: Path, steps: int = 3) -> None:
        self._file, self._steps = output / GRADIENTS, steps
        self._missing: set[str] | None = None
        self._tensors = self._seen = self._heard = 0
        self._done = self._file.is_file()

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **kwargs: object,
    ) -> None:
        """Called by the trainer when the gradients of an update are complete."""
        if self._done:
            return
        trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if self._missing is None:
            self._missing, self._tensors = set(trainable), len(trainable)
        visible = {name: _shard(p.grad) for name, p in trainable.items() if p.grad is not None}
        if not visible:
            return  # DeepSpeed keeps them to itself
        heard = _of_any({name for name, grad in visible.items() if bool(grad.any())})
        self._missing -= heard
        self._seen += 1
        self._heard += bool(heard)
        if not self._missing or self._heard == self._steps:
            self._write(state)

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Called by the trainer after the last update, which may come before the audit is over."""
        if not self._done and self._seen:
            self._write(state)

    def _write(self, state: TrainerState) -> None:
        self._done = True
        missing = sorted(self._missing or ())
        if not state.is_world_process_zero:
            return
        if missing:
            shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            print(
                f"warning: {len(missing)} of {self._tensors} trainable tensors had no gradient in "
                f"the first {self._seen} steps: {shown}"
            )
        record = {"steps": self._seen, "tensors": self._tensors, "without_gradient": missing}
        write_json(self._file, record)


def _shard(gradient: Any) -> Any:
    """What this process holds of a gradient that is shared out."""
    return gradient.to_local() if hasattr(gradient, "to_local") else gradient


def _of_any(names: set[str]) -> set[str]:
    """The names that any process has; all processes call this together."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return names
    return set(gather_object(sorted(names)))


def gradient_report(output: Path) -> Any:
    """What the audit found, None when no update was made."""
    return read_json(output / GRADIENTS)


def _plain(value: Any) -> Any:
    """JSON has no NaN: a value that is not finite is written as null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
