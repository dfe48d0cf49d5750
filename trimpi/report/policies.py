"""Several policies, and policies that moved on: what arms know of each, and what that cost."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.statistics import paired_difference
from trimpi.report.cells import at, cell
from trimpi.report.load import Arm, Evaluation, Run
from trimpi.runs import chain_name

SIDES = ("changed", "unchanged")


def changes(run: Run, training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Accuracy on rows that a change of the policy concerns and on the others, beside the cost.

    Args:
        run: whose rows say `facts.changed`.
        training: by chain, as `report/summary.json` has it: `steps` and `seconds` of its last
            stage.

    Returns:
        One entry an arm: `name`, `changed` and `unchanged` (cells), `steps` and `seconds` of all
        its stages (mean over seeds), and `beyond`: the same past the longest other arm whose chain
        it goes on from, with that arm's `name`; None without one. [] where no row says.
    """
    entries = []
    for arm in run.arms:
        found = {
            side: cell(arm.settings.get("no_policy", []), at("by_change", side)) for side in SIDES
        }
        if any(found.values()):
            cost = _cost(arm.chain, (), training)
            entries.append(
                {"name": arm.name, **found, **cost, "beyond": _beyond(arm, run, training)}
            )
    return entries


def _cost(
    chain: Sequence[str], start: Sequence[str], training: Mapping[str, Any]
) -> dict[str, Any]:
    """Updates and seconds of the stages of `chain` after those of `start`."""
    names = [chain_name(chain[:end]) for end in range(len(start) + 1, len(chain) + 1)]
    known = [training[name] for name in names if name in training]
    seconds = [stage["seconds"] for stage in known]
    whole = len(known) == len(names)
    return {
        "steps": sum(stage["steps"] for stage in known) if whole else None,
        "seconds": sum(seconds) if whole and None not in seconds else None,
    }


def _beyond(arm: Arm, run: Run, training: Mapping[str, Any]) -> dict[str, Any] | None:
    before = [
        other
        for other in run.arms
        if other.chain != arm.chain and arm.chain[: len(other.chain)] == other.chain
    ]
    if not before:
        return None
    parent = max(before, key=lambda other: len(other.chain))
    return {"name": parent.name, **_cost(arm.chain, parent.chain, training)}


def interference(run: Run) -> dict[str, dict[str, dict[str, Any]]]:
    """What policies cost each other in one model: `{policy: {arm: entry}}`.

    An entry has `cell` (accuracy on the policy's rows without it in the prompt), `trained`:
    "alone" (the arm's stages have rows of this policy only), "together" (of this and others) or
    "not"; and for arms trained together `difference` to the best arm that was trained on it alone
    (`against`), paired by row. {} unless some policy was trained both alone and together.
    """
    trained = _trained(run)
    measured = [arm for arm in run.arms if "no_policy" in arm.settings and arm.name in trained]
    if not measured:
        return {}
    rows = measured[0].settings["no_policy"][0].samples
    names = list(dict.fromkeys(s.policy for s in rows if s.policy is not None))
    if len(names) < 2:
        return {}
    table = {
        policy: {arm.name: _entry(arm, policy, trained[arm.name]) for arm in measured}
        for policy in names
    }
    for policy, entries in table.items():
        alone = [arm for arm in measured if entries[arm.name]["trained"] == "alone"]
        if not alone:
            continue
        best = max(alone, key=lambda arm: (entries[arm.name]["cell"] or {}).get("mean") or 0.0)
        for arm in measured:
            if entries[arm.name]["trained"] == "together":
                entries[arm.name]["against"] = best.name
                entries[arm.name]["difference"] = _difference(best, arm, policy)
    kinds = [{entry["trained"] for entry in entries.values()} for entries in table.values()]
    return table if any({"alone", "together"} <= kind for kind in kinds) else {}


def _entry(arm: Arm, policy: str, trained: frozenset[str]) -> dict[str, Any]:
    kind = "not"
    if policy in trained:
        kind = "alone" if len(trained) == 1 else "together"
    found = cell(arm.settings["no_policy"], at("by_policy", policy))
    return {"cell": found, "trained": kind, "against": None, "difference": None}


def _difference(before: Arm, after: Arm, policy: str) -> dict[str, float] | None:
    one, two = (_of_policy(arm.settings["no_policy"], policy) for arm in (before, after))
    shared = [row for row in one if row in two]
    found = paired_difference([one[row] for row in shared], [two[row] for row in shared])
    return None if found is None else dict(found._asdict())


def _of_policy(evaluations: Sequence[Evaluation], policy: str) -> dict[str, float]:
    """Mean score over seeds of each row under a policy."""
    found: dict[str, list[float]] = {}
    for evaluation in evaluations:
        under = {sample.id for sample in evaluation.samples if sample.policy == policy}
        for row in evaluation.scores:
            if row["id"] in under and row["value"] is not None:
                found.setdefault(row["id"], []).append(row["value"])
    return {row: sum(values) / len(values) for row, values in found.items()}


def _trained(run: Run) -> dict[str, frozenset[str]]:
    """Policies that the rows of an arm's stages are under, by arm."""
    stages = run.recipe.get("stages") or {}
    of_split: dict[str, frozenset[str]] = {}
    found = {}
    for arm in run.arms:
        policies: frozenset[str] = frozenset()
        for name in arm.chain:
            split = str((stages.get(name) or {}).get("split"))
            if split not in of_split:
                try:
                    rows = run.data.read(split)
                except UserError:  # the data were moved or removed: nothing is known of this arm
                    return {}
                of_split[split] = frozenset(s.policy for s in rows if s.policy is not None)
            policies |= of_split[split]
        found[arm.name] = policies
    return found
