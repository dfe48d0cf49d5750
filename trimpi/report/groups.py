"""Numbers of tool calls over seeds: by part of the score, by tool, by rule, and mix-ups."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.diagnosis import in_order
from trimpi.evaluate.statistics import mean_and_spread
from trimpi.report.cells import at, cell
from trimpi.report.load import Evaluation, Run


def by_call(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """What the summaries of a setting hold of `parts`, `by_tool` and `by_rule`; {} without.

    `parts`: mean, deviation over seeds and rows (of one seed) by name. `by_tool`: an accuracy cell
    by tool, with its `parts`. `by_rule`: by id how many rows follow the rule (`right`) out of how
    many (`rows`), those of all seeds counted together, and the `value`, which is the mean over
    seeds.
    """
    summaries = [e.summary for e in evaluations]
    result: dict[str, Any] = {}
    if found := _parts(summaries):
        result["parts"] = found
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
    if names := _names(summaries, "by_rule"):
        result["by_rule"] = {
            name: _rule(name, [s["by_rule"][name] for s in summaries if _has(s, "by_rule", name)])
            for name in names
        }
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


def rule_texts(run: Run, models: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Text of each rule by id, in the order of the policy; {} where no row names a rule.

    The rules of policies for overriding (ids with a slash) are other ones under the same ids. An id
    that two policies word differently has no text.
    """
    named = {
        rule
        for model in models
        for setting in model["settings"].values()
        for rule in setting.get("by_rule", ())
    }
    if not named:
        return {}
    texts: dict[str, str] = {}
    try:
        policies = [policy for name, policy in run.data.policies.items() if "/" not in name]
    except UserError:  # the numbers need no data folder
        policies = []
    for policy in policies:
        conditions = policy.metadata.get("conditions")
        for rule, text in conditions.items() if isinstance(conditions, Mapping) else ():
            known = texts.setdefault(str(rule), str(text))
            texts[str(rule)] = known if known == str(text) else ""
    rest = sorted(named - texts.keys(), key=in_order)
    return texts | dict.fromkeys(rest, "")


def _parts(summaries: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in _names(summaries, "parts"):
        having = [s for s in summaries if _has(s, "parts", name)]
        mean, deviation = mean_and_spread([float(s["parts"][name]) for s in having])
        rows = max(s.get("part_rows", {}).get(name, 0) for s in having)
        found[name] = {"mean": mean, "sd": deviation, "rows": rows}
    return found


def _rule(name: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    right, rows = 0.0, 0
    for summary in summaries:
        # What the grader says of this rule; without that, of the tool; without that, of the row.
        part = next((p for p in (f"rule/{name}", "tool") if p in summary["parts"]), None)
        share = summary["value"] if part is None else summary["parts"][part]
        count = summary["scored"] if part is None else summary["part_rows"][part]
        right += (share or 0.0) * count
        rows += count
    values = [s["value"] for s in summaries if s["value"] is not None]
    value = mean_and_spread(values)[0] if values else None
    return {"right": round(right, 6), "rows": rows, "value": value}


def _names(summaries: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    return list(dict.fromkeys(name for s in summaries for name in s.get(key, ())))


def _has(summary: Mapping[str, Any], key: str, name: str) -> bool:
    return name in summary.get(key, {})
