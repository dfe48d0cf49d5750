"""A number over seeds: mean, deviation, interval."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimpi.evaluate.statistics import mean_and_spread, wilson
from trimpi.report.load import Evaluation

Cell = dict[str, Any]
Pick = Callable[[dict[str, Any]], Mapping[str, Any] | None]
"""Takes a proportion out of the summary of a setting."""


def cell(
    evaluations: Sequence[Evaluation],
    pick: Pick = lambda s: s["accuracy"],
) -> Cell | None:
    """A proportion over seeds: mean, standard deviation over seeds, interval; None if absent.

    The interval is Wilson's for the mean at the number of rows of *one* seed: seeds share the test
    rows, so more seeds do not make the test set larger.
    """
    found = {e.seed: p for e in evaluations if (p := pick(e.summary)) is not None}
    if not found:
        return None
    values = {s: float(p["value"]) for s, p in found.items() if p.get("value") is not None}
    result: Cell = {"mean": None, "sd": None, "low": None, "high": None, "by_seed": values}
    result["rows"] = max(int(p.get("scored", 0)) for p in found.values())
    result["unscored"] = sum(int(p.get("unscored", 0)) for p in found.values())
    if values:
        result["mean"], result["sd"] = mean_and_spread(list(values.values()))
        interval = wilson(min(result["mean"], 1.0) * result["rows"], result["rows"])
        if interval:
            result["low"], result["high"] = interval.low, interval.high
    return result


def at(key: str, name: str) -> Pick:
    """The proportion `summary[key][name]`, if there is one."""
    return lambda summary: summary.get(key, {}).get(name)
