"""The stages of a recipe: what each kind is told. Imports no torch.

Defaults are the paper's numbers (arXiv 2510.09474, hyperparameter table) wherever it gives one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from trimpi.recipe_fields import (
    Count,
    Flag,
    Fraction,
    NonNegative,
    PositiveFloat,
    PositiveInt,
    Section,
)
from trimpi.recipe_rl import RlOptions, Validation, option_problems
from trimpi.recipe_rules import OWNED_TRAINER_KEYS

Scheduler = Literal["constant", "constant_with_warmup", "cosine", "linear"]

LORA_PARTS = ("language", "vision", "all")
"""Parts of a model that adapters can go to by one word."""


class LoraConfig(Section):
    """Low-rank adapters; merged into the weights when the stage ends."""

    r: PositiveInt = 8
    alpha: PositiveInt = 16
    dropout: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    target_modules: Any = "language"
    """`language` (all linear layers of the language model, never lm_head), `vision` (those of the
    vision tower and its projector), `all` (both), or a list of names."""

    @field_validator("target_modules")
    @classmethod
    def _known_targets(cls, value: Any) -> Any:
        names = isinstance(value, list | tuple) and value and all(isinstance(v, str) for v in value)
        if value not in LORA_PARTS and not names:
            raise ValueError(f"must be one of {', '.join(LORA_PARTS)}, or a list of module names")
        if names and "lm_head" in value:
            raise ValueError("'lm_head' cannot carry an adapter here; leave it out")
        return value


class StageConfig(Section):
    """A stage: a model folder in, a model folder out."""

    kind: str


class TrainingConfig(StageConfig):
    """What all stages that train share. Sizes are global: over all devices."""

    split: str
    limit: PositiveInt | None = None
    """Use only the first `limit` rows of the split."""
    epochs: PositiveFloat = 1.0
    max_steps: PositiveInt | None = None
    """Stop after so many optimizer updates, whatever `epochs` says."""
    lr: PositiveFloat
    micro_batch_size: PositiveInt = 1
    """Sequences per device in one forward and backward pass."""
    lora: LoraConfig | None = None
    """None trains all parameters."""
    freeze_vision: Flag = False
    warmup_ratio: Fraction = 0.0
    lr_scheduler: Scheduler = "cosine"
    weight_decay: NonNegative = 0.0
    max_grad_norm: PositiveFloat = 1.0
    gradient_checkpointing: Flag = False
    bf16: Flag | None = None
    """Autocast to bfloat16; None follows the device."""
    save_steps: PositiveInt | None = None
    """Optimizer updates between checkpoints; None saves once per epoch."""
    keep_last: PositiveInt = 2
    """Whole checkpoints that are kept while the stage trains, beside the one being written."""
    logging_steps: PositiveInt = 1
    trainer: Mapping[str, Any] = Field(default_factory=dict)
    """Further fields of TRL's config class of the stage, passed through as they are."""

    @model_validator(mode="after")
    def _adapters_where_gradients_go(self) -> Self:
        if self.freeze_vision and self.lora and self.lora.target_modules in ("vision", "all"):
            raise ValueError(
                f"freeze_vision and lora.target_modules {self.lora.target_modules!r} contradict "
                "each other; drop one"
            )
        return self

    @field_validator("trainer")
    @classmethod
    def _not_ours(cls, value: Mapping[str, Any]) -> Mapping[str, Any]:
        ours = [
            f"{key!r} is set by the stage; {OWNED_TRAINER_KEYS[key]}"
            for key in value
            if key in OWNED_TRAINER_KEYS
        ]
        if ours:
            raise ValueError("\n".join(ours))
        return value


class SupervisedConfig(TrainingConfig):
    """A stage that learns from written targets."""

    batch_size: PositiveInt
    """Samples per optimizer update, over all devices."""
    replay_ratio: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """Share of the stage's training sequences that are general examples of the recipe's
    `replay`; 0.25 is one of four. The stage's own rows are all kept."""

    @model_validator(mode="after")
    def _whole_batches(self) -> Self:
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}; change either"
            )
        return self


