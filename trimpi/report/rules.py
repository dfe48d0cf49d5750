"""Rules of policies in a report: how right each is followed, and which the data exercise."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.diagnosis import in_order
from trimpi.evaluate.statistics import mean_and_spread, wilson
from trimpi.report.load import Evaluation, Run

Used = Sequence[tuple[str, Mapping[str, Any], str]]
"""(name shown, model, setting) of the models to compare."""

FEW = 12
"""Rules that are shown all at once; of more, those that are followed least stand before them."""
WEAKEST = 8


def by_rule(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, dict[str, Any]]]:
    """By policy and rule: how many rows follow the rule (`right`) out of how many (`rows`).

    Rows of all seeds are counted together; `low` and `high` are Wilson's interval of the share at
    the rows of one seed. `value` is the mean score of the rows over seeds. A row follows a rule as
    far as the grader's part `rule/<id>` says, without one its part `tool`, without that its score.
    """
    summaries = [_by_policy(e.summary) for e in evaluations]
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for policy in dict.fromkeys(p for s in summaries for p in s):
        tables = [s[policy] for s in summaries if policy in s]
        rules = dict.fromkeys(rule for table in tables for rule in table)
        found[policy] = {r: _rule(r, [t[r] for t in tables if r in t]) for r in rules}
    return found


def texts(run: Run, models: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Text of each rule by policy and id, in the order of the policy, of policies that rows name.

    Rules have no text where the data folder is gone.
    """
    named: dict[str, set[str]] = {}
    for model in models:
        for setting in model["settings"].values():
            for policy, rules in setting.get("by_rule", {}).items():
                named.setdefault(policy, set()).update(rules)
    try:
        policies = run.data.policies if named else {}
    except UserError:  # the numbers need no data folder
        policies = {}
    found = {}
    for name, rules in named.items():
        conditions = policies[name].metadata.get("conditions") if name in policies else None
        known = conditions if isinstance(conditions, Mapping) else {}
        found[name] = {str(rule): str(text) for rule, text in known.items()}
        found[name] |= dict.fromkeys(sorted(rules - found[name].keys(), key=in_order), "")
    return found


def coverage(run: Run) -> dict[str, dict[str, Any]]:
    """By policy what the card of the data says of its rules; {} where it says nothing.

    `rules`: how many. `training` and `test`, each where a split of it has rows under the policy:
    `exercised` (how many rules) and `uncovered` (ids and texts of the others). Training are
    the splits of the recipe's stages. `rows`: those in training, by rule.
    """
    try:
        card = run.data.card
    except UserError:
        card = {}
    table, views = card.get("coverage"), card.get("views") or {}
    configs = [stage for stage in (run.recipe.get("stages") or {}).values() if stage]
    trained = {config["split"] for config in configs if config.get("split")}
    sides = {
        # A view holds rows of another split, which count once.
        "training": {split for split in trained if views.get(split) not in trained},
        "test": {(run.recipe.get("evaluation") or {}).get("split", "test")},
    }
    found: dict[str, dict[str, Any]] = {}
    for policy, rules in table.items() if isinstance(table, Mapping) else ():
        # Cards of an earlier form count rows by rule alone.
        if not isinstance(rules, Mapping) or not all(map(_is_counted, rules.values())):
            continue
        told: dict[str, Any] = {"rules": len(rules)}
        for side, splits in sides.items():
            rows = {
                rule: sum(entry["rows"].get(split, 0) for split in splits)
                for rule, entry in rules.items()
            }
            if not any(split in entry["rows"] for entry in rules.values() for split in splits):
                continue
            missing = {rule: rules[rule]["text"] for rule, count in rows.items() if not count}
            told[side] = {"exercised": len(rules) - len(missing), "uncovered": missing}
            if side == "training":
                told["rows"] = rows
        if "training" in told or "test" in told:
            found[policy] = told
    return found


def section(summary: Mapping[str, Any], used: Used) -> dict[str, Any]:
    """What the page shows: `names` of the columns, `policies` with their rules, `weakest`.

    `policies` is empty where no row names a rule; `weakest` where all rules are few.
    """
    shown = [(name, c) for name, model, setting in used if (c := model["settings"].get(setting))]
    cells = [cell.get("by_rule", {}) for _, cell in shown]
    names = [name for name, _ in shown]
    leader = names.index(summary["headline_arm"]) if summary["headline_arm"] in names else -1
    policies = []
    for policy, rules in summary["rules"].items():
        if not any(policy in by_policy for by_policy in cells):
            continue
        trained = summary["coverage"].get(policy, {}).get("rows", {})
        table, before = [], None
        for rule, text in rules.items():
            block = rule.rpartition(".")[0]
            counts = [by_policy.get(policy, {}).get(rule) for by_policy in cells]
            row = {"policy": policy, "id": rule, "text": text, "cells": counts}
            table.append({**row, "trained": trained.get(rule), "first": block != before})
            before = block
        policies.append({"id": policy, "rules": table})
    everything = [row for policy in policies for row in policy["rules"]]
    weakest: list[dict[str, Any]] = []
    if len(everything) > FEW:
        asked = [row for row in everything if row["cells"][leader]]
        asked.sort(key=lambda row: _weakness(row["cells"][leader]))
        weakest = [{**row, "first": False} for row in asked[:WEAKEST]]
    return {
        "names": names,
        "policies": policies,
        "weakest": weakest,
        "leader": names[leader] if names else "",
        "total": len(everything),
        "trained": any(row["trained"] is not None for row in everything),
    }


def _by_policy(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """`by_rule` of an evaluation; summaries of earlier versions do not tell policies apart."""
    found = summary.get("by_rule") or {}
    if any("scored" in entry for entry in found.values()):
        policies = list(summary.get("by_policy") or ())
        return {policies[0] if len(policies) == 1 else "": found}
    return dict(found)


def _rule(name: str, summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    right, rows, most = 0.0, 0, 0
    for summary in summaries:
        # What the grader says of this rule; without that, of the tool; without that, of the row.
        part = next((p for p in (f"rule/{name}", "tool") if p in summary["parts"]), None)
        share = summary["value"] if part is None else summary["parts"][part]
        count = summary["scored"] if part is None else summary["part_rows"][part]
        right += (share or 0.0) * count
        rows += count
        most = max(most, count)
    values = [s["value"] for s in summaries if s["value"] is not None]
    value = mean_and_spread(values)[0] if values else None
    interval = wilson(min(right / rows, 1.0) * most, most) if rows else None
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {"right": round(right, 6), "rows": rows, "low": low, "high": high, "value": value}


def _is_counted(entry: Any) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("rows"), Mapping)


def _weakness(cell: Mapping[str, Any]) -> tuple[float, int]:
    """Least followed first; of equal ones, those of more rows."""
    return (cell["right"] / cell["rows"] if cell["rows"] else 1.0, -cell["rows"])
