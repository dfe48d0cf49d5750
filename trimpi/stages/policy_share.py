"""How many completions of a group are policy-aware, batch by batch."""

import math
from collections.abc import Mapping
from typing import Any

from trimpi.group_layout import spread
from trimpi.recipe import RlConfig


class PolicyShare:
    """The share of policy-aware completions: constant, annealed, or following its use.

    The share is always a whole number of completions in the layout of `group_layout`, and at
    least one completion stays policy-free. The start is `policy_fraction`, the end
    `policy_share_end`:

        annealed   share(b) = start + (end - start) b / (B - 1)      for batch b = 0 .. B - 1
        adaptive   share    = end + (start - end) clip(lead / gap, 0, 1)

    `lead` is the moving mean of (mean reward of aware - mean reward of free completions). At a
    share of 0 nothing is compared any more and it stays there; an end above 0 keeps comparing.
    """

    def __init__(self, config: RlConfig, batches: int) -> None:
        """
        Args:
            config: the stage.
            batches: rollout batches of the whole stage.
        """
        self._config, self._batches = config, batches
        self.lead: float | None = None

    def value(self, batch: int) -> float:
        """The share asked for in rollout batch `batch`, before it is rounded."""
        config = self._config
        start, end = config.policy_fraction, config.policy_share_end
        if config.policy_share == "annealed" and self._batches > 1:
            return start + (end - start) * min(1.0, batch / (self._batches - 1))
        if config.policy_share == "adaptive":
            return end + (start - end) * self.trust()
        return start

    def trust(self) -> float:
        """clip(lead / gap, 0, 1): how far the policy in context helps; 1 before it is known."""
        if self.lead is None:
            return 1.0
        return min(1.0, max(0.0, self.lead / self._config.adaptive.gap))

    def layout(self, batch: int) -> tuple[bool, ...]:
        """The layout of the groups of rollout batch `batch`: half a completion rounds up."""
        size = self._config.group_size
        count = math.floor(size * self.value(batch) + 0.5 + 1e-9)
        return spread(size, min(count, size - 1))

    def observe(self, aware: float | None, free: float | None) -> None:
        """Take the mean rewards of both halves of a batch; None where a half is empty."""
        if aware is None or free is None:
            return
        decay, now = self._config.adaptive.decay, aware - free
        self.lead = now if self.lead is None else decay * self.lead + (1 - decay) * now

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {"lead": self.lead}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with the lead of another."""
        self.lead = state["lead"]
