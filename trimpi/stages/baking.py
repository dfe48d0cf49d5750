"""Prompt baking (arXiv 2409.13697): the teacher's distribution at each token of its own answers.

    o ~ pi_T(. | P, Q, I)
    L = mean over tokens of KL(pi_T(. | P, Q, I, o_<t) || pi(. | Q, I, o_<t))

The teacher is the model that enters the stage; what it answers is made once (`own_answers`), what
it would have said at each token is computed as the batch comes, over the whole vocabulary or its
`top_k` likeliest tokens and the rest. The mean is over all tokens of an update, as in SFT.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trimpi.batch import IGNORED
from trimpi.model import locate
from trimpi.prompt import Message
from trimpi.recipe import DistillConfig
from trimpi.stages.inputs import StageInputs
from trimpi.stages.policy_teacher import PolicyTeacher, frozen_copy
from trimpi.stages.supervised import SupervisedTrainer


class BakingTrainer(SupervisedTrainer):
    """SFT whose loss is the forward KL to a teacher that reads another prompt."""

    teacher: PolicyTeacher
    prompts: Sequence[list[Message]]
    """What the teacher reads before each row of the table."""
    model: Any
    _total_train_tokens: Any

    def _loss(
        self, model: Any, inputs: dict[str, Any], places: Tensor, *args: Any, **kwargs: Any
    ) -> Tensor:
        batch = {name: value for name, value in inputs.items() if name != "labels"}
        predicted = inputs["labels"] != IGNORED
        prompts = [self.prompts[place] for place in places.tolist()]
        divergence, entropy = self.teacher.divergence(model, batch, predicted, prompts)
        count = kwargs.get("num_items_in_batch")
        loss = divergence.sum() / torch.as_tensor(len(divergence) if count is None else count)
        # The count is then of all processes, whose gradients are averaged.
        if count is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes
        self._note(inputs, divergence.detach(), entropy)
        return loss

    def _note(self, inputs: dict[str, Any], divergence: Tensor, entropy: Tensor) -> None:
        """What TRL's own loss would have counted, and the divergence of this micro batch."""
        sums = torch.stack(
            [
                divergence.sum(),
                entropy.sum(),
                divergence.new_tensor(len(divergence)),
                inputs["attention_mask"].sum().to(divergence),
            ]
        )
        total, spread, tokens, seen = self.accelerator.reduce(sums, reduction="sum").tolist()
        mode = "train" if self.model.training else "eval"
        self._metrics[mode]["distill/divergence"].append(total / max(tokens, 1))
        self._metrics[mode]["entropy"].append(spread / max(tokens, 1))
        if self.model.training:
            self._total_train_tokens += int(seen)
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


def baking_trainer(
    config: DistillConfig, inputs: StageInputs, prompts: Sequence[list[Message]], **kwargs: Any
) -> BakingTrainer:
    """The trainer with its teacher: the adapter off, or a frozen copy of what enters the stage.

    Args:
        config: the stage.
        inputs: of it.
        prompts: what the teacher reads before each row of the table.
        kwargs: of TRL's trainer.
    """
    trainer = BakingTrainer(**kwargs)
    copied = None
    if config.lora is None:
        copied = frozen_copy(trainer, locate(inputs.model), inputs.model_config)
    # Of the distributions as they are, whatever the temperature of the sampling was.
    trainer.teacher = PolicyTeacher(trainer, copied, "forward_kl", top_k=config.top_k)
    trainer.prompts = prompts
    return trainer
