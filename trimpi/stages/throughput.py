"""Tokens and rollouts a second, and the share of a device's peak that training uses.

Rates are over the logging interval, in wall time: generation, grading, validation and saving count.
"""

import re
import time
from pathlib import Path
from typing import Any

import torch

from trimpi.model import count_parameters
from trimpi.runs import read_metrics

TOKENS, ROLLOUTS, MFU = "tokens_per_second", "rollouts_per_second", "mfu"
RATES = (TOKENS, ROLLOUTS, MFU)
PEAKS = (
    ({"H200", "NVL"}, 835e12),
    ({"H200"}, 989e12),
    ({"H100", "NVL"}, 835e12),
    ({"H100", "PCIe"}, 756e12),
    ({"H100"}, 989e12),
    ({"A100"}, 312e12),
    ({"L4"}, 121e12),
    ({"RTX", "4090"}, 165e12),
)
"""Words of a device's name -> its dense bfloat16 peak, FLOP/s (NVIDIA's data sheets, without
sparsity); the first match counts."""
OTHER = {"MIG", "Laptop", "D"}
"""Words of parts and of slower kin of these devices."""


class Throughput:
    """Mix-in of a Trainer that adds `RATES` to what it logs.

    `sequences_per_update`: completions of an update over all devices in RL, 0 elsewhere.
    """

    sequences_per_update = 0
    _since: tuple[float, int] | None = None
    """Seconds and tokens where the interval of the token rate began."""
    _updated: tuple[float, int] = (0.0, 0)
    """Seconds and updates where that of the rollout rate began."""

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        """The trainer's own; the first one starts the clock, as counts are restored by then."""
        if self._since is None:
            now = time.perf_counter()
            self._since = (now, self._tokens_seen())
            self._updated = (now, self.state.global_step)
        return super().training_step(*args, **kwargs)  # type: ignore[misc]

    def log(self: Any, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """The trainer's own, with the rates where it logs a step."""
        if "loss" in logs and self._since is not None:
            logs.update(self._rates(time.perf_counter()))
        super().log(logs, *args, **kwargs)  # type: ignore[misc]

    def _rates(self: Any, now: float) -> dict[str, float]:
        found = {}
        (start, before), seen = self._since, self._tokens_seen()
        # Rollouts of several updates are counted when they are made; the interval goes on to them.
        if seen > before and now > start:
            rate = (seen - before) / (now - start)
            found[TOKENS] = rate
            if (peak := device_peak()) is not None:
                peak *= self.accelerator.num_processes
                found[MFU] = flops_per_token(*self._parameters()) * rate / peak
            self._since = (now, seen)
        start, step = self._updated
        if self.sequences_per_update and self.state.global_step > step and now > start:
            updates = self.state.global_step - step
            found[ROLLOUTS] = updates * self.sequences_per_update / (now - start)
            self._updated = (now, self.state.global_step)
        return found

    def _tokens_seen(self: Any) -> int:
        """Tokens of all devices: TRL counts them apart in SFT, in the state in GRPO."""
        apart = self._total_train_tokens if self.sequences_per_update == 0 else 0
        return int(apart or self.state.num_input_tokens_seen)

    def _parameters(self: Any) -> tuple[int, int]:
        return count_parameters(self.model), count_parameters(self.model, trainable=True)


def flops_per_token(parameters: int, trainable: int) -> int:
    """Model FLOPs of training on a token: 6N where all of N is trained (Kaplan et al. 2020).

    Two a parameter forward, two backward to the activations, and two for the gradient of each
    that is trained. Attention scores, pictures apart from their tokens, a reference model and
    generation are left out.
    """
    return 4 * parameters + 2 * trainable


def device_peak(name: str | None = None) -> float | None:
    """Dense bfloat16 FLOP/s of a device by its name; None where it is not known.

    Args:
        name: as the driver gives it; None for the current device, which may be none.
    """
    if name is None:
        if not torch.cuda.is_available():
            return None
        name = torch.cuda.get_device_name()
    words = set(re.split(r"[\s-]+", name))
    if words & OTHER:
        return None
    return next((peak for wanted, peak in PEAKS if wanted <= words), None)


def throughput_means(output: Path) -> dict[str, float]:
    """Means of the logged rates of a stage folder, in all its sittings."""
    rows = read_metrics(output)
    values = {key: [row[key] for row in rows if row.get(key) is not None] for key in RATES}
    return {key: sum(found) / len(found) for key, found in values.items() if found}
