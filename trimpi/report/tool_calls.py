"""What a report shows of tool calls: tables by tool and argument, and versions mixed up."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.evaluate.diagnosis import in_order
from trimpi.report.groups import whole_parts
from trimpi.report.rules import Used

WORDS: Mapping[str, str] = {"tool": "tool accuracy", "argument": "argument score"}
"""Names of the parts of a score; others are shown as they are."""

MOST_COLUMNS = 12
"""Columns of a table of mix-ups; labels said less often share the last one."""


def part_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Columns of the main table: parts of the whole score, by name, with their words."""
    names = dict.fromkeys(name for row in rows for name in whole_parts(row["end"]))
    return {name: WORDS.get(name, name) for name in names}


def sections(summary: Mapping[str, Any], used: Used) -> dict[str, Any]:
    """Tables of the page: `names` (of the columns), `tools`, `fields`, `confusions`.

    Each is empty where nothing is known of it.
    """
    shown = [
        (name, cell, model["diagnosis"].get(setting) or {})
        for name, model, setting in used
        if (cell := model["settings"].get(setting))
    ]
    cells = [cell for _, cell, _ in shown]
    leader = next((entry for entry in shown if entry[0] == summary["headline_arm"]), None)
    mixed = leader[2].get("confusions", {}) if leader else {}
    return {
        "names": [name for name, _, _ in shown],
        "tools": _tools(cells),
        "fields": _fields(cells),
        "confusions": {group: _matrix(group, table) for group, table in mixed.items()},
    }


def tint(share: float) -> str:
    """Background of a cell: orange at 0, none at one half, blue-green at 1.

    These two are told apart with any kind of colour vision (Okabe and Ito 2008); alpha lets them
    stand on a light and on a dark page.
    """
    colour = "0,158,115" if share >= 0.5 else "213,94,0"
    return f"background:rgba({colour},{abs(share - 0.5) * 0.9:.2f})"


def _tools(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    names = sorted({name for cell in cells for name in cell.get("by_tool", ())}, key=in_order)
    table = []
    for name in names:
        found = [cell.get("by_tool", {}).get(name) for cell in cells]
        rows = max(entry["rows"] for entry in found if entry)
        table.append({"name": name, "rows": rows, "cells": found})
    return table


def _fields(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    parts = [
        {n.partition("/")[2]: p for n, p in cell.get("parts", {}).items() if n.startswith("field/")}
        for cell in cells
    ]
    names = sorted({name for of in parts for name in of}, key=lambda n: (not n.isidentifier(), n))
    return [
        {
            "name": name,
            "rows": max(of[name]["rows"] for of in parts if name in of),
            "cells": [of.get(name) for of in parts],
        }
        for name in names
    ]


def _matrix(group: str, table: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Rows by gold label, columns by what was said: labels of the group first, then all others.

    Args:
        group: whose labels begin with its name.
        table: `{gold: {said: rows}}`.
    """
    counts = {
        said: sum(row.get(said, 0) for row in table.values())
        for row in table.values()
        for said in row
    }
    own = sorted((n for n in {*table, *counts} if n.startswith(group)), key=in_order)
    foreign = sorted(n for n in counts if not n.startswith(group))
    rare: list[str] = []
    while len(own) + len(foreign) > MOST_COLUMNS and any(n not in table for n in own):
        rare.append(min((n for n in own if n not in table), key=lambda n: counts[n]))
        own.remove(rare[-1])
    columns = [*((name, [name]) for name in [*own, *foreign]), *([("rest", rare)] if rare else [])]
    return {
        "columns": [name.removeprefix(f"{group}_") for name, _ in columns],
        "rows": [
            {
                "gold": gold,
                "total": sum(row.values()),
                "cells": [
                    {"count": sum(row.get(label, 0) for label in labels), "right": labels == [gold]}
                    for _, labels in columns
                ],
            }
            for gold, row in table.items()
        ],
    }
