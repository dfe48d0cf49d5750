"""What policies in one model cost each other: each alone against several together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.store import read_rows
from trimpi.report.load import Arm, Run
from trimpi.report.paired import over
from trimpi.report.rules import Used
from trimpi.sample import Sample

SETTING = "no_policy"


def interference(run: Run, models: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Accuracy without the policy by policy and arm; None where tests are under one policy alone.

    Returns:
        `policies`: ids. `marks`: by arm and policy `alone` (the arm's stages have rows of this
        policy only), `together` (of several) or `none`; {} without the data folder. `differences`:
        together minus alone on the rows of a policy, paired by row, seeds averaged, for the arms
        whose stages are of the same kinds (of any kinds where there are none).
    """
    tested = [m["settings"][SETTING] for m in models[1:] if SETTING in m["settings"]]
    policies = list(dict.fromkeys(p for cell in tested for p in cell.get("by_policy", ())))
    if len(policies) < 2:
        return None
    arms = [arm for arm in run.arms if SETTING in arm.settings]
    try:
        trained = {arm.name: _trained(run, arm) for arm in arms}
    except (OSError, UserError):  # the data folder is gone; the numbers need none
        trained = {}
    marks = {
        name: {policy: _mark(policy, known) for policy in policies}
        for name, known in trained.items()
    }
    differences = [
        {"policy": policy, "together": several.name, "alone": alone.name, **difference}
        for policy in policies
        for several in arms
        for alone in _partners(run, arms, several, policy, marks)
        if (difference := over(alone.settings[SETTING], several.settings[SETTING], _of(policy)))
    ]
    return {"policies": policies, "marks": marks, "differences": differences}


def section(summary: Mapping[str, Any], used: Used) -> dict[str, Any] | None:
    """The page's table: `names` of the columns, `rows` by policy, `compared` if any."""
    found = summary["interference"]
    if found is None:
        return None
    shown = [(name, c) for name, model, setting in used if (c := model["settings"].get(setting))]
    rows = []
    for policy in found["policies"]:
        cells = [
            {
                "accuracy": cell.get("by_policy", {}).get(policy),
                "mark": found["marks"].get(name, {}).get(policy),
            }
            for name, cell in shown
        ]
        known = [cell["accuracy"]["rows"] for cell in cells if cell["accuracy"]]
        pairs = [d for d in found["differences"] if d["policy"] == policy]
        rows.append({"policy": policy, "rows": max(known), "cells": cells, "pairs": pairs})
    return {
        "names": [name for name, _ in shown],
        "rows": rows,
        "marked": bool(found["marks"]),
        "compared": bool(found["differences"]),
    }


def _of(policy: str) -> Callable[[Sample], bool]:
    return lambda sample: sample.policy == policy


def _mark(policy: str, trained: set[str]) -> str:
    return "none" if policy not in trained else "alone" if len(trained) == 1 else "together"


def _trained(run: Run, arm: Arm) -> set[str]:
    """Policies of the rows that the arm's stages are trained on."""
    found: set[str] = set()
    for name in arm.chain:
        config = run.recipe["stages"][name] or {}
        limits = {config.get("split"): config.get("limit"), config.get("texts"): None}
        for split, limit in limits.items():
            if split is not None:
                rows = read_rows(run.data.root / f"{split}.jsonl")[:limit]
                found |= {row["policy"] for row in rows if row.get("policy") is not None}
    return found


def _partners(
    run: Run, arms: Sequence[Arm], several: Arm, policy: str, marks: Mapping[str, Any]
) -> list[Arm]:
    """Arms of this policy alone that one of several policies is compared with."""
    if marks.get(several.name, {}).get(policy) != "together":
        return []
    alone = [arm for arm in arms if marks[arm.name][policy] == "alone"]
    return [arm for arm in alone if _kinds(run, arm) == _kinds(run, several)] or alone


def _kinds(run: Run, arm: Arm) -> list[str]:
    return [str((run.recipe["stages"][name] or {}).get("kind", name)) for name in arm.chain]
