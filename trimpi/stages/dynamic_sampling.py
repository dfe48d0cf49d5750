"""Dynamic sampling: a rollout batch of groups that all have signal (DAPO, arXiv 2503.14476).

Everything here sees the groups of *all* processes in the same order, so every process comes to
the same decisions and asks for the same number of further batches.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from trimpi.recipe_rl import DynamicSampling
from trimpi.stages.rollouts import Group


def has_signal(values: Sequence[float], tolerance: float) -> bool:
    """Whether the standard deviation of a group's values exceeds the tolerance.

    Values need not be 0 or 1; a filter of the mean would keep groups that are all 0.5.
    """
    return len(values) > 1 and statistics.pstdev(values) > tolerance


@dataclass
class Totals:
    """What dynamic sampling has cost since the stage began; kept in checkpoints."""

    batches: int = 0
    tries: int = 0
    groups: int = 0
    with_signal: int = 0
    dropped: int = 0
    exhausted: int = 0
    in_a_row: int = 0
    """Batches in a row, up to the last one, that were not filled."""


@dataclass
class Refill:
    """One batch: the groups to train on, and how it came about.

    `surplus` groups had signal and found no place; `filled` is false after `max_tries`.
    """

    groups: list[Group]
    tries: int
    sampled: int
    with_signal: int
    right: float
    """Mean accuracy of the groups without signal; NaN without any."""
    surplus: int = 0
    filled: bool = True
    dropped: int = field(init=False)

    def __post_init__(self) -> None:
        self.dropped = self.sampled - len(self.groups)

    def metrics(self) -> dict[str, float]:
        """What is logged of the batch."""
        return {
            "rollout/dynamic/tries": float(self.tries),
            "rollout/dynamic/groups": float(self.sampled),
            "rollout/dynamic/dropped": float(self.dropped),
            "rollout/dynamic/surplus": float(self.surplus),
            "rollout/dynamic/signal": self.with_signal / self.sampled,
            "rollout/dynamic/exhausted": float(not self.filled),
        }


def refill(sample: Callable[[], Sequence[Group]], wanted: int, options: DynamicSampling) -> Refill:
    """Sample batches of groups until `wanted` groups have signal, at most `max_tries` times.

    The first groups with signal are kept, in the order in which they came. What is missing after
    the last try is filled with the first groups without signal; they have no advantage.

    Args:
        sample: gives the next `wanted` groups, of new prompts.
        wanted: groups of a batch.
        options: the recipe's section.
    """
    kept: list[Group] = []
    silent: list[Group] = []
    tries = 0
    while len(kept) < wanted and tries < options.max_tries:
        tries += 1
        for group in sample():
            signal = has_signal(group.rewards(options.metric), options.tolerance)
            (kept if signal else silent).append(group)
    accuracy = [value for group in silent for value in group.rewards("accuracy")]
    return Refill(
        groups=[*kept, *silent][:wanted],
        tries=tries,
        sampled=len(kept) + len(silent),
        with_signal=len(kept),
        right=statistics.fmean(accuracy) if accuracy else math.nan,
        surplus=max(0, len(kept) - wanted),
        filled=len(kept) >= wanted,
    )


class DynamicRecord:
    """Counts over the stage, and when to stop."""

    def __init__(self, options: DynamicSampling) -> None:
        self._options, self.totals = options, Totals()
        self.stopped: str | None = None
        """Why the stage ends early, None as long as it does not."""

    def add(self, batch: Refill) -> list[str]:
        """Count a batch; returns warnings for the terminal."""
        totals = self.totals
        totals.batches += 1
        totals.tries += batch.tries
        totals.groups += batch.sampled
        totals.with_signal += batch.with_signal
        totals.dropped += batch.dropped
        most = self._options.max_groups
        if most is not None and totals.groups >= most:
            self.stopped = f"{totals.groups} groups are sampled, and max_groups is {most}"
        if batch.filled:
            totals.in_a_row = 0
            return []
        totals.exhausted += 1
        totals.in_a_row += 1
        found = (
            f"{batch.with_signal} of {batch.sampled} groups had signal in {batch.tries} tries"
            + ("" if math.isnan(batch.right) else f"; in the others {batch.right:.0%} was right")
        )
        filled = max(0, len(batch.groups) - batch.with_signal)
        lines = [f"dynamic sampling: {found}; {filled} groups without signal fill the batch"]
        if totals.in_a_row >= self._options.patience:
            self.stopped = (
                f"the data has no signal left: {totals.in_a_row} batches in a row were not filled "
                f"({found}); train on harder or easier prompts, or raise group_size or temperature"
            )
        return lines

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {**vars(self.totals), "stopped": self.stopped}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on counting from another's numbers."""
        values = dict(state)
        self.stopped = values.pop("stopped")
        self.totals = Totals(**values)
