"""Checkpoints that are known to be whole, and the log that belongs to them.

A trainer writes a checkpoint file by file; a kill can leave half of one. It is written aside, gets
a marker with the sizes of all files after the last one, and is renamed then; only a folder that
matches its marker is resumed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from trimpi.runs import METRICS, read_json, read_metrics, write_json, write_text

MARKER = "whole.json"
UNFINISHED = "unfinished"
"""Folder, beside the checkpoints, of the one that is being written."""
CUT_OFF = "not whole, its writing was cut off"


def resume_point(output: Path) -> Path | None:
    """The last whole checkpoint of a stage folder; broken ones are removed, each with a warning.

    The log is cut back to the step of that checkpoint, so that no step is logged twice.
    """
    last = last_whole(output / "checkpoints")
    instead = f"goes on from {last.name}" if last else "no whole one is left, so training starts"
    folder = output / "checkpoints"
    for checkpoint in [*_all(folder / UNFINISHED), *_all(folder)]:
        if fault := CUT_OFF if checkpoint.parent.name == UNFINISHED else _fault(checkpoint):
            print(f"warning: {checkpoint}: {fault}; removed, {instead}")
            shutil.rmtree(checkpoint)
    step = _step(last) if last is not None else 0
    rows = [row for row in read_metrics(output) if row["step"] <= step]
    if rows or (output / METRICS).is_file():
        write_text(output / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
    return last


class ExactResume:
    """Mix-in of a Trainer that writes its checkpoints aside (`CheckpointMarker` renames them), and
    resumes the weights that they hold.

    transformers saves vision-language models under the key names of the hub and renames them in
    `from_pretrained`; Trainer loads them by their raw names, matches none, warns, and would go on
    from the weights that the stage started with.
    """

    def _get_output_dir(self: Any, trial: Any) -> str:
        return str(Path(super()._get_output_dir(trial)) / UNFINISHED)  # type: ignore[misc]

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        own = self.model if model is None else model
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or not isinstance(own, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(own).from_pretrained(resume_from_checkpoint, dtype=own.dtype)
        own.load_state_dict(saved.state_dict())


def train_on(trainer: Any, checkpoint: str | None, updates: int, ended: bool = False) -> int:
    """Run a trainer's loop from the start or from a checkpoint.

    Args:
        trainer: a Trainer.
        checkpoint: where to go on, None for the start.
        updates: all updates of the stage.
        ended: whether the stage ended at this checkpoint, before all updates.

    Returns:
        The number of updates made in all.
    """
    done = _step(Path(checkpoint)) if checkpoint else 0
    if checkpoint and (ended or done >= updates):
        # The loop would make one update more before it looks at its limit.
        if loads_by_engine(trainer):
            _prepare_alone(trainer, str(checkpoint))
        else:
            trainer._load_from_checkpoint(checkpoint)
        return done
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(trainer.state.global_step)


def loads_by_engine(trainer: Any) -> bool:
    """Whether weights are loaded by an engine that exists in training alone (DeepSpeed's)."""
    return bool(trainer.is_deepspeed_enabled)


def _prepare_alone(trainer: Any, checkpoint: str) -> None:
    """What a trainer's loop does before its first update, and nothing more."""
    end = _EndAtOnce()
    trainer.callback_handler.callbacks.insert(0, end)
    try:
        trainer.train(resume_from_checkpoint=checkpoint)
    except _Prepared:
        pass
    finally:
        trainer.remove_callback(end)


class _Prepared(Exception):
    """The trainer is as it would be before its next update."""


class _EndAtOnce(TrainerCallback):
    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        raise _Prepared


def last_whole(folder: Path) -> Path | None:
    """The newest whole checkpoint in a folder of checkpoints."""
    return next((path for path in reversed(_all(folder)) if _fault(path) is None), None)


def mark_whole(checkpoint: Path) -> None:
    """Record the files of a finished checkpoint."""
    write_json(checkpoint / MARKER, {"files": _sizes(checkpoint)})


class CheckpointMarker(TrainerCallback):
    """Marks and renames each checkpoint that is written, and removes old ones after that.

    Trainer's own `save_total_limit` removes before the new one is marked: with a limit of 1 a kill
    in between would leave none.

    Args:
        keep_last: whole checkpoints that are kept.
    """

    def __init__(self, keep_last: int) -> None:
        self._keep = keep_last

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Called by the trainer after it has saved."""
        if torch.distributed.is_initialized():
            torch.distributed.barrier()  # every process has written the state of its draws
        if state.is_world_process_zero:
            folder = Path(str(args.output_dir))
            written = folder / UNFINISHED / f"checkpoint-{state.global_step}"
            mark_whole(written)
            written.rename(folder / written.name)
            for old in _all(folder)[: -self._keep]:
                shutil.rmtree(old, ignore_errors=True)


def _all(folder: Path) -> list[Path]:
    """Checkpoints in a folder, whole or not, oldest first."""
    return sorted(folder.glob("checkpoint-*"), key=_step)


def _fault(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None when it is whole."""
    marker = read_json(checkpoint / MARKER)
    if not isinstance(marker, dict) or not marker.get("files"):
        return CUT_OFF
    sizes = _sizes(checkpoint)
    for name, size in marker["files"].items():
        if name not in sizes:
            return f"damaged, {name} is missing"
        if sizes[name] != size:
            return f"damaged, {name} has {sizes[name]} of {size} bytes"
    return None


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        file.relative_to(checkpoint).as_posix(): file.stat().st_size
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file() and file.name != MARKER
    }


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
