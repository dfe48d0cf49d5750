"""Batch arithmetic: what global sizes mean for each device, and how many updates follow."""

import math
from dataclasses import dataclass

from trimpi.errors import UserError
from trimpi.group_layout import aware_in_group, period
from trimpi.recipe import (
    CptConfig,
    DistillConfig,
    RlConfig,
    RolloutConfig,
    SftConfig,
    SupervisedConfig,
    TrainingConfig,
)
from trimpi.replay import general_count


@dataclass(frozen=True)
class Schedule:
    """Optimizer updates of a stage; `arithmetic` is the derivation in words.

    `accumulation` counts forward and backward passes of a device per update, `general` the
    general examples of an epoch.
    """

    rows: int
    updates: int
    accumulation: int
    arithmetic: str
    general: int = 0


def plan_schedule(
    config: TrainingConfig,
    rows: int,
    devices: int,
    key: str = "stage",
    texts: int = 0,
    made: int | None = None,
) -> Schedule:
    """Derive the numbers of a stage from `rows` of its split.

    Args:
        config: the stage.
        rows: rows in the split, before the stage's `limit`.
        devices: processes that train together.
        key: dotted key of the stage for messages.
        texts: rows of the split of texts that are mixed in.
        made: rows that a `distill` stage kept of its own completions; None before they are known,
            and then the numbers are the most that there can be.

    Raises:
        UserError: the sizes do not divide, devices would differ in policy-aware rows, or the
            split is too small for one rollout batch.
    """
    assert isinstance(config, SupervisedConfig | RolloutConfig)
    rows = min(rows, config.limit or rows) if made is None else made
    share = config.micro_batch_size * devices
    if config.batch_size % share:
        raise UserError(
            f"{key}: a batch of {config.batch_size} is not a multiple of micro_batch_size "
            f"{config.micro_batch_size} x {devices} devices; change one of them"
        )
    accumulation, general = config.batch_size // share, 0
    if isinstance(config, RolloutConfig):
        updates, text = _rollouts(config, rows, devices, key)
        unit = "completions"
    else:
        seen, what = rows, f"{rows} rows"
        if isinstance(config, DistillConfig):
            seen = rows * config.rollouts if made is None else made
            what = f"{made} completions"
            if made is None:
                what = f"at most {seen} completions ({rows} rows x {config.rollouts})"
        if isinstance(config, CptConfig) and config.texts is not None:
            seen += texts * config.texts_epochs
            times = f" x {config.texts_epochs}" if config.texts_epochs > 1 else ""
            what += f" + {texts} texts{times}"
        if config.replay_ratio:
            general = general_count(seen, config.replay_ratio)
            seen += general
            what += f" + {general} general"
        if " + " in what:
            what = f"({what})"
        passes = math.ceil(seen / share)
        per_epoch = math.ceil(passes / accumulation)
        updates = max(1, math.ceil(per_epoch * config.epochs))
        unit, text = "rows", f"{what} x {config.epochs:g} epochs"
        if isinstance(config, SftConfig) and config.show_policy == "fading":
            if min(updates, config.max_steps or updates) <= per_epoch:
                raise UserError(
                    f"{key}: show_policy fading needs a second epoch, and the stage ends within "
                    f"the first of {per_epoch} updates; raise epochs or max_steps"
                )
            text += " with fewer sections of the policy in each"
    if config.max_steps is not None:
        updates = min(updates, config.max_steps)
        text += f", cut at max_steps {config.max_steps}"
    return Schedule(
        rows=rows,
        updates=updates,
        accumulation=accumulation,
        general=general,
        arithmetic=(
            f"{text} = {updates} updates of {config.batch_size} {unit} "
            f"({config.micro_batch_size} per pass x {_count(accumulation, 'pass', 'passes')} x "
            f"{_count(devices, 'device', 'devices')})"
        ),
    )


def _rollouts(config: RolloutConfig, rows: int, devices: int, key: str) -> tuple[int, str]:
    per_epoch = rows // config.prompts_per_step
    if not per_epoch:
        raise UserError(
            f"{key}: {rows} rows are fewer than prompts_per_step {config.prompts_per_step}; "
            "give more rows or lower it"
        )
    batches = math.ceil(per_epoch * config.epochs)
    halves = _halves(config, devices, key) if isinstance(config, RlConfig) else ""
    text = (
        f"{rows} prompts x {config.epochs:g} epochs = {batches} rollout batches of "
        f"{config.prompts_per_step} prompts x {config.group_size} completions{halves}, "
        f"{config.updates_per_rollout} updates each"
    )
    return batches * config.updates_per_rollout, text


def _halves(config: RlConfig, devices: int, key: str) -> str:
    """Which completions see the policy, in words; refuses sizes that part devices."""
    layout = aware_in_group(config.group_size, config.policy_fraction)
    if (share := config.rollouts // devices) % period(layout):
        raise UserError(
            f"{key}: {config.rollouts} completions on {devices} devices are {share} each, not a "
            f"multiple of {period(layout)}, so devices would differ in policy-aware rows; change "
            "prompts_per_step"
        )
    varies = config.policy_share != "constant" or config.aware_when == "all_failed"
    if varies and share % config.group_size:
        raise UserError(
            f"{key}: {config.rollouts} completions on {devices} devices are {share} each, not a "
            f"multiple of group_size {config.group_size}, which a share of the policy that changes "
            "needs; change prompts_per_step"
        )
    return f" ({sum(layout)} with the policy in context)"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
