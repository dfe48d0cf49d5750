"""Before and after on the same rows: difference, 95% interval, p-value, and a verdict in words.

The interval and the p-value are two readings of one test, so that they never contradict each other:
the interval leaves out 0 exactly where p < 0.05.

0/1 scores: the exact McNemar test (binomial on the rows that flipped). Its interval is that of the
share of gains among flipped rows (Clopper and Pearson 1934, the inversion of the same binomial
test) times the share of rows that flipped (Wilson), the two uncertainties combined by PropImp
(Newcombe 2011, "Propagating imprecision").

Other scores (parts of a point, or several seeds averaged row by row): the paired bootstrap over
rows. One row wholly won and one wholly lost are added before resampling, as in the adjusted Wald
interval of Bonett and Price (2012): few rows, or rows that all agree, then leave a width. p is
twice the smaller share of resampled means beyond 0, the interval the matching percentiles.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimpi.evaluate.statistics import Z95, wilson

LEVEL = 0.05
RESAMPLES = 9999
"""One less than a round number: p = 2 (k + 1) / (RESAMPLES + 1), Davison and Hinkley 1997, 4.2."""
MCNEMAR, BOOTSTRAP = "exact McNemar", "paired bootstrap"
ANGLES = 48
"""Steps of a quarter turn between the two uncertainties of the interval."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """`after` minus `before` over `rows` pairs, as shares of 1.

    `low` and `high` bound the 95% interval; `p` is two-sided; `gained` and `lost` count the rows
    that score higher and lower after. `p_adjusted` is Holm's, where several were tested together.
    """

    value: float
    low: float
    high: float
    p: float
    rows: int
    gained: int
    lost: int
    test: str
    p_adjusted: float | None = None

    @property
    def significant(self) -> bool:
        """Of the adjusted p-value where there is one."""
        return (self.p if self.p_adjusted is None else self.p_adjusted) < LEVEL

    @property
    def words(self) -> str:
        """ "significant" or "not significant"."""
        return "significant" if self.significant else "not significant"

    def to_json(self) -> dict[str, Any]:
        """All fields, with the words."""
        return {**asdict(self), "words": self.words}


def compare_pairs(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Verdict | None:
    """The verdict on scores in [0, 1] of the same rows; None without rows.

    Args:
        before: one score a row; over several seeds, the mean of the row's scores.
        after: the same rows in the same order.
        seed: of the resampling.

    Raises:
        ValueError: lengths differ, or a score is not in [0, 1].
    """
    first, second = np.asarray(before, dtype=float), np.asarray(after, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"{len(first)} rows before and {len(second)} after")
    both = np.concatenate([first, second])
    if not ((both >= 0) & (both <= 1)).all():
        raise ValueError("a score outside of [0, 1]")
    if not len(first):
        return None
    gained, lost = int((second > first).sum()), int((second < first).sum())
    value = math.fsum(second - first) / len(first)
    if np.isin(both, (0.0, 1.0)).all():
        low, high = mcnemar_interval(gained, lost, len(first))
        p, test = mcnemar(gained, lost), MCNEMAR
    else:
        low, high, p = bootstrap(second - first, seed)
        test = BOOTSTRAP
    return Verdict(value, min(value, low), max(value, high), p, len(first), gained, lost, test)


def mcnemar(gained: int, lost: int) -> float:
    """Two-sided p of McNemar's exact test: the doubled smaller tail of Binomial(flipped, 1/2)."""
    flipped, few = gained + lost, min(gained, lost)
    ways, tail = 1, 1
    for k in range(few):
        ways = ways * (flipped - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << flipped))


def mcnemar_interval(gained: int, lost: int, rows: int) -> tuple[float, float]:
    """95% interval of the difference (gained - lost) / rows; has 0 inside where p >= 0.05.

    The difference is the share of flipped rows times (2 x share of gains among them - 1). PropImp
    goes over all ways to share out the squared normal quantile 1.96^2 between both factors and
    takes the extremes.
    """
    turn = np.linspace(0.0, math.pi / 2, ANGLES + 1)
    alpha = np.array([math.erfc(Z95 * math.cos(a) / math.sqrt(2)) for a in turn])
    alpha[0] = LEVEL  # the share of gains takes it all: this decides whether 0 is inside
    flipped = [wilson(gained + lost, rows, Z95 * math.sin(a)) for a in turn]
    least = np.array([share.low for share in flipped if share])
    most = np.array([share.high for share in flipped if share])
    low = 2 * _binomial_low(gained, gained + lost, alpha / 2) - 1
    high = 1 - 2 * _binomial_low(lost, gained + lost, alpha / 2)
    return (
        float((np.where(low > 0, least, most) * low).min()),
        float((np.where(high < 0, least, most) * high).max()),
    )


