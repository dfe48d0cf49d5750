"""Break-even: after how many requests training has paid for itself, in money and in device time.

In money, a request costs its input tokens. Before training these are policy and request, all at
the price of input tokens, or with the policy at the price of cached tokens (every request a hit,
which flatters the cache); after training the request alone. What is generated costs the same each
way and drops out. In device time, training is set against what a request takes of the device at a
batch size, as the setting `efficiency` measured it; that needs no price, but the same device.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimpi.prices import PriceConfig

RIVALS: Mapping[str, str] = {
    "with_policy": "policy in the prompt",
    "cached_prefix": "policy in the prompt, cached",
}
"""What the trained model is compared with."""


@dataclass(frozen=True)
class Outcome:
    """One comparison: what a request takes before and after training, in one unit.

    `requests` until training is paid for; None where it is not known what training took, and
    where `saved` is not above 0, so that it never is.
    """

    rival: str
    before: float
    after: float
    training: float | None

    @property
    def saved(self) -> float:
        return self.before - self.after

    @property
    def never(self) -> bool:
        return self.saved <= 0

    @property
    def requests(self) -> int | None:
        if self.never or self.training is None:
            return None
        return math.ceil(self.training / self.saved)

    def days(self, rates: Sequence[int]) -> dict[str, float | None]:
        """Days to break even by requests a day."""
        return {str(r): None if self.requests is None else self.requests / r for r in rates}


def break_even(
    efficiency: Mapping[str, Any] | None,
    cost: Mapping[str, Any] | None,
    prices: PriceConfig,
    arm: str | None,
    devices: int = 1,
) -> dict[str, Any] | None:
    """The break-even of an arm, as summary.json holds it.

    Args:
        efficiency: of the summary: `prompt_tokens` and, if measured, `serving`.
        cost: what training the arm took (`report.costs`).
        prices: what to reckon with.
        arm: its name.
        devices: that training ran on.

    Returns:
        `training` (`seconds`, `devices`, `device_hours`, `cost` in USD or None, `given`,
        `resumed`), `tokens`, `prices`, `money` (one a rival) and `device` (one a rival and batch
        size), each with `before`, `after`, `saved`, `never`, `requests` and `days` by rate. None
        if there is nothing to compare.
    """
    if not efficiency or not cost or arm is None:
        return None
    seconds = cost["seconds"]
    hours = None if seconds is None else seconds * devices / 3600
    spent = prices.training_cost
    if spent is None and hours is not None and prices.gpu_hour is not None:
        spent = hours * prices.gpu_hour
    tokens = efficiency["prompt_tokens"]
    rates = prices.requests_per_day
    return {
        "arm": arm,
        "training": {
            "seconds": seconds,
            "devices": devices,
            "device_hours": hours,
            "cost": spent,
            "given": prices.training_cost is not None,
            "resumed": bool(cost.get("resumed")),
        },
        "tokens": {
            "policy": tokens["with_policy"] - tokens["without_policy"],
            "request": tokens["without_policy"],
        },
        "prices": prices.model_dump(mode="json"),
        "money": [_as_json(outcome, rates) for outcome in in_money(tokens, prices, spent)],
        "device": [
            {"batch_size": size, **_as_json(outcome, rates)}
            for size, outcome in in_device_time(efficiency.get("serving"), hours)
        ],
    }


def in_money(
    tokens: Mapping[str, float], prices: PriceConfig, training: float | None
) -> list[Outcome]:
    """USD of input a request, against the policy in the prompt and against the cached one."""
    if prices.price is None:
        return []
    request = tokens["without_policy"]
    policy = tokens["with_policy"] - request
    tuned = prices.price if prices.tuned_price is None else prices.tuned_price
    after = request * tuned / 1e6
    found = [Outcome("with_policy", (policy + request) * prices.price / 1e6, after, training)]
    if prices.cached_price is not None:
        before = (policy * prices.cached_price + request * prices.price) / 1e6
        found.append(Outcome("cached_prefix", before, after, training))
    return found


def in_device_time(
    serving: Mapping[str, Any] | None, hours: float | None
) -> list[tuple[int, Outcome]]:
    """Seconds of the device a request by batch size, where both ways were measured."""
    training = None if hours is None else 3600 * hours
    found = []
    for size in (serving or {}).get("sizes", ()):
        ways, batch = size["ways"], size["batch_size"]
        if ways["without_policy"] is None:
            continue
        after = ways["without_policy"]["request_seconds"] / batch
        for rival in RIVALS:
            if ways[rival] is not None:
                before = ways[rival]["request_seconds"] / batch
                found.append((batch, Outcome(rival, before, after, training)))
    return found


def _as_json(outcome: Outcome, rates: Sequence[int]) -> dict[str, Any]:
    return {
        "rival": outcome.rival,
        "before": outcome.before,
        "after": outcome.after,
        "saved": outcome.saved,
        "never": outcome.never,
        "requests": outcome.requests,
        "days": outcome.days(rates),
    }
