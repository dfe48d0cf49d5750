"""Options of the RL stage beyond the paper's GRPO, as sections of a recipe. Imports no torch.

Each is off by default. The rules between them and the stage's own keys are `option_problems`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from trimpi.recipe_fields import Count, Flag, NonNegative, PositiveFloat, PositiveInt, Section

Share = Annotated[float, Field(ge=0, lt=1, strict=True)]


class DynamicSampling(Section):
    """DAPO's dynamic sampling: groups without signal are replaced by groups of new prompts."""

    max_tries: PositiveInt = 20
    """Rollout batches sampled for one batch to train on, at most; then it is filled up with groups
    without signal."""
    metric: Literal["reward", "accuracy"] = "reward"
    """What must differ within a group: the whole reward, or the grader's value alone."""
    tolerance: NonNegative = 1e-6
    """A group has signal when the standard deviation of its pooled 2G values exceeds this."""
    patience: PositiveInt = 3
    """Batches in a row that `max_tries` did not fill, after which the stage ends."""
    max_groups: PositiveInt | None = None
    """Groups sampled in the whole stage, those dropped included, after which it ends: a budget of
    rollouts. None for none."""


class Overlong(Section):
    """DAPO's soft punishment of length, eq. 13: 0 before the cache, -1 at `max_new_tokens`."""

    cache: PositiveInt
    """The last tokens before `max_new_tokens`, over which the penalty grows."""
    weight: PositiveFloat = 1.0


class AdaptiveShare(Section):
    """How an adaptive policy share, or teacher, follows the rewards of both halves."""

    gap: PositiveFloat = 0.2
    """Lead of the policy-aware half (mean reward) at which the whole `policy_fraction` is used,
    and the whole weight of a teacher `while_ahead`."""
    decay: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.8
    """Weight of the past in the moving mean of the lead; 0 looks at the last batch alone."""


class Importance(Section):
    """Token weights of policy-aware rows, w = min(cap, pi(o|x) / pi(o|x, P)), old weights."""

    cap: PositiveFloat = 1.0
    shaping: Literal["none", "luffy"] = "none"
    """`luffy` takes w / (w + gamma) in place of w (LUFFY, arXiv 2504.14945)."""
    gamma: PositiveFloat = 0.1


class Downsample(Section):
    """D3S (arXiv 2509.22115): learn from the completions of greatest variance of advantage."""

    keep: PositiveInt
    """Completions of a rollout batch that are learned from."""
    min_free: Annotated[int, Field(ge=0, strict=True)] = 0
    """Of these, policy-free ones at least."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.min_free > self.keep:
            raise ValueError(f"min_free {self.min_free} is more than keep {self.keep}")
        return self


class Curriculum(Section):
    """SEC (arXiv 2505.14970): a bandit draws prompts by category, where advantages are large."""

    by: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)]
    """Keys of a row's `facts`; rows of equal values (lists: of equal lengths) are one category."""
    alpha: Annotated[float, Field(gt=0, le=1, strict=True)] = 0.5
    """Q <- (1 - alpha) Q + alpha x mean |advantage|."""
    temperature: PositiveFloat = 0.4
    """Categories are drawn by softmax(Q / temperature)."""
    decay_unseen: Flag = True
    """A category without a row in a batch is updated with 0; false leaves its Q as it is."""


class Teacher(Section):
    """Reverse KL a token of the policy-free path to the policy-bearing one, on free rows."""

    weight: PositiveFloat
    kl_clip: PositiveFloat = 1.0
    """Bound of the log-ratio of a token, in nats, both ways: tokens of style carry most of it."""
    while_ahead: Flag = False
    """The weight is multiplied by clip(lead / adaptive.gap, 0, 1), the lead of the policy-aware
    half in reward: a teacher that is no better than its pupil is not followed."""


class Validation(Section):
    """Rows that are answered while the stage trains: greedy, without the policy."""

    split: Annotated[str, Field(min_length=1)] = "test"
    rows: PositiveInt = 100
    """Evenly spread over the split; all if it has fewer."""
    every: PositiveInt = 10
    """Updates between two measurements; there is one before the first and one after the last."""


class Scoring(Section):
    """How log-probabilities and losses are computed: the same numbers, up to rounding, sooner."""

    share_pictures: Flag = True
    """A picture goes through the vision tower once for all rows that show it; once for the whole
    stage where nothing on the way from pixels to features is trained."""
    trim_padding: Flag = True
    """Passes without gradient take rows of like length together; columns that are padding in all
    rows of a pass are left out."""
    deal_rows: Flag = True
    """Within an update, micro batches are made of rows of the same prompt and of like length, so
    that its pictures go through the tower once. Only where the loss does not depend on it."""
    cache_mib: Count = 1024
    """Features of pictures that are kept in host memory, in MiB; 0 keeps none."""


