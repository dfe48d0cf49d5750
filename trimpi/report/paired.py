"""Scores of the same rows under two models, seeds averaged row by row."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from trimpi.evaluate.statistics import paired_difference
from trimpi.report.load import Evaluation
from trimpi.sample import Sample


def by_row(
    evaluations: Sequence[Evaluation], keep: Callable[[Sample], bool] | None = None
) -> dict[str, float]:
    """Mean score of each row over seeds by the row's id, unscored ones left out.

    Args:
        evaluations: one setting of one model, a seed each.
        keep: which rows; None is all.
    """
    found: dict[str, list[float]] = {}
    for evaluation in evaluations:
        kept = None if keep is None else {s.id for s in evaluation.samples if keep(s)}
        for row in evaluation.scores:
            if row["value"] is not None and (kept is None or row["id"] in kept):
                found.setdefault(row["id"], []).append(row["value"])
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def over(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    keep: Callable[[Sample], bool] | None = None,
) -> dict[str, Any] | None:
    """`after` minus `before` on the rows that both have: value, low, high, `rows`; None without."""
    first, second = by_row(before, keep), by_row(after, keep)
    shared = [id for id in first if id in second]
    found = paired_difference([first[i] for i in shared], [second[i] for i in shared])
    return None if found is None else {**found._asdict(), "rows": len(shared)}
