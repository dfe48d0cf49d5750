"""The stages that distill a policy out of the context, as sections of a recipe. Imports no torch.

The teacher is the model itself with the policy in its prompt; neither needs a reward.
"""

from typing import Literal, Self

from pydantic import model_validator

from trimpi.recipe_fields import NonNegative, PositiveFloat, PositiveInt
from trimpi.recipe_stages import LoraConfig, RolloutConfig, SupervisedConfig


class DistillConfig(SupervisedConfig):
    """Context distillation: SFT on the model's own answers, which it gave with the policy in
    context, behind prompts without it (Askell et al. 2021, arXiv 2112.00861; Snell et al. 2022,
    arXiv 2209.15189). With `loss: forward_kl` it is prompt baking (arXiv 2409.13697)."""

    kind: Literal["distill"] = "distill"
    split: str = "train"
    target: Literal["cot", "answer"] = "cot"
    """The response format that is asked for, in generation and in training."""
    epochs: PositiveFloat = 5.0
    lr: PositiveFloat = 1e-4
    batch_size: PositiveInt = 64
    lora: LoraConfig | None = LoraConfig()
    rollouts: PositiveInt = 1
    """Completions a row."""
    temperature: NonNegative = 1.0
    """Of the sampling; 0 is greedy."""
    max_new_tokens: PositiveInt = 512
    """A completion that is cut off there is never trained on."""
    generation_batch_size: PositiveInt = 16
    """Prompts per device that are answered together."""
    filter: Literal["none", "grader"] = "none"
    """`grader` keeps the completions that the recipe's grader scores 1."""
    loss: Literal["nll", "forward_kl"] = "nll"
    """What is learned of a completion: its tokens, or at each of them the whole distribution of
    the model that enters, which sees the policy: KL(teacher || student)."""
    top_k: PositiveInt | None = None
    """forward_kl only: the teacher's likeliest tokens, all others taken as one; None for all."""

    @model_validator(mode="after")
    def _keys_of_the_loss(self) -> Self:
        if self.loss == "nll" and self.top_k is not None:
            raise ValueError("top_k belongs to loss forward_kl; set that, or drop top_k")
        if self.loss == "forward_kl" and self.replay_ratio:
            raise ValueError(
                "loss forward_kl has a teacher for rows with a policy alone, and general examples "
                "have none; set replay_ratio to 0, or loss to nll"
            )
        return self

    @model_validator(mode="after")
    def _rollouts_differ(self) -> Self:
        if self.temperature == 0 and self.rollouts > 1:
            raise ValueError(
                f"temperature 0 gives the same completion {self.rollouts} times; raise it, or set "
                "rollouts to 1"
            )
        return self


class OnPolicyDistillConfig(RolloutConfig):
    """On-policy context distillation (OPCD, arXiv 2602.12275): the student answers without the
    policy, and at each token of its answer is pulled towards a frozen teacher that sees it."""

    kind: Literal["on_policy_distill"] = "on_policy_distill"
    epochs: PositiveFloat = 1.0
    lr: PositiveFloat = 5e-5
    lora: LoraConfig | None = LoraConfig()
    prompts_per_step: PositiveInt = 128
    group_size: PositiveInt = 1
    """Completions per prompt; there is no baseline, so one is enough."""
    divergence: Literal["reverse_kl", "forward_kl", "jsd"] = "reverse_kl"
    """KL(student || teacher), KL(teacher || student), or half of each to their mean, over the
    whole vocabulary at each position."""
    top_k: PositiveInt | None = None
    """The teacher's likeliest tokens, all others taken as one; None for the whole vocabulary."""
    kl_clip: PositiveFloat | None = None
    """The most that a token counts for, in nats: tokens of style carry most of the divergence.
    What is above is scaled down to it, not dropped. None for no bound."""
    teacher: Literal["start", "base"] = "start"
    """The model that enters the stage, or the recipe's `model`."""

    @model_validator(mode="after")
    def _sizes(self) -> Self:
        problems = self.size_problems()
        if self.rollouts < 2:
            problems.append("a rollout batch of one completion; raise prompts_per_step")
        if problems:
            raise ValueError("\n".join(problems))
        return self
