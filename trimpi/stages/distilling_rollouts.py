"""On-policy context distillation (OPCD, arXiv 2602.12275) as a narrow subclass of our GRPO trainer.

    o ~ pi(. | Q, I)
    L = mean over tokens of D(pi(. | Q, I, o_<t), pi_T(. | P, Q, I, o_<t))

What a rollout batch is, its order, its generation and its resume are those of RL. The loss alone
is another: no advantage and no reward, but the divergence from a teacher that sees the policy, at
every token, of whole distributions. As in the supervised stages the mean is over all tokens of an
update. The grader's verdict on the rollouts is logged and not learned from.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trimpi.prompt import Message
from trimpi.recipe import OnPolicyDistillConfig
from trimpi.stages.divergence import at_most
from trimpi.stages.policy_rollout import PolicyRolloutTrainer
from trimpi.stages.policy_teacher import PolicyTeacher
from trimpi.stages.rollout_metrics import WeightedMean
from trimpi.stages.throughput import Throughput
from trimpi.stages.two_views import SCORED

LOGGED = ("divergence", "clipped", "entropy")
"""What is logged of the tokens of an update, beside the loss."""


class DistillingRolloutTrainer(Throughput, PolicyRolloutTrainer):
    """Rollouts without the policy; the loss is their divergence from a teacher that sees it."""

    stage = "on_policy_distill"
    args: Any
    teacher: PolicyTeacher
    """Set by whoever makes the trainer, as its own model needs the trainer first."""

    def __init__(
        self,
        *args: Any,
        config: OnPolicyDistillConfig,
        shown: Callable[[int], list[Message]],
        **kwargs: Any,
    ) -> None:
        """
        Args:
            config: the stage.
            shown: what the teacher reads of a row, by the row's place in the split.
            args, kwargs: of TRL's trainer.
        """
        super().__init__(*args, policy_fraction=0.0, **kwargs)
        self.config, self.shown = config, shown
        self._rolling = False
        self._means = {name: WeightedMean() for name in LOGGED}

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._rolling = not self.as_given
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self._rolling = False
        for name in [key for key in self._metrics["train"] if key.startswith("rollout/no_signal")]:
            del self._metrics["train"][name]  # of groups that share a baseline, and there is none
        return output

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if self._rolling:  # TRL would score what it sampled, for a ratio that this loss lacks
            ids, kept = args[1], args[3]
            return torch.zeros(len(ids), kept, device=ids.device), None, None
        return super()._get_per_token_logps_and_entropies(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        prompts = [self.shown(place) for place in inputs["place"].tolist()]
        divergence, entropy = self.divergence(model, inputs, prompts)
        limited = at_most(divergence, self.config.kl_clip)
        tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if self.model.training:  # those of the rollout batch, of which this is one update's window
            tokens *= self.current_gradient_accumulation_steps / self.args.steps_per_generation
        loss = limited.sum() / tokens
        self._check(loss, inputs)
        if self.model.training:
            found = divergence.detach()
            above = found > (self.config.kl_clip or torch.inf)
            self._note(divergence=found, clipped=above.float(), entropy=entropy)
        return loss

    def divergence(
        self, model: Any, inputs: dict[str, Any], prompts: list[list[Message]]
    ) -> tuple[Tensor, Tensor]:
        """At each token of the completions of a micro batch, and the student's entropy. [N] both

        Args:
            model: the student, as it is wrapped.
            inputs: the micro batch.
            prompts: what the teacher reads before each completion.
        """
        kept = inputs["completion_mask"]
        shown = {
            n: inputs[n] for n in SCORED if n in inputs and n not in ("num_images", "num_tiles")
        }
        batch = {
            "input_ids": torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            "attention_mask": torch.cat([inputs["prompt_mask"], kept], dim=1),
            **shown,
        }
        predicted = torch.cat([torch.zeros_like(inputs["prompt_mask"]), kept], dim=1).bool()
        return self.teacher.divergence(model, batch, predicted, prompts)

    def teacher_gap(self, rows: list[dict[str, Any]], free: list[Message]) -> tuple[float, float]:
        """Mean divergence a token before the first step, in nats, on completions of one prompt.

        The random state and the log are left as they were.

        Args:
            rows: copies of one row of the training data.
            free: its policy-free prompt.

        Returns:
            Where the teacher reads the same prompt, and where it reads the policy too.
        """
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        training = self.model.training
        with torch.random.fork_rng(devices=devices), torch.no_grad():
            self.model.train()
            self.as_given = True
            try:
                batch = self._generate_and_score_completions(rows)
            finally:
                self.as_given = False
            self.model.eval()
            shown = self.shown(rows[0]["row"])
            gaps = [
                self.divergence(self.model, batch, [prompt] * len(rows))[0].abs().mean()
                for prompt in (free, shown)
            ]
        self.model.train(training)
        self.forget_log()
        return float(gaps[0]), float(gaps[1])

    def _note(self, **values: Tensor) -> None:
        for name, found in values.items():
            self._means[name].add(found, torch.ones_like(found))
            if self.accelerator.sync_gradients:
                mean = self._means[name].take(self.accelerator)
                if mean is not None:
                    key = name if name == "entropy" else f"distill/{name}"
                    self._metrics["train"][key].append(mean)
