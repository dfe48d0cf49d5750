"""Policy Referral by model: what a judge gave the citations of the policy, 0 to 10."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.evaluate.statistics import mean_and_spread, wilson
from trimpi.evaluate.store import SUMMARY
from trimpi.report.load import Run
from trimpi.runs import eval_folder, read_json

TOP = 10


def referral(run: Run) -> dict[str, dict[str, Any]]:
    """By model, the base first: the setting's numbers over seeds; {} where none is judged.

    `mean` (of the seeds' means), `sd` over seeds, `low` and `high` (ten times Wilson's interval at
    the rows of one seed), `judges`, `rows`, `unscored`, `unreadable` and `no_reasoning` (sums over
    seeds), `histogram` (sums), `parts` (means), `by_policy` (means), `incomplete` (seeds whose
    judging has not ended), `agreement` (of the first seed that has one).
    """
    recipe = run.recipe
    seeds = recipe.get("seeds") or [recipe.get("seed", 0)]
    found: dict[str, dict[str, Any]] = {}
    for arm in (run.base, *run.arms):
        files = [eval_folder(run.folder, s, arm.chain) / "referral" / SUMMARY for s in seeds]
        summaries = [s for file in files if isinstance(s := read_json(file), dict)]
        if summaries:
            found[arm.name] = _over_seeds(summaries)
    return found


def _over_seeds(summaries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means = [s["score"]["value"] for s in summaries if s["score"]["value"] is not None]
    scored = max(s["score"]["scored"] for s in summaries)
    mean, sd = mean_and_spread(means) if means else (None, None)
    interval = None if mean is None else wilson(min(mean / TOP, 1.0) * scored, scored)
    return {
        "judges": list(dict.fromkeys(s["judge"] for s in summaries)),
        "mean": mean,
        "sd": sd,
        "low": TOP * interval.low if interval else None,
        "high": TOP * interval.high if interval else None,
        "incomplete": sum(not s["complete"] for s in summaries),
        **{
            key: sum(s[key] for s in summaries)
            for key in ("rows", "unscored", "unreadable", "no_reasoning")
        },
        "histogram": [
            sum(counts) for counts in zip(*(s["histogram"] for s in summaries), strict=True)
        ],
        "parts": _means([s["parts"] for s in summaries]),
        "by_policy": _means(
            [{n: p["value"] for n, p in s["by_policy"].items()} for s in summaries]
        ),
        "notes": next((s["notes"] for s in summaries if s["notes"]), {}),
        "agreement": next((s["agreement"] for s in summaries if "agreement" in s), None),
    }


def _means(mappings: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    names = dict.fromkeys(name for mapping in mappings for name in mapping)
    given = {n: [v for m in mappings if (v := m.get(n)) is not None] for n in names}
    return {n: math.fsum(values) / len(values) for n, values in given.items() if values}


def shown(score: float | None) -> str:
    """A score, or another number of that size, as "7.25"; a dash for None."""
    return "–" if score is None else f"{score:.2f}"


def section(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page shows: its rows, columns of parts and of policies; None without any."""
    rows = summary.get("referral") or {}
    if not rows:
        return None
    judges = dict.fromkeys(judge for row in rows.values() for judge in row["judges"])
    policies = dict.fromkeys(name for row in rows.values() for name in row["by_policy"])
    return {
        "rows": [{"name": name, **row} for name, row in rows.items()],
        "parts": [
            p for p in ("ids", "content", "coverage") if any(p in r["parts"] for r in rows.values())
        ],
        "policies": list(policies) if 1 < len(policies) <= 8 else [],
        "judges": list(judges),
        "highest": max(1, *(count for row in rows.values() for count in row["histogram"])),
    }
