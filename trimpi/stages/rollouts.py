"""The nouns of a rollout batch: completions as they were sampled, graded, and in their groups."""

import statistics
from dataclasses import dataclass

from trimpi.stages.rewards import Graded

TOLERANCE = 1e-6
"""Rewards closer than this are equal: their group has no signal (all advantages zero)."""


@dataclass(frozen=True)
class Sampled:
    """One generated row; `logprobs` are the sampler's own, where it gives them."""

    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float] | None


@dataclass(frozen=True)
class Rolled:
    """A completion with its verdict; `aware`: generated with the policy in context."""

    aware: bool
    sampled: Sampled
    graded: Graded


@dataclass(frozen=True)
class Group:
    """All 2G completions of one prompt, in the order of the group layout."""

    row: int
    """The prompt's row in the data set."""
    rolled: tuple[Rolled, ...]

    def rewards(self, metric: str = "reward") -> list[float]:
        """Those that could be graded; `metric` is "reward" or "accuracy"."""
        values = (getattr(rolled.graded, metric) for rolled in self.rolled)
        return [float(value) for value in values if value is not None]


def mean_abs_advantage(rewards: list[float]) -> float:
    """Mean |R - mean| / std of a group, 0 without signal; 2 sqrt(p (1 - p)) of 0/1 rewards."""
    if len(rewards) < 2 or (spread := statistics.pstdev(rewards)) < TOLERANCE:
        return 0.0
    mean = statistics.fmean(rewards)
    return statistics.fmean(abs(reward - mean) for reward in rewards) / spread
