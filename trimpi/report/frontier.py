"""Task against forgetting: what each arm learned, over what it kept of its general abilities."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trimpi.evaluate.statistics import Interval, wilson
from trimpi.report.forgetting import changes
from trimpi.report.load import Run
from trimpi.report.scatter import Dot, Path, scatter

IN_PROMPT, BARE = "base, policy in prompt", "base, no policy"
TASK = "right without the policy in the prompt"


def frontier(run: Run, models: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One entry a suite (skills, benchmarks) with two or more arms, or an arm beside the base.

    Returns:
        `general` (the suite), `points` (each `name`, `arm` or None for the base, `general` and
        `task` with value, low, high, and `front`: no other arm is as good in both and better in
        one), `series` (names of interpolations between the base and an arm, by their weight).
    """
    names = dict.fromkeys(name for model in models for name, _ in changes(model))
    found = []
    for name in names:
        points = [
            {
                "name": model["name"],
                "arm": model["name"],
                "general": _share(one["all"]["after"], one["all"]["rows"]),
                "task": {key: task[key] for key in ("low", "high")} | {"value": task["mean"]},
            }
            for model in models
            if (one := dict(changes(model)).get(name))
            and (task := model["settings"].get("no_policy"))
            and task["mean"] is not None
        ]
        if not points:
            continue
        for point in points:
            point["front"] = not any(_beats(other, point) for other in points)
        most = max((dict(changes(m)).get(name) for m in models), key=_pairs)
        assert most is not None
        before = _share(most["all"]["before"], most["all"]["rows"])
        for label, setting in ((IN_PROMPT, "in_context"), (BARE, "no_policy")):
            task = models[0]["settings"].get(setting)
            if task and task["mean"] is not None:
                value = {key: task[key] for key in ("low", "high")} | {"value": task["mean"]}
                base = {"name": label, "arm": None, "general": before, "task": value}
                points.append({**base, "front": False})
        series = _series(run, [point["name"] for point in points])
        found.append({"general": name, "points": points, "series": series})
    return found


def charts(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Title and chart of each entry."""
    return [
        {
            "general": one["general"],
            "chart": _chart(one, summary["headline_arm"]),
            "joined": sum(point["front"] for point in one["points"]) > 1,
        }
        for one in summary["frontier"]
    ]


def _chart(one: Mapping[str, Any], leading: str | None) -> Markup:
    points = {point["name"]: point for point in one["points"]}

    def middle(name: str) -> tuple[float, float]:
        return points[name]["general"]["value"], points[name]["task"]["value"]

    front = sorted(middle(name) for name, point in points.items() if point["front"])
    paths = [Path([middle(name) for name in names], "series") for names in one["series"]]
    if len(front) > 1:
        paths.append(Path(front, "front"))
    dots = [
        Dot(
            name,
            Interval(*(point["general"][key] for key in ("value", "low", "high"))),
            Interval(*(point["task"][key] for key in ("value", "low", "high"))),
            "base" if point["arm"] is None else "leading" if name == leading else "arm",
        )
        for name, point in points.items()
    ]
    return scatter(
        dots,
        paths,
        title=f"Task against forgetting ({one['general']})",
        x_name=f"right on {one['general']}",
        y_name=TASK,
    )


def _share(value: float, rows: int) -> dict[str, float]:
    found = wilson(min(value, 1.0) * rows, rows)
    assert found is not None
    return found._asdict()


def _pairs(found: Mapping[str, Any] | None) -> int:
    return found["all"]["rows"] if found else 0


def _beats(other: Mapping[str, Any], point: Mapping[str, Any]) -> bool:
    ahead = [other[key]["value"] - point[key]["value"] for key in ("general", "task")]
    return min(ahead) >= 0 and max(ahead) > 0


def _series(run: Run, names: Sequence[str]) -> list[list[str]]:
    """Interpolations of one chain by their weight, from the base (0) to its end (1)."""
    stages = run.recipe.get("stages") or {}
    chains = {arm.chain: arm.name for arm in run.arms if arm.name in names}
    groups: dict[tuple[str, ...], list[tuple[float, str]]] = {}
    for chain, name in chains.items():
        last = stages.get(chain[-1])
        if isinstance(last, dict) and last.get("kind") == "interpolate":
            groups.setdefault(chain[:-1], []).append((float(last["weight"]), name))
    for chain, group in groups.items():
        if chain in chains:
            group.append((1.0, chains[chain]))
        if BARE in names:
            group.append((0.0, BARE))
    return [[name for _, name in sorted(group)] for group in groups.values() if len(group) > 1]
