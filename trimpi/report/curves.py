"""Logged steps to curves: loss and reward of each stage, and the two halves of a rollout batch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from trimpi.report.load import Run, Stage
from trimpi.runs import chain_name

Points = list[tuple[float, float]]

BINS = 60
"""A curve of more points is drawn as the means of so many equal stretches."""


@dataclass(frozen=True)
class Curve:
    """One quantity over steps: a line per seed and their mean."""

    name: str
    by_seed: dict[int, Points]

    @property
    def mean(self) -> Points:
        """Mean over the seeds that logged a step."""
        at: dict[float, list[float]] = {}
        for points in self.by_seed.values():
            for x, y in points:
                at.setdefault(x, []).append(y)
        return [(x, sum(ys) / len(ys)) for x, ys in sorted(at.items())]

    @property
    def smooth(self) -> Points:
        """The mean curve in at most `BINS` stretches."""
        return binned(self.mean)

    @property
    def ends(self) -> tuple[float, float]:
        """First and last value of the smoothed mean."""
        points = self.smooth
        return points[0][1], points[-1][1]


@dataclass(frozen=True)
class Panel:
    """A chart: some curves that share an axis."""

    title: str
    quantity: str
    curves: list[Curve]
    share: bool = False
    """Whether values are shares of 1."""
    note: str = ""


@dataclass
class Panels:
    """All charts of training."""

    learning: list[Panel] = field(default_factory=list)
    rollouts: list[Panel] = field(default_factory=list)


def _halves(quantity: str) -> tuple[tuple[str, str], ...]:
    return (
        ("without", f"rollout/free/{quantity}"),
        ("with policy", f"rollout/aware/{quantity}"),
    )


AWARE = "rollout/aware/reward"
"""A stage that logs this made policy-aware rollouts; plain GRPO has one kind of row."""

ROLLOUT_PANELS: tuple[tuple[str, bool, tuple[tuple[str, str], ...]], ...] = (
    ("reward", False, _halves("reward")),
    ("accuracy", True, _halves("accuracy")),
    (
        "groups without signal",
        True,
        (("without alone", "rollout/no_signal/free"), ("pooled", "rollout/no_signal/pooled")),
    ),
    ("length, tokens", False, _halves("length")),
    (
        "log-probability a token, given the policy-free prompt",
        False,
        _halves("logp_without_policy"),
    ),
)
"""Title, whether a share, and (label, metric) of each chart about the halves of a group."""


def panels(run: Run) -> Panels:
    """Charts of every stage that logged something, in the order of the recipe's chains."""
    found = Panels()
    for chain in dict.fromkeys(stage.chain for stage in run.stages):
        stages = [stage for stage in run.stages if stage.chain == chain]
        name, kind = chain_name(chain).replace("+", " → "), stages[0].kind
        if kind == "rl":
            found.learning += _panel(name, "reward", stages, (("reward", "reward"),))
            found.learning += _panel(
                name, "accuracy on held-out rows", stages, (("", "validation/accuracy"),), True
            )
            aware = any(AWARE in row for stage in stages for row in stage.steps)
            for title, share, metrics in ROLLOUT_PANELS if aware else ():
                found.rollouts += _panel(name, title, stages, metrics, share)
            if not aware:
                one = (("", "rollout/no_signal/pooled"),)
                found.learning += _panel(name, "groups without signal", stages, one, True)
        else:
            found.learning += _panel(name, "loss", stages, (("loss", "loss"),))
            solved = (("", "rollout/free/accuracy"),)
            found.learning += _panel(name, "accuracy of rollouts", stages, solved, True)
    return found


def _panel(
    title: str,
    quantity: str,
    stages: Sequence[Stage],
    metrics: Iterable[tuple[str, str]],
    share: bool = False,
) -> list[Panel]:
    curves = []
    for label, metric in metrics:
        by_seed = {stage.seed: series(stage.steps, metric) for stage in stages}
        by_seed = {seed: points for seed, points in by_seed.items() if points}
        if by_seed:
            curves.append(Curve(label, by_seed))
    return [Panel(title, quantity, curves, share)] if curves else []


def series(steps: Iterable[dict[str, Any]], metric: str) -> Points:
    """(step, value) of the steps that logged a finite number under this name."""
    return [
        (float(row["step"]), float(row[metric]))
        for row in steps
        if isinstance(row.get(metric), int | float)
        and "step" in row
        and abs(row[metric]) < float("inf")
    ]


def binned(points: Points, bins: int = BINS) -> Points:
    """Means of `bins` stretches of equally many points; short curves as they are."""
    if len(points) <= bins:
        return points
    edges = [round(index * len(points) / bins) for index in range(bins + 1)]
    parts = [points[a:b] for a, b in pairwise(edges)]
    return [
        (sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts
    ]