class CptConfig(SupervisedConfig):
    """VM-CPT (paper, stage 1): every non-visual token of (P, I, Q, C, A) is in the loss."""

    kind: Literal["cpt"] = "cpt"
    split: str = "train_cot"
    epochs: PositiveFloat = 5.0
    lr: PositiveFloat = 1e-5
    batch_size: PositiveInt = 128
    texts: str | None = None
    """A split of texts about the policies (`policy_text`) that is mixed in: trained without the
    policy in the prompt, all non-visual tokens in the loss. `limit` does not cut it."""
    texts_epochs: PositiveInt = 1
    """How often a text is seen per epoch of the stage."""

    @model_validator(mode="after")
    def _texts(self) -> Self:
        if self.texts == self.split:
            raise ValueError(f"texts {self.texts!r} is the stage's own split; name another one")
        if self.texts is None and self.texts_epochs != 1:
            raise ValueError("texts_epochs belongs to 'texts'; name the split of the texts")
        return self


class SftConfig(SupervisedConfig):
    """Supervised fine-tuning on (C, A) or A alone, policy out of the prompt (paper, stage 2)."""

    kind: Literal["sft"] = "sft"
    target: Literal["cot", "answer"] = "cot"
    split: str = "train_cot"
    epochs: PositiveFloat = 5.0
    lr: PositiveFloat = 1e-4
    batch_size: PositiveInt = 64
    lora: LoraConfig | None = LoraConfig()
    show_policy: Literal[False, True, "fading"] = False
    """Put the policy into the training prompt (a baseline that the paper finds near random);
    `fading` shows all of its sections in the first epoch, fewer in each, and none in the last
    (after PromptIntern, arXiv 2407.02211)."""

    @field_validator("show_policy", mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            raise ValueError(f"must be true, false or fading, found {value!r}")  # 1 equals true
        return value

    @model_validator(mode="after")
    def _fades_over_epochs(self) -> Self:
        if self.show_policy == "fading" and self.epochs <= 1:
            raise ValueError(
                f"show_policy fading goes from the whole policy in the first epoch to none in the "
                f"last, and {self.epochs:g} epochs are one; give more epochs"
            )
        return self


class RolloutConfig(TrainingConfig):
    """A stage that learns from completions which it samples as it trains."""

    split: str = "train"
    prompts_per_step: PositiveInt
    """Prompts in one rollout batch; each gets `group_size` completions."""
    group_size: PositiveInt
    updates_per_rollout: PositiveInt = 1
    """Optimizer updates made from one rollout batch, each on an equal share of its completions."""
    validation: Validation | None = None
    """Held-out rows answered while the stage trains; None for none."""
    temperature: PositiveFloat = 1.0
    max_new_tokens: PositiveInt = 512

    @property
    def shows_policy(self) -> bool:
        """Whether prompts with the policy in context are needed at all."""
        return True

    @property
    def rollouts(self) -> int:
        """Completions of one rollout batch."""
        return self.prompts_per_step * self.group_size

    @property
    def batch_size(self) -> int:
        """Completions per optimizer update, over all devices."""
        return self.rollouts // self.updates_per_rollout

    def size_problems(self) -> list[str]:
        """Sizes that do not divide."""
        if self.prompts_per_step % self.updates_per_rollout:
            return [
                f"prompts_per_step {self.prompts_per_step} is not a multiple of "
                f"updates_per_rollout {self.updates_per_rollout}; change either"
            ]
        if self.batch_size % self.micro_batch_size:
            return [
                f"an update has {self.batch_size} completions (prompts_per_step x group_size / "
                f"updates_per_rollout), not a multiple of micro_batch_size {self.micro_batch_size}"
            ]
        return []


class RlConfig(RlOptions, RolloutConfig):
    """GRPO, and with `policy_fraction` > 0 PolicyRollout GRPO (paper, stage 3)."""

    kind: Literal["rl"] = "rl"
    epochs: PositiveFloat = 2.0
    lr: PositiveFloat = 1e-6
    prompts_per_step: PositiveInt = 384
    group_size: Annotated[int, Field(ge=2, strict=True)] = 16
    """Completions per prompt that share one baseline: the paper's pooled 2G."""
    policy_fraction: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.5
    """Share of a group generated with the policy in context; 0 is plain GRPO."""
    updates_per_rollout: PositiveInt = 1
    """Optimizer updates made from one rollout batch, each on an equal share of its completions.
    From the second on the ratio leaves 1 and clipping acts."""
    beta: NonNegative = 0.01
    kl_reference: Literal["start", "base"] = "start"
    """What the KL term pulls towards: the model that enters the stage, or the recipe's `model`."""
    epsilon: PositiveFloat = 0.2
    epsilon_high: PositiveFloat = 0.3
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = "grpo"
    accuracy_weight: PositiveFloat = 1.0
    format_weight: NonNegative = 0.5
    preflight_prompts: Count = 16
    """Prompts tried before the first step: pass rate and groups without signal; 0 skips it."""
    preflight_rollouts: Annotated[int, Field(ge=2, strict=True)] = 4
    instance_filter: Literal["none", "solvable", "free_only"] = "none"
    """Leave out prompts that the model never solves before training: `solvable` tries with and
    without the policy in context, `free_only` without it alone (RIF-RFT, arXiv 2507.05386)."""
    filter_rollouts: Annotated[int, Field(ge=2, strict=True)] = 8
    """Completions a prompt that the filter judges by."""
    filter_solved: Flag = False
    """Also leave out prompts that are always solved, which give no signal either."""

    @field_validator("policy_fraction", mode="before")
    @classmethod
    def _some_without_the_policy(cls, value: Any) -> Any:
        if isinstance(value, int | float) and value >= 1:
            raise ValueError(
                f"{value:g} leaves no policy-free row in a group; choose a share below 1 (paper: "
                "0.5)"
            )
        return value

    @property
    def shows_policy(self) -> bool:
        """Whether prompts with the policy in context are needed at all."""
        return self.policy_fraction > 0 or self.teacher is not None

    @model_validator(mode="after")
    def _whole_groups(self) -> Self:
        problems = self.size_problems()
        aware = self.group_size * self.policy_fraction
        if aware != int(aware):
            problems.append(
                f"policy_fraction {self.policy_fraction} of group_size {self.group_size} is "
                f"{aware:g} completions; choose a share that gives a whole number"
            )
        problems += self._unused_controls()
        if self.format_weight >= self.accuracy_weight:
            problems.append(
                f"format_weight {self.format_weight:g} must be below accuracy_weight "
                f"{self.accuracy_weight:g}, or form is worth more than being right"
            )
        problems += option_problems(self)
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _unused_controls(self) -> list[str]:
        """Settings against forgetting that would do nothing, or cannot be done."""
        problems = []
        if self.kl_reference == "base" and self.beta == 0:
            problems.append("kl_reference 'base' does nothing with beta 0; raise beta or drop it")
        if self.instance_filter == "none" and self.filter_solved:
            problems.append("filter_solved belongs to instance_filter; choose one, or drop it")
        halved = self.instance_filter == "solvable" and self.policy_fraction > 0
        if halved and self.filter_rollouts % 2:
            problems.append(
                f"filter_rollouts {self.filter_rollouts} is odd; half of them see the policy, so "
                "give an even number"
            )
        return problems


class InterpolateConfig(StageConfig):
    """Weights between the recipe's base model and the model that enters: no training.

    theta = (1 - weight) * base + weight * entering (WiSE-FT, arXiv 2109.01903).
    """

    kind: Literal["interpolate"] = "interpolate"
    weight: Annotated[float, Field(ge=0, le=1, strict=True)]
    """Share of the model that enters; 0 gives the base back."""
