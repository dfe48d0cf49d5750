"""Numbers over seeds by part of the score, by tool and by rule, and labels mixed up."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.evaluate.diagnosis import in_order
from trimpi.evaluate.statistics import mean_and_spread
from trimpi.report import rules
from trimpi.report.cells import at, cell
from trimpi.report.load import Evaluation


def by_call(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What the summaries of a setting hold of `parts`, `by_tool` and `by_rule`; {} without.

    `parts`: mean, deviation over seeds and rows (of one seed) by name. `by_tool`: an accuracy cell
    by tool, with its `parts`. `by_rule`: see `rules.by_rule`.
    """
    summaries = [e.summary for e in evaluations]
    result: dict[str, Any] = {}
    if parts := _parts(summaries):
        result["parts"] = parts
    if names := _names(summaries, "by_tool"):
        result["by_tool"] = {
            name: {
                **(cell(evaluations, at("by_tool", name)) or {}),
                "parts": _parts(
                    [s["by_tool"][name] for s in summaries if _has(s, "by_tool", name)]
                ),
            }
            for name in names
        }
    if found := rules.by_rule(evaluations):
        result["by_rule"] = found
    return result


def whole_parts(cell: Mapping[str, Any] | None) -> list[str]:
    """Names of the parts of the whole score, such as `tool` and `argument`.

    A part with a slash in its name, such as `field/query`, is about something smaller.
    """
    return [name for name in (cell or {}).get("parts", ()) if "/" not in name]


def confusions(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, dict[str, int]]]:
    """`{group: {gold: {said: rows}}}`, the rows of all seeds counted together."""
    counts: dict[str, dict[str, Counter[str]]] = {}
    for evaluation in evaluations:
        diagnosis = evaluation.summary.get("diagnosis") or {}
        for group, table in diagnosis.get("confusions", {}).items():
            for gold, said in table.items():
                counts.setdefault(group, {}).setdefault(gold, Counter()).update(said)
    return {
        group: {gold: dict(counts[group][gold]) for gold in sorted(counts[group], key=in_order)}
        for group in sorted(counts)
    }


def _parts(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in _names(summaries, "parts"):
        having = [s for s in summaries if _has(s, "parts", name)]
        mean, deviation = mean_and_spread([float(s["parts"][name]) for s in having])
        rows = max(s.get("part_rows", {}).get(name, 0) for s in having)
        found[name] = {"mean": mean, "sd": deviation, "rows": rows}
    return found


def _names(summaries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(name for s in summaries for name in s.get(key, ())))


def _has(summary: Mapping[str, Any], key: str, name: str) -> bool:
    return name in summary.get(key, {})
