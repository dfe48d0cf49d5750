"""Scores of the same rows under two models, seeds averaged row by row."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trimpi.evaluate.verdict import Verdict, compare_pairs, holm
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
    tables = []
    for evaluation in evaluations:
        kept = None if keep is None else {s.id for s in evaluation.samples if keep(s)}
        tables.append(
            {
                row["id"]: row["value"]
                for row in evaluation.scores
                if row["value"] is not None and (kept is None or row["id"] in kept)
            }
        )
    return mean_by_row(tables)


def mean_by_row(tables: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of a row over the tables, one a seed, that have it."""
    found: dict[str, list[float]] = {}
    for table in tables:
        for name, value in table.items():
            found.setdefault(name, []).append(value)
    return {name: math.fsum(values) / len(values) for name, values in found.items()}


def over(
    before: Sequence[Evaluation],
    after: Sequence[Evaluation],
    keep: Callable[[Sample], bool] | None = None,
) -> dict[str, Any] | None:
    """`after` minus `before` on the rows that both have, as `Verdict.to_json()`; None without."""
    found = pair(by_row(before, keep), by_row(after, keep))
    return None if found is None else found.to_json()


def pair(before: Mapping[str, float], after: Mapping[str, float]) -> Verdict | None:
    """The verdict on the rows that both have; None without."""
    shared = [id for id in before if id in after]
    return compare_pairs([before[i] for i in shared], [after[i] for i in shared])


def change(
    before: Mapping[str, float], after: Mapping[str, float], categories: Mapping[str, str]
) -> dict[str, Any] | None:
    """A change over all rows and by category, as reports and `trimpi compare` show it.

    Args:
        before: scores by row.
        after: the same, in part or in whole.
        categories: of the rows, by their id; rows without count in `all` alone.

    Returns:
        `all` and `by_task` (by category), each with `before`, `after` (means), `rows` and
        `difference`. The p-value of `all` stands alone; those of several categories are adjusted
        together (Holm). None where no row is in both.
    """
    shared = [id for id in before if id in after]
    if not shared:
        return None
    groups: dict[str, list[str]] = {}
    for id in shared:
        if id in categories:
            groups.setdefault(categories[id], []).append(id)
    verdicts = {name: _verdict(before, after, groups[name]) for name in sorted(groups)}
    if len(verdicts) > 1:
        adjusted = holm({name: verdict.p for name, verdict in verdicts.items()})
        verdicts = {n: replace(v, p_adjusted=adjusted[n]) for n, v in verdicts.items()}
    return {
        "all": _change(before, after, shared, _verdict(before, after, shared)),
        "by_task": {n: _change(before, after, groups[n], v) for n, v in verdicts.items()},
    }


def _verdict(
    before: Mapping[str, float], after: Mapping[str, float], ids: Sequence[str]
) -> Verdict:
    found = compare_pairs([before[i] for i in ids], [after[i] for i in ids])
    assert found is not None
    return found


def _change(
    before: Mapping[str, float], after: Mapping[str, float], ids: Sequence[str], verdict: Verdict
) -> dict[str, Any]:
    return {
        "before": math.fsum(before[i] for i in ids) / len(ids),
        "after": math.fsum(after[i] for i in ids) / len(ids),
        "difference": verdict.to_json(),
        "rows": len(ids),
    }
