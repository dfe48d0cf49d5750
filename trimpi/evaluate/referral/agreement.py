"""How far two judges agree on the same rows: a few lines of arithmetic each."""

import math
from collections.abc import Sequence
from typing import Any

from trimpi.evaluate.referral.judgement import TOP

BANDS = ("0-3", "4-6", "7-10")


def agreement(left: Sequence[float], right: Sequence[float]) -> dict[str, Any]:
    """Measures of agreement of two judges.

    Args:
        left, right: scores in 0..10 of the same rows, those alone that both judges scored.

    Returns:
        `rows`; `pearson` and `spearman` (None where a judge gives one score to all);
        `mean_difference` (right minus left), `mean_absolute_difference`; `weighted_kappa`, Cohen's
        kappa with quadratic weights (Cohen 1968) over scores rounded to whole numbers;
        `bands`, rows by (left, right) in 0-3, 4-6 and 7-10.

    Raises:
        ValueError: lengths differ, or no rows.
    """
    pairs = list(zip(left, right, strict=True))
    if not pairs:
        raise ValueError("no rows")
    bands = [[0] * len(BANDS) for _ in BANDS]
    for a, b in pairs:
        bands[_band(a)][_band(b)] += 1
    return {
        "rows": len(pairs),
        "pearson": pearson(left, right),
        "spearman": pearson(_ranks(left), _ranks(right)),
        "mean_difference": math.fsum(b - a for a, b in pairs) / len(pairs),
        "mean_absolute_difference": math.fsum(abs(a - b) for a, b in pairs) / len(pairs),
        "weighted_kappa": weighted_kappa(left, right),
        "bands": bands,
    }


def pearson(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one side does not vary."""
    a, b = (math.fsum(side) / len(side) for side in (left, right))
    covariance = math.fsum((x - a) * (y - b) for x, y in zip(left, right, strict=True))
    spread = math.fsum((x - a) ** 2 for x in left) * math.fsum((y - b) ** 2 for y in right)
    return covariance / math.sqrt(spread) if spread > 0 else None


def weighted_kappa(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Cohen's kappa, quadratic weights, of scores rounded; None where chance alone agrees fully."""
    a, b = [nearest(x) for x in left], [nearest(x) for x in right]
    seen = sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)
    chance = sum((x - y) ** 2 for x in a for y in b) / (len(a) * len(b))
    return 1 - seen / chance if chance else None


def nearest(score: float) -> int:
    """The whole score next to one, halves up."""
    return min(TOP, math.floor(score + 0.5))


def _band(score: float) -> int:
    return (nearest(score) > 3) + (nearest(score) > 6)


def _ranks(values: Sequence[float]) -> list[float]:
    """Ranks from 1, ties sharing their mean."""
    order = sorted(values)
    first = {value: order.index(value) for value in set(order)}
    counts = {value: order.count(value) for value in first}
    return [first[value] + (counts[value] + 1) / 2 for value in values]
