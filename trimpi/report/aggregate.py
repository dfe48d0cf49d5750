"""The numbers of a report: everything that report.md and report.html show, as one JSON object."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.evaluate.statistics import mean_and_spread
from trimpi.prices import PriceConfig
from trimpi.report import forgetting, frontier, groups, rules
from trimpi.report.breakeven import break_even
from trimpi.report.cells import Cell, Pick, at, cell
from trimpi.report.changed import changed_over
from trimpi.report.costs import costs
from trimpi.report.curves import panels
from trimpi.report.interference import interference
from trimpi.report.load import Arm, Evaluation, Run, Stage
from trimpi.report.paired import over
from trimpi.report.referral import referral
from trimpi.runs import chain_name

RECITAL = ("recital", "recital_in_context")


def summarize(run: Run) -> dict[str, Any]:
    """The content of report/summary.json.

    Keys: `name`, `title`, `description`, `headline`, `headline_arm`, `seeds`, `models` (the base
    first; each with `settings`, `diagnosis`, `forgetting`, `benchmarks`, `recital`), `efficiency`,
    `verdicts` (task and forgetting, arm by arm), `frontier`, `majority_share`, `grading` (what
    graders say of themselves), `rules` (texts by policy and id, in the order of the policy, where
    rows name rules), `coverage` (of rules by the data),
    `changed_over` (the headline arm against each other arm on changed and on unchanged rows),
    `costs` (by arm), `break_even` (of the headline arm), `interference` (of policies),
    `referral` (by model),
    `training` (by chain), `versions`, `seconds`.
    """
    recipe = run.recipe
    seeds = recipe.get("seeds") or [recipe.get("seed", 0)]
    models = [_model(run.base, run.base), *(_model(arm, run.base) for arm in run.arms)]
    measured = [arm for arm in run.arms if "no_policy" in arm.settings]
    leading = measured[-1] if measured else None
    title = (recipe.get("report") or {}).get("title") or recipe.get("name", run.folder.name)
    first = _first(run.base, "in_context") or (_first(leading, "no_policy") if leading else None)
    result: dict[str, Any] = {
        "schema": 1,
        "name": recipe.get("name", run.folder.name),
        "title": title,
        "description": recipe.get("description", ""),
        "headline": "",
        "headline_arm": leading.name if leading else None,
        "seeds": list(seeds),
        "models": models,
        "efficiency": _efficiency(run, leading),
        "verdicts": [],
        "frontier": [],
        "majority_share": first.summary["majority_share"] if first else None,
        "grading": _grading(run),
        "rules": rules.texts(run, models),
        "coverage": rules.coverage(run),
        "changed_over": changed_over(run, leading),
        "costs": costs(run),
        "break_even": None,
        "interference": interference(run, models),
        "referral": referral(run),
        "training": _training(run),
        "versions": run.record.get("versions", {}),
        "seconds": run.record.get("seconds"),
        "peak_memory_gib": run.record.get("peak_memory_gib"),
    }
    result["headline"] = headline(result)
    result["verdicts"] = forgetting.verdicts(models)
    result["frontier"] = frontier.frontier(run, models)
    result["break_even"] = break_even(
        result["efficiency"],
        result["costs"].get(result["headline_arm"]),
        PriceConfig.model_validate((recipe.get("report") or {}).get("prices") or {}),
        result["headline_arm"],
        recipe.get("devices") or 1,
    )
    return result


def headline(summary: Mapping[str, Any]) -> str:
    """The result in a sentence or two, without judgement."""
    models = {model["name"]: model for model in summary["models"]}
    base = models["base"]["settings"].get("in_context")
    reference = (
        f"the base model with the policy in its prompt {_says(base)}"
        if base and base["mean"] is not None
        else ""
    )
    if summary["headline_arm"] is None:
        skills = models["base"]["settings"].get("skills")
        if not reference and skills and skills["mean"] is not None:
            reference = f"the base model has {percent(skills['mean'])} of the general skills right"
        return reference[:1].upper() + reference[1:] + "." if reference else "Nothing measured yet."
    name = summary["headline_arm"]
    cell = models[name]["settings"]["no_policy"]
    if cell["mean"] is None:
        return "No completion of the trained model could be graded."
    seeds = len(cell["by_seed"])
    interval = f"95% interval {percent(cell['low'])} to {percent(cell['high'])}"
    if seeds > 1:
        # Wilson's interval knows the test rows alone; seeds may lie outside of it.
        interval = f"mean of {seeds} seeds, deviation {100 * (cell['sd'] or 0):.1f} points"
    text = f"Without the policy in its prompt, {name} {_says(cell)}"
    text += f" ({interval})"
    text += f"; {reference}" if reference else ""
    if reference and (gap := models[name]["over_base"]):
        low, high = (f"{100 * gap[k]:+.1f}" for k in ("low", "high"))
        text += f" (difference {100 * gap['value']:+.1f} points, {low} to {high} paired by row)"
    text += "."
    tokens = (summary["efficiency"] or {}).get("prompt_tokens")
    if tokens:
        text += (
            f" The prompt shrinks by {percent(tokens['saved'])}, from"
            f" {tokens['with_policy']:.0f} to {tokens['without_policy']:.0f} tokens."
        )
    rivals = [m for m in summary["models"][1:] if "no_policy" in m["settings"]]
    best = max(rivals, key=lambda m: m["settings"]["no_policy"]["mean"] or 0.0)
    if (best["settings"]["no_policy"]["mean"] or 0.0) > cell["mean"]:
        text += f" The best arm is {best['name']} with "
        text += percent(best["settings"]["no_policy"]["mean"]) + "."
    return text


def _says(cell: Cell) -> str:
    """A score that is made of parts is no count of right answers."""
    share = percent(cell["mean"])
    return f"scores {share} overall" if groups.whole_parts(cell) else f"answers {share} right"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as "93.2%"; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}%"


def _model(arm: Arm, base: Arm) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for name, evaluations in arm.settings.items():
        found = cell(evaluations) if name != "efficiency" else None
        if found is None:
            continue
        summaries = [e.summary for e in evaluations]
        found["target"] = summaries[0]["target"]
        found["well_formed"] = _mean(s["well_formed"] for s in summaries)
        found["truncated"] = sum(s["truncated"] for s in summaries)
        found["completion_tokens"] = _mean(s["completion_tokens"] for s in summaries)
        for key in ("by_depth", "by_policy", "by_task", "by_changed"):
            names = dict.fromkeys(n for s in summaries for n in s.get(key, ()))
            if names:
                found[key] = {n: cell(evaluations, at(key, n)) for n in names}
        if "retrieval" in summaries[0]:
            found["retrieval"] = summaries[0]["retrieval"]
        if name not in RECITAL:  # its parts have a table of their own
            found |= groups.by_call(evaluations)
        settings[name] = found
    if "override" in settings:
        settings["override"]["original_share"] = cell(
            arm.settings["override"], lambda s: s.get("original_share")
        )
    return {
        "name": arm.name,
        "stages": list(arm.chain),
        "settings": settings,
        "diagnosis": {
            name: diagnosis
            for name, evaluations in arm.settings.items()
            if (diagnosis := _diagnosis(evaluations)) is not None
        },
        "recital": {name: _parts(arm.settings[name]) for name in RECITAL if name in arm.settings},
        "forgetting": forgetting.of_skills(arm, base),
        "benchmarks": forgetting.of_benchmarks(arm, base),
        "over_base": _over_base(arm, base),
        "over_bare": _over_base(arm, base, "no_policy"),
    }


def _diagnosis(evaluations: Sequence[Evaluation]) -> dict[str, Any] | None:
    found = [d for e in evaluations if (d := e.summary.get("diagnosis")) and d["rows"]]
    if not found:
        return None
    names = dict.fromkeys(name for d in found for name in d["first_errors"])
    gaps = [d["citation_difference"] for d in found]
    result = {
        "rows": found[0]["rows"],
        "first_errors": {
            name: _mean(d["first_errors"].get(name, 0) / d["rows"] for d in found) for name in names
        },
        "gold_path": cell(
            evaluations,
            lambda s: (
                {**s["diagnosis"]["gold_path"], "scored": s["diagnosis"]["rows"]}
                if s.get("diagnosis")
                else None
            ),
        ),
        "reached": {
            depth: cell(evaluations, _reached(depth))
            for depth in dict.fromkeys(k for d in found for k in d["reached"])
        },
        "citation_difference": mean_and_spread(gaps)[0],
        "citation_difference_sd": mean_and_spread(gaps)[1],
        "citation_difference_per_100": _mean(d["citation_difference_per_100"] for d in found),
        "invented_citations": _mean(d.get("invented_citations", 0) for d in found),
    }
    if confusions := groups.confusions(evaluations):
        result["confusions"] = confusions
    return result


def _grading(run: Run) -> str:
    """What the grader says of itself; where models were graded otherwise, who was how."""
    found: dict[str, list[str]] = {}
    for arm in (run.base, *run.arms):
        evaluations = (e for of in arm.settings.values() for e in of)
        for about in dict.fromkeys(e.summary.get("grading") for e in evaluations):
            if about:
                found.setdefault(about, []).append(arm.name)
    if len(found) < 2:
        return "".join(found)
    who = "; ".join(f"{', '.join(names)}: {about}" for about, names in found.items())
    return f"{who}. Scores of different grading are not to be compared"


def _reached(depth: str) -> Pick:
    return lambda summary: (summary.get("diagnosis") or {}).get("reached", {}).get(depth)


def _parts(evaluations: Sequence[Evaluation]) -> dict[str, float]:
    names = dict.fromkeys(n for e in evaluations for n in e.summary["parts"])
    return {n: _mean(e.summary["parts"][n] for e in evaluations) for n in names}


def _over_base(arm: Arm, base: Arm, setting: str = "in_context") -> dict[str, Any] | None:
    """Accuracy without the policy minus that of the base in `setting`, paired by row."""
    if not arm.chain or "no_policy" not in arm.settings or setting not in base.settings:
        return None
    return over(base.settings[setting][:1], arm.settings["no_policy"])


def _efficiency(run: Run, leading: Arm | None) -> dict[str, Any] | None:
    for arm in (leading, *reversed(run.arms), run.base):
        found = _first(arm, "efficiency") if arm else None
        if found:
            keys = ("prompt_tokens", "prefill_seconds", "requests", "timed", "repeats", "device")
            measured = {key: found.summary[key] for key in keys}
            return {**measured, "serving": found.summary.get("serving")}
    return None


def _training(run: Run) -> dict[str, Any]:
    by_chain: dict[str, list[Stage]] = {}
    for stage in run.stages:
        by_chain.setdefault(chain_name(stage.chain), []).append(stage)
    result: dict[str, Any] = {}
    for name, stages in by_chain.items():
        seconds = [
            s.record["seconds"] for s in stages if isinstance(s.record.get("seconds"), float)
        ]
        result[name] = {
            "kind": stages[0].kind,
            "steps": max((int(row.get("step", 0)) for s in stages for row in s.steps), default=0),
            "seeds": [stage.seed for stage in stages],
            "finished": all(bool(stage.record) for stage in stages),
            "seconds": mean_and_spread(seconds)[0] if seconds else None,
            "without_gradient": sorted(
                {
                    name
                    for s in stages
                    for name in (s.record.get("gradients") or {}).get("without_gradient", ())
                }
            ),
            "verified": [v for s in stages if (v := s.record.get("verified"))],
            "preflight": {str(s.seed): s.preflight for s in stages if s.preflight},
            **_controls(stages),
            "curves": {},
        }
    charts = panels(run)
    for panel in [*charts.learning, *charts.rollouts]:
        curves = result[panel.title.replace(" → ", "+")]["curves"]
        curves[panel.quantity] = {
            curve.name: {"first": curve.ends[0], "last": curve.ends[1]} for curve in panel.curves
        }
    return result


def _controls(stages: Sequence[Stage]) -> dict[str, Any]:
    """What stages did against forgetting, by seed: replay, instances kept, an interpolation."""
    found = {}
    for key in ("replay", "instances", "distance"):
        if by_seed := {str(s.seed): s.record[key] for s in stages if s.record.get(key) is not None}:
            found[key] = by_seed
    return found


def _first(arm: Arm, setting: str) -> Evaluation | None:
    return next(iter(arm.settings.get(setting, ())), None)


def _mean(values: Any) -> float:
    found = list(values)
    return math.fsum(found) / len(found)
