"""The teacher of distillation: a frozen model that reads the policy before the request.

TRL's `DistillationTrainer` takes pictures, but gives teacher and student the same token ids; its
experimental `SDFTTrainer` lets the teacher see more, as text alone. A policy with pictures needs
both, so the teacher's pass is here, and TRL's kernel compares (`divergence`).

Under LoRA the teacher is the trained model with its adapter off, which costs no memory. Where all
parameters are trained, or the teacher is another model than the one that enters, it is a frozen
copy in the precision of the folder that it is loaded from: the weights once more.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from trl.models import prepare_deepspeed, prepare_fsdp
from trl.models.utils import _ForwardRedirection
from trl.trainer.utils import disable_dropout_in_model

from trimpi.batch import IGNORED, Encoded, collate, encode_text
from trimpi.model import load_model
from trimpi.prompt import Message
from trimpi.recipe import ModelConfig
from trimpi.stages.divergence import Head, Kind, head_of, token_divergence

redirect = _ForwardRedirection()
"""Runs a method inside of a wrapped model's forward pass, where sharded weights are whole."""


class PolicyTeacher:
    """Compares a trainer's model with its teacher at every token of completions."""

    def __init__(
        self,
        trainer: Any,
        copied: Any | None,
        kind: Kind,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> None:
        """
        Args:
            trainer: of the student; its `processing_class` encodes the teacher's prompts.
            copied: the frozen copy, as the trainer prepares it; None for the adapter off.
            kind: the divergence.
            temperature: of both softmaxes.
            top_k: see `divergence.token_divergence`.
        """
        self._trainer, self._copied = trainer, copied
        self._kind, self._temperature, self._top_k = kind, temperature, top_k

    def divergence(
        self,
        model: Any,
        inputs: dict[str, Any],
        predicted: Tensor,
        prompts: Sequence[list[Message]],
    ) -> tuple[Tensor, Tensor]:
        """Divergence of the student from the teacher at each predicted token, and its entropy.

        Args:
            model: the student, as the trainer wraps it.
            inputs: its model inputs, B rows.
            predicted: which tokens of `input_ids` are of a completion. [B, T] bool
            prompts: what the teacher reads before each completion, pictures by path.

        Returns:
            Two tensors [N], the tokens of all rows one after the other.
        """
        ids = inputs["input_ids"]
        completions = [
            row[kept].tolist() for row, kept in zip(ids, predicted.to(ids.device), strict=True)
        ]
        seen, head = self._seen(model, prompts, completions)

        def compare(student: Any) -> tuple[Tensor, Tensor]:
            hidden = completion_states(student, inputs, predicted)
            own = head_of(student)
            return token_divergence(
                hidden, own, seen, head or own, self._kind, self._temperature, self._top_k
            )

        plain = self._trainer.accelerator.unwrap_model(model)
        with self._trainer.accelerator.autocast():
            found: tuple[Tensor, Tensor] = redirect(model, plain, compare, plain)
        return found

    def _seen(
        self, model: Any, prompts: Sequence[list[Message]], completions: Sequence[list[int]]
    ) -> tuple[Tensor, Head | None]:
        """The teacher's hidden states of the completions [N, H], and its head if it has its own."""
        accelerator = self._trainer.accelerator
        batch = teacher_batch(self._trainer.processing_class, prompts, completions)
        batch = {name: value.to(accelerator.device) for name, value in batch.items()}
        predicted = batch.pop("labels") != IGNORED
        wrapped = model if self._copied is None else self._copied
        plain = accelerator.unwrap_model(wrapped)
        off = plain.disable_adapter() if self._copied is None else nullcontext()
        training = plain.training
        plain.eval()  # no dropout, and no gradient checkpointing
        try:
            with torch.no_grad(), accelerator.autocast(), off:
                seen = redirect(wrapped, plain, completion_states, plain, batch, predicted)
        finally:
            plain.train(training)
        return seen, None if self._copied is None else head_of(plain)


def teacher_batch(
    processor: Any, prompts: Sequence[list[Message]], completions: Sequence[list[int]]
) -> dict[str, Tensor]:
    """Model inputs of prompts with completions behind them, and `labels` on these alone."""
    rows = []
    for messages, ids in zip(prompts, completions, strict=True):
        prompt = encode_text(processor, messages)
        types = {name: values + [0] * len(ids) for name, values in prompt.types.items()}
        labels = prompt.labels + list(ids)
        rows.append(Encoded(prompt.input_ids + list(ids), labels, types, prompt.pictures))
    return collate(processor, rows)


def completion_states(model: Any, inputs: dict[str, Any], predicted: Tensor) -> Tensor:
    """Hidden states from which the tokens `predicted` [B, T] follow, row after row. [N, H]"""
    if isinstance(model, PeftModel):
        model = model.base_model.model
    states = model.base_model(**inputs, use_cache=False).last_hidden_state
    found: Tensor = states[:, :-1][predicted[:, 1:]]
    return found


def frozen_copy(trainer: Any, path: str, how: ModelConfig) -> Any:
    """A model for the teacher alone, prepared as TRL prepares its reference model.

    Args:
        trainer: of the student.
        path: the model's folder, or what else transformers takes.
        how: precision and quantization.
    """
    copied: Any = load_model(path, how)
    copied.requires_grad_(False)
    disable_dropout_in_model(copied)
    if trainer.is_deepspeed_enabled:
        return prepare_deepspeed(copied, trainer.accelerator)
    if trainer.is_fsdp_enabled:
        return prepare_fsdp(copied, trainer.accelerator)
    return trainer.accelerator.prepare_model(copied, evaluation_mode=True)