class RlOptions(Section):
    """The keys of an RL stage that choose among these options."""

    advantage: Literal["group", "group_mean", "batch", "beta_norm"] = "group"
    """What a reward is divided by after the group's mean is taken off: the group's standard
    deviation, nothing (Dr. GRPO), that of the batch, or a Beta density (BNPO, arXiv 2506.02864)."""
    generation: Literal["shared", "plain"] = "shared"
    """`shared` reads a prompt once for all of its completions, and draws by row whatever the
    batching; `plain` leaves loop and draws to TRL. An engine (`trainer.use_vllm`) has its own."""
    dynamic_sampling: DynamicSampling | None = None
    overlong: Overlong | None = None
    downsample: Downsample | None = None
    curriculum: Curriculum | None = None
    policy_share: Literal["constant", "annealed", "adaptive"] = "constant"
    """Whether the share of policy-aware completions stays `policy_fraction`, falls linearly to
    `policy_share_end`, or follows the lead of the policy-aware half in reward."""
    policy_share_end: Share = 0.0
    adaptive: AdaptiveShare = AdaptiveShare()
    aware_when: Literal["always", "all_failed"] = "always"
    """`all_failed`: only prompts whose policy-free completions all fail get policy-aware ones
    (Guide, arXiv 2506.13923); the others get policy-free ones in their place."""
    aware_positives_only: Flag = False
    """Policy-aware completions with a negative advantage are not learned from."""
    aware_weighting: Literal["none", "importance"] = "none"
    importance: Importance = Importance()
    teacher: Teacher | None = None
    reliance_every: Count = 0
    """Rollout batches between two measurements of how much policy-aware completions rely on the
    policy, log p(o|x,P) - log p(o|x), one more forward pass each; 0 measures only where a weight
    needs both anyway."""
    scoring: Scoring = Scoring()


def option_problems(config: Any) -> list[str]:
    """Faults between the options of an RL stage (`recipe.RlConfig`) and its own keys."""
    return [*_sampling_problems(config), *_aware_problems(config), *_trainer_problems(config)]


def _sampling_problems(config: Any) -> list[str]:
    problems = []
    if config.overlong is not None and config.overlong.cache >= config.max_new_tokens:
        problems.append(
            f"overlong.cache {config.overlong.cache} must be below max_new_tokens "
            f"{config.max_new_tokens}, or every completion is too long"
        )
    if (down := config.downsample) is not None:
        free = config.rollouts - round(config.rollouts * config.policy_fraction)
        if down.keep >= config.rollouts:
            problems.append(
                f"downsample.keep {down.keep} must be below the {config.rollouts} completions of "
                "a rollout batch (prompts_per_step x group_size)"
            )
        if down.min_free > free:
            problems.append(
                f"downsample.min_free {down.min_free} is more than the {free} policy-free "
                "completions of a rollout batch"
            )
    return problems


def _aware_problems(config: Any) -> list[str]:
    problems = []
    comparing = {
        "policy_share adaptive": config.policy_share == "adaptive",
        "teacher.while_ahead": config.teacher is not None and config.teacher.while_ahead,
    }
    if config.policy_fraction == 0:
        asked = {
            "policy_share": config.policy_share != "constant",
            "aware_when": config.aware_when != "always",
            "aware_positives_only": config.aware_positives_only,
            "aware_weighting": config.aware_weighting != "none",
            "reliance_every": config.reliance_every > 0,
            "teacher.while_ahead": comparing["teacher.while_ahead"],
        }
        problems += [
            f"{key} is about policy-aware completions, and policy_fraction 0 leaves none; raise "
            f"policy_fraction or drop {key}"
            for key, there in asked.items()
            if there
        ]
    if config.policy_share == "constant" and config.policy_share_end != 0:
        problems.append("policy_share_end belongs to policy_share annealed or adaptive; set that")
    if config.policy_share_end > config.policy_fraction:
        problems.append(
            f"policy_share_end {config.policy_share_end:g} is above policy_fraction "
            f"{config.policy_fraction:g}, where the share starts; lower it"
        )
    if not any(comparing.values()) and config.adaptive != AdaptiveShare():
        problems.append(
            "adaptive belongs to policy_share adaptive and teacher.while_ahead; set one or drop it"
        )
    problems += [
        f"{key} compares both halves of the same prompts, and aware_when all_failed gives the "
        "hard prompts alone to one half; drop either"
        for key, asked in comparing.items()
        if asked and config.aware_when == "all_failed"
    ]
    if config.aware_weighting == "none" and config.importance != Importance():
        problems.append("importance belongs to aware_weighting importance; set that or drop it")
    return problems


def _trainer_problems(config: Any) -> list[str]:
    problems = []
    if config.trainer.get("multi_objective_aggregation", "sum_then_normalize") != (
        "sum_then_normalize"
    ):
        problems.append(
            "trainer.multi_objective_aggregation: there is one reward here; for advantages by "
            "part of it set advantage to beta_norm"
        )
    if config.advantage != "group" and "scale_rewards" in config.trainer:
        problems.append(
            f"trainer.scale_rewards is what advantage {config.advantage} decides; drop it"
        )
    return problems
