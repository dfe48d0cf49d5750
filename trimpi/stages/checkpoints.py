"""Checkpoints that are known to be whole, and the log that belongs to them.

A trainer writes a checkpoint file by file; a kill can leave half of one. A marker with the sizes
of all files is written after the last file, and only a folder that matches its marker is resumed.
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


def resume_point(output: Path) -> Path | None:
    """The last whole checkpoint of a stage folder; broken ones are removed.

    The log is cut back to the step of that checkpoint, so that no step is logged twice.
    """
    folder = output / "checkpoints"
    found: list[Path] = []
    for checkpoint in folder.glob("checkpoint-*") if folder.is_dir() else ():
        if _is_whole(checkpoint):
            found.append(checkpoint)
        else:
            shutil.rmtree(checkpoint)
    last = max(found, key=_step, default=None)
    step = _step(last) if last is not None else 0
    rows = [row for row in read_metrics(output) if row["step"] <= step]
    if rows or (output / METRICS).is_file():
        write_text(output / METRICS, "".join(json.dumps(row) + "\n" for row in rows))
    return last


class ExactResume:
    """Mix-in of a Trainer that resumes the weights which its checkpoint holds.

    transformers saves vision-language models under the key names of the hub and renames them in
    `from_pretrained`; Trainer loads them by their raw names, matches none, warns, and would go on
    from the weights that the stage started with.
    """

    def _load_from_checkpoint(self: Any, resume_from_checkpoint: str, model: Any = None) -> None:
        own = self.model if model is None else model
        sharded = self.is_fsdp_enabled or self.is_deepspeed_enabled
        if sharded or not isinstance(own, PreTrainedModel):
            super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
            return
        saved = type(own).from_pretrained(resume_from_checkpoint, dtype=own.dtype)
        own.load_state_dict(saved.state_dict())


def train_on(trainer: Any, checkpoint: str | None, updates: int) -> int:
    """Run a trainer's loop from the start or from a checkpoint.

    Args:
        trainer: a Trainer.
        checkpoint: where to go on, None for the start.
        updates: all updates of the stage.

    Returns:
        The number of updates made in all.
    """
    done = _step(Path(checkpoint)) if checkpoint else 0
    if checkpoint and done >= updates:
        # The loop would make one update more before it looks at its limit.
        trainer._load_from_checkpoint(checkpoint)
        return done
    trainer.train(resume_from_checkpoint=checkpoint)
    return int(trainer.state.global_step)


def mark_whole(checkpoint: Path) -> None:
    """Record the files of a finished checkpoint."""
    write_json(checkpoint / MARKER, {"files": _sizes(checkpoint)})


class CheckpointMarker(TrainerCallback):
    """Marks each checkpoint once all of its files are written."""

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
            mark_whole(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def _is_whole(checkpoint: Path) -> bool:
    marker = read_json(checkpoint / MARKER)
    if not isinstance(marker, dict) or not marker.get("files"):
        return False
    sizes = _sizes(checkpoint)
    return all(sizes.get(name) == size for name, size in marker["files"].items())


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {
        file.relative_to(checkpoint).as_posix(): file.stat().st_size
        for file in sorted(checkpoint.rglob("*"))
        if file.is_file() and file.name != MARKER
    }


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])
