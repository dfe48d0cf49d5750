"""Policies that moved on: rows that the change concerns, the others, and what an arm cost."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimpi.report.costs import QUANTITIES
from trimpi.report.load import Arm, Run
from trimpi.report.paired import over
from trimpi.report.rules import Used
from trimpi.sample import Sample

SIDES: Mapping[str, bool] = {"changed": True, "unchanged": False}
SETTING = "no_policy"


def changed_over(run: Run, leading: Arm | None) -> dict[str, dict[str, Any]]:
    """The headline arm minus each other arm on `changed` and on `unchanged` rows, paired by row.

    {} where no row says whether a rule that decides it changed.
    """
    found: dict[str, dict[str, Any]] = {}
    for arm in run.arms:
        if leading is None or arm.name == leading.name or SETTING not in arm.settings:
            continue
        before, after = arm.settings[SETTING], leading.settings[SETTING]
        if not any("by_changed" in e.summary for e in before):
            continue
        for side, flag in SIDES.items():
            if difference := over(before, after, _is(flag)):
                found.setdefault(arm.name, {})[side] = difference
    return found


def section(summary: Mapping[str, Any], used: Used) -> list[dict[str, Any]]:
    """Rows of the page's table; empty where no row tells changed from unchanged."""
    rows = []
    for name, model, setting in used:
        cell = model["settings"].get(setting) or {}
        if "by_changed" in cell:
            cost = summary["costs"].get(name)
            over = summary["changed_over"].get(name, {})
            rows.append({"name": name, "cells": cell["by_changed"], "cost": cost, "over": over})
    return rows


def totals(costs: Mapping[str, Any] | None) -> Sequence[tuple[str, Any, Any]]:
    """(quantity, in all, beyond the parent) of an arm, None where it is not known."""
    beyond = (costs or {}).get("beyond") or {}
    return [(name, (costs or {}).get(name), beyond.get(name)) for name in QUANTITIES]


def _is(flag: bool) -> Callable[[Sample], bool]:
    return lambda sample: sample.facts.get("changed") is flag