def _binomial_low(successes: int, trials: int, alpha: Floats) -> Floats:
    """Lower Clopper-Pearson bounds: where P(X >= successes) is `alpha`, by bisection."""
    low = np.zeros_like(alpha)
    if successes == 0:
        return low
    high = np.ones_like(alpha)
    k = np.arange(successes, trials + 1)
    ways = _log_ways(trials)[successes:]
    for _ in range(48):
        middle = (low + high) / 2
        logs = ways + np.outer(np.log(middle), k) + np.outer(np.log1p(-middle), trials - k)
        above = np.exp(logs).sum(axis=1) > alpha
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return (low + high) / 2


@lru_cache(maxsize=64)
def _log_ways(trials: int) -> Floats:
    """Logarithms of the binomial coefficients of `trials`."""
    whole = math.lgamma(trials + 1)
    return np.array(
        [whole - math.lgamma(k + 1) - math.lgamma(trials - k + 1) for k in range(trials + 1)]
    )


def bootstrap(differences: Floats, seed: int = 0) -> tuple[float, float, float]:
    """Low, high and p of the mean difference; rows are resampled, one of +1 and one of -1 added."""
    values, counts = np.unique(np.round([*differences, 1.0, -1.0], 12), return_counts=True)
    size = int(counts.sum())
    draw = np.random.default_rng(seed)
    means = np.sort(
        np.concatenate(
            [
                # as many draws at a time as keep to some 8 MB
                draw.multinomial(size, counts / size, min(step, RESAMPLES - start)) @ values / size
                for step in [max(1, 1_000_000 // len(values))]
                for start in range(0, RESAMPLES, step)
            ]
        ).round(12)
    )
    below, above = int((means <= 0).sum()), int((means >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (RESAMPLES + 1))
    # The first place whose count makes p reach the level: low > 0 exactly where p < LEVEL.
    place = math.ceil(LEVEL * (RESAMPLES + 1) / 2 - 1e-9) - 2
    return float(means[place]), float(means[RESAMPLES - 1 - place]), p


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values by name (Holm 1979): below a level, the family errs at most so often."""
    found: dict[str, float] = {}
    least = 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        least = max(least, min(1.0, (len(p_values) - place) * p))
        found[name] = least
    return {name: found[name] for name in p_values}


def verdict_line(what: str, found: Mapping[str, Any]) -> str:
    """As "forgetting: -0.4 points [-1.1, +0.3], not significant (p = 0.312, exact McNemar, 800
    rows)".

    Args:
        what: what was compared.
        found: `Verdict.to_json()`.
    """
    value, low, high = in_points(found)
    p = p_words(found["p"] if found.get("p_adjusted") is None else found["p_adjusted"])
    kind = " by Holm" if found.get("p_adjusted") is not None else ""
    return (
        f"{what}: {value} points [{low}, {high}], {found['words']}"
        f" ({p}{kind}, {found['test']}, {found['rows']:,} rows)"
    )


def in_points(found: Mapping[str, Any]) -> tuple[str, str, str]:
    """Value, low and high in points with their signs, in as many digits as tell low from 0."""
    values = [100 * found[key] for key in ("value", "low", "high")]
    inside = found["low"] <= 0 <= found["high"]
    digits = 1
    while not inside and digits < 4 and any(abs(v) < 0.5 * 10**-digits for v in values):
        digits += 1
    texts = [f"{v:+.{digits}f}" for v in values]
    zero = f"{0:.{digits}f}"
    value, low, high = (zero if float(text) == 0 else text for text in texts)
    return value, low, high


def p_words(p: float) -> str:
    """As "p = 0.031"; close to the level with more digits, so that its side can be seen."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if f"{p:.3f}" != f"{LEVEL:.3f}" else f"p = {p:.5f}"
