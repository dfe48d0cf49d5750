"""What training cost a model of its general abilities: skills and benchmarks, arm against base."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.statistics import wilson
from trimpi.evaluate.verdict import in_points, p_words, verdict_line
from trimpi.report import bars
from trimpi.report.comparison import compare, told
from trimpi.report.load import Arm
from trimpi.report.measured import read_measured
from trimpi.report.paired import by_row, change

SKILLS = "skills"
TASK_WORDS: Mapping[str, str] = {
    "over_base": "task, against the base with the policy in its prompt",
    "over_bare": "task, against the base without the policy",
}


def of_skills(arm: Arm, base: Arm) -> dict[str, Any] | None:
    """Skills after minus before, row by row; the seeds of a row are averaged first."""
    if not arm.chain or SKILLS not in arm.settings or SKILLS not in base.settings:
        return None
    first = base.settings[SKILLS][:1]
    tasks = {s.id: str(s.facts.get("task")) for s in first[0].samples}
    return change(by_row(first), by_row(arm.settings[SKILLS]), tasks)


def of_benchmarks(arm: Arm, base: Arm) -> dict[str, dict[str, Any]]:
    """By suite that both have, `comparison.compare`; `{"refused": why}` where questions differ."""
    found: dict[str, dict[str, Any]] = {}
    for name, folders in arm.benchmarks.items():
        if not arm.chain or name not in base.benchmarks:
            continue
        try:
            before = [read_measured(folder) for folder in base.benchmarks[name][:1]]
            found[name] = compare(before, [read_measured(folder) for folder in folders])
            for side in ("before", "after"):  # where a run lies is no result of it
                del found[name][side]["folders"]
        except UserError as error:
            place = f"{base.benchmarks[name][0].parents[3]}/"
            found[name] = {"refused": str(error).replace(place, "")}
    return found


def verdicts(models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What summary.json has as `verdicts`: `arm`, `what`, `line`, `difference`, arm by arm."""
    found = []
    for model in models:
        for key, words in TASK_WORDS.items():
            if model[key]:
                found.append((model["name"], words, model[key], ""))
        for name, one in changes(model):
            partial = " of a partial result" if one.get("partial") else ""
            verdict = one["all"]["difference"]
            found.append((model["name"], f"forgetting ({name})", verdict, partial))
    return [
        {
            "arm": arm,
            "what": what,
            "line": verdict_line(what, verdict) + more,
            "difference": verdict,
        }
        for arm, what, verdict, more in found
    ]


def changes(model: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(name, change) of the general skills and of each benchmark that could be compared."""
    if model["forgetting"]:
        yield SKILLS, model["forgetting"]
    for name, found in model["benchmarks"].items():
        if "refused" not in found:
            yield name, found


def section(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """The page's "What was forgotten"; None where no model has a before and an after.

    `charts`: bars of the leading arm (else of the first that has any), one a suite. `tables`: by
    suite, `tasks` and `rows` (arms) of cells. `notes`: what to know of the benchmarks.
    """
    models = [m for m in summary["models"] if any(True for _ in changes(m))]
    notes = [
        f"{model['name']}, {name}: {line}"
        for model in summary["models"]
        for name, found in model["benchmarks"].items()
        for line in ([found["refused"]] if "refused" in found else told(found))
    ]
    if not models:
        return {"shown": None, "charts": [], "tables": [], "notes": notes} if notes else None
    leading = [m for m in models if m["name"] == summary["headline_arm"]]
    shown = (leading or models)[0]
    names = list(dict.fromkeys(name for m in models for name, _ in changes(m)))
    return {
        "shown": shown["name"],
        "charts": [_bars(name, found, shown["name"]) for name, found in changes(shown)],
        "tables": [_table(name, models, summary["headline_arm"]) for name in names],
        "notes": notes,
    }


def _table(name: str, models: Sequence[Mapping[str, Any]], headline: str | None) -> dict[str, Any]:
    """Arms by category of one suite: after, and the difference with what the test says of it."""
    having = {m["name"]: one for m in models if (one := dict(changes(m)).get(name))}
    tasks = list(dict.fromkeys(t for one in having.values() for t in one["by_task"]))
    # arms may pair with other rows of the base; the base's row is of the one that pairs most
    most = max(having.values(), key=lambda one: one["all"]["rows"])
    columns = ["all", *tasks] if len(tasks) > 1 else ["all"]
    base = [_at(most, column) for column in columns]
    return {
        "name": name,
        "columns": columns,
        "base": [found["before"] if found else None for found in base],
        "pairs": {arm: one["all"]["rows"] for arm, one in having.items()},
        "most": most["all"]["rows"],
        "holm": len(tasks) > 1,
        "rows": [
            {
                "arm": arm,
                "leading": arm == headline,
                "cells": [_cell(_at(one, column)) for column in columns],
            }
            for arm, one in having.items()
        ],
    }


def _at(one: Mapping[str, Any], column: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = one["all"] if column == "all" else one["by_task"].get(column)
    return found


def _cell(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if found is None:
        return None
    verdict = found["difference"]
    value, low, high = in_points(verdict)
    adjusted = verdict["p_adjusted"]
    return {
        "after": found["after"],
        "change": value,
        "interval": f"{low} to {high}",
        "p": p_words(verdict["p"] if adjusted is None else adjusted),
        "mark": _direction(verdict),
    }


def _direction(verdict: Mapping[str, Any]) -> str:
    """`worse` or `better` where the test says so, else ""."""
    if verdict["words"] != "significant":
        return ""
    return "better" if verdict["value"] > 0 else "worse"


def _bars(name: str, found: Mapping[str, Any], arm: str) -> dict[str, Any]:
    rows = []
    tasks = found["by_task"] if len(found["by_task"]) > 1 else {}
    for task, one in (("all", found["all"]), *tasks.items()):
        before, after = (wilson(one[key] * one["rows"], one["rows"]) for key in ("before", "after"))
        assert before is not None and after is not None
        change, mark = in_points(one["difference"])[0], _direction(one["difference"])
        rows.append(bars.Row(task, before, after, change, mark))
    return {
        "title": name,
        "rows": found["all"]["rows"],
        "chart": bars.bar_chart(rows, title=f"{name}: base and {arm}", names=("base", arm)),
    }
