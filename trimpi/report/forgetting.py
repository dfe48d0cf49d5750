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
    suite, see `_table`; before them all suites in an `overview` if there are several. `warnings`:
    what could not be compared, or in part. `notes`: what else to know of the benchmarks.
    """
    models = [m for m in summary["models"] if any(True for _ in changes(m))]
    warnings, notes = list[str](), list[str]()
    for model in summary["models"]:
        for name, found in model["benchmarks"].items():
            where = f"{model['name']}, {name}"
            if "refused" in found:
                warnings.append(f"{where}: not compared: {found['refused']}")
                continue
            lines = [f"{where}: {line}" for line in told(found)]
            (warnings if found["partial"] else notes).extend(lines)
    if not models and not warnings:
        return None
    leading = [m for m in models if m["name"] == summary["headline_arm"]]
    shown = (leading or models or [None])[0]
    names = list(dict.fromkeys(name for m in models for name, _ in changes(m)))
    return {
        "shown": shown and shown["name"],
        "charts": [_bars(n, found, shown["name"]) for n, found in changes(shown)] if shown else [],
        "overview": _overview(names, models) if len(names) > 1 else None,
        "tables": [_table(name, models, summary["headline_arm"]) for name in names],
        "warnings": warnings,
        "notes": notes,
    }


def _overview(names: Sequence[str], models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All rows of each suite by arm; `names` of the columns, `rows` as in `_table`."""
    most = [_most({m["name"]: dict(changes(m)).get(name) for m in models}) for name in names]
    rows: list[dict[str, Any]] = [
        {"name": "base", "cells": [_cell(one["all"], "before") for one in most]}
    ]
    for model in models:
        found = dict(changes(model))
        cells = [_cell(found[name]["all"]) if name in found else None for name in names]
        rows.append({"name": model["name"], "cells": cells})
    return {"names": list(names), "rows": rows}


def _table(name: str, models: Sequence[Mapping[str, Any]], headline: str | None) -> dict[str, Any]:
    """One suite: after, and the difference with what the test says of it, by arm and category.

    Rows are arms, or categories where these are more (`by_category`). `names` are those of the
    columns, `rows` have `name`, `leading` and `cells`; a cell has `share`, and if it is an arm's
    `change`, `interval`, `p` and `mark`. `pairs`: rows that an arm pairs with the base.
    """
    having = {m["name"]: one for m in models if (one := dict(changes(m)).get(name))}
    tasks = list(dict.fromkeys(t for one in having.values() for t in one["by_task"]))
    tasks = ["all", *tasks] if len(tasks) > 1 else ["all"]
    most = _most(having)
    lines = {"base": [_cell(_at(most, task), "before") for task in tasks]}
    lines |= {arm: [_cell(_at(one, task)) for task in tasks] for arm, one in having.items()}
    found: dict[str, Any] = {
        "name": name,
        "by_category": len(tasks) > len(lines),
        "pairs": {arm: one["all"]["rows"] for arm, one in having.items()},
        "most": most["all"]["rows"],
        "holm": len(tasks) > 1,
        "headline": headline,
    }
    if found["by_category"]:
        rows = zip(tasks, zip(*lines.values(), strict=True), strict=True)
        return {**found, "names": list(lines), "rows": [_row(n, c, n == "all") for n, c in rows]}
    rows_of = [_row(arm, cells, arm == headline) for arm, cells in lines.items()]
    return {**found, "names": tasks, "rows": rows_of}


def _most(having: Mapping[str, Mapping[str, Any] | None]) -> Mapping[str, Any]:
    """The arm that pairs most rows: each may pair with other rows of the base, shown once."""
    return max((one for one in having.values() if one), key=lambda one: one["all"]["rows"])


def _row(name: str, cells: Sequence[Any], leading: bool) -> dict[str, Any]:
    return {"name": name, "leading": leading, "cells": list(cells)}


def _at(one: Mapping[str, Any], column: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = one["all"] if column == "all" else one["by_task"].get(column)
    return found


def _cell(found: Mapping[str, Any] | None, side: str = "after") -> dict[str, Any] | None:
    if found is None:
        return None
    if side == "before":
        return {"share": found["before"], "change": None, "mark": ""}
    verdict = found["difference"]
    value, low, high = in_points(verdict)
    adjusted = verdict["p_adjusted"]
    return {
        "share": found["after"],
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
