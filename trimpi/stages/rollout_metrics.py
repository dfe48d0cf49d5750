"""What is logged of a rollout batch: both halves of the groups, and where their signal comes from.

Legend: N rows = prompts x group size, in groups of contiguous rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trimpi.stages.rewards import Graded
from trimpi.stages.rollouts import TOLERANCE

QUANTITIES = ("reward", "accuracy", "format", "length", "truncated", "overlong")


@dataclass(frozen=True)
class RolloutTable:
    """One rollout batch, all processes: `aware` [N] bool, `values` [N, len(QUANTITIES)] float.

    NaN marks what there is not: a row that the grader could not grade, a part that is off.
    """

    aware: Tensor
    values: Tensor
    group_size: int

    def summary(self) -> dict[str, float]:
        """Means of both halves and shares of groups without signal; an empty half is left out.

        Keys: `rollout/{aware,free}/<quantity>`, `rollout/no_signal/{free,pooled}`,
        `rollout/no_signal/rescued` (signal only thanks to the policy-aware rows) and
        `rollout/unscorable`.
        """
        found: dict[str, float] = {}
        for name, half in (("aware", self.aware), ("free", ~self.aware)):
            for index, quantity in enumerate(QUANTITIES):
                mean = self.values[half, index].nanmean()
                if not torch.isnan(mean):
                    found[f"rollout/{name}/{quantity}"] = float(mean)
        rewards = self.values[:, 0].view(-1, self.group_size)
        free_rewards = rewards.masked_fill(self.aware.view(-1, self.group_size), torch.nan)
        free, pooled = without_signal(free_rewards), without_signal(rewards)
        found["rollout/no_signal/free"] = float(free.float().mean())
        found["rollout/no_signal/pooled"] = float(pooled.float().mean())
        found["rollout/no_signal/rescued"] = float((free & ~pooled).float().mean())
        found["rollout/unscorable"] = float(rewards.isnan().float().mean())
        return found

    def mean_rewards(self) -> tuple[float | None, float | None]:
        """Mean rewards of the aware and of the free half; None where a half is empty."""
        means = [self.values[half, 0].nanmean() for half in (self.aware, ~self.aware)]
        aware, free = (None if torch.isnan(mean) else float(mean) for mean in means)
        return aware, free


def as_table(graded: Sequence[Graded]) -> Tensor:
    """The `QUANTITIES` of this process' rows, [rows, len(QUANTITIES)]; NaN where ungradable."""
    rows = [
        (g.reward, g.accuracy, g.form, g.completion.tokens, g.completion.truncated, g.overlong)
        for g in graded
    ]
    return torch.tensor([[torch.nan if v is None else float(v) for v in row] for row in rows])


def without_signal(rewards: Tensor) -> Tensor:
    """Whether all rewards of a group are equal.

    Args:
        rewards: [groups, places], NaN where there is none; a group with fewer than two rewards
            has no signal.

    Returns:
        [groups] bool.
    """
    spread = rewards.nan_to_num(-torch.inf).amax(1) - rewards.nan_to_num(torch.inf).amin(1)
    return ~(spread > TOLERANCE)


class WeightedMean:
    """A mean over tokens that arrives in pieces (micro batches) and is reduced once an update."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0.0

    def add(self, values: Tensor, mask: Tensor) -> None:
        """Add the entries of `values` where `mask` (same shape) is not zero."""
        self.total += float((values * mask).sum())
        self.count += float(mask.sum())

    def take(self, accelerator: Any) -> float | None:
        """The mean over all processes, None without entries; starts anew."""
        pair = torch.tensor([self.total, self.count], device=accelerator.device)
        total, count = accelerator.reduce(pair, reduction="sum").tolist()
        self.total = self.count = 0.0
        return total / count if count else None
