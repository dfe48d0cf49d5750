"""What the arms of an RL ladder reached, at equal rollouts and at equal training time.

    trimpi run recipes/tiny/rl_ladder.yaml --output runs/shallow
    python benchmarks/ladder.py runs/shallow                    # tables in Markdown
    python benchmarks/ladder.py runs/shallow --svg shallow.svg  # and the curves

Reads the run folder alone. Curves are `validation/accuracy` of the last stage of an arm, which must
log it. Rollouts count every completion that was sampled, those of dropped groups too; time is the
trainer's own `step_time`, summed: generation, grading, scoring and updates, neither validation nor
saving. It is wall time of this run: arms whose seeds ran side by side shared the machine.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from trimpi.report.load import Run, Stage, load_run
from trimpi.report.svg import Line, line_chart

Points = list[tuple[float, float]]
PARTS = 4
"""Columns of the table at equal rollouts."""


@dataclass(frozen=True)
class Curve:
    """One arm under one seed: accuracy after so many rollouts, and after so many seconds."""

    rollouts: Points
    seconds: Points


def curve(stage: Stage, per_batch: int, updates_per_rollout: int) -> Curve:
    """The validation points of a stage.

    Args:
        stage: its logged steps.
        per_batch: completions of a rollout batch, before dynamic sampling asks for more.
        updates_per_rollout: updates made from one.
    """
    steps: dict[int, dict[str, Any]] = {}
    right: dict[int, float] = {}
    for row in stage.steps:  # a resumed stage logs some steps again: the last counts
        if "validation/accuracy" in row:
            right[row["step"]] = row["validation/accuracy"]
        else:
            steps.setdefault(row["step"], {}).update(row)
    sampled = clock = 0.0
    found = Curve([], [])
    for step in range(max(right) + 1):
        if step:
            clock += steps[step].get("step_time") or 0.0
            if (step - 1) % updates_per_rollout == 0:
                tries = steps[step].get("rollout/dynamic/tries", 1.0)
                sampled += per_batch * tries
        if step in right:
            found.rollouts.append((sampled, right[step]))
            found.seconds.append((clock, right[step]))
    return found


def at(points: Sequence[tuple[float, float]], x: float) -> float:
    """The value at x, linear between points, and that of the last point beyond it."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y1
    return points[-1][1]


def curves(run: Run) -> dict[str, list[Curve]]:
    """Curves by arm, one a seed; arms whose last stage logged no validation are left out."""
    found: dict[str, list[Curve]] = {}
    for arm in run.arms:
        settings = run.recipe["stages"].get(arm.chain[-1], {})
        for stage in run.stages:
            if stage.chain == arm.chain and any("validation/accuracy" in s for s in stage.steps):
                size = settings["prompts_per_step"] * settings.get("group_size", 1)
                updates = settings.get("updates_per_rollout", 1)
                found.setdefault(arm.name, []).append(curve(stage, size, updates))
    return found


def spread(values: Sequence[float], percent: bool = True) -> str:
    """Mean and standard deviation over seeds."""
    scale, digits = (100, 1) if percent else (1, 1)
    text = f"{statistics.fmean(values) * scale:.{digits}f}"
    return text + (f" ± {statistics.stdev(values) * scale:.{digits}f}" if len(values) > 1 else "")


def tested(run: Run) -> list[str]:
    """The evaluation of all arms, on the whole test split."""
    names = ("no_policy", "in_context", "override", "skills")
    lines = [
        "| arm | no policy in prompt | policy back in context | override | general skills |",
        "|---|---|---|---|---|",
    ]
    for arm in [run.base, *run.arms]:
        cells = [
            spread([e.summary["accuracy"]["value"] for e in arm.settings[name]])
            if arm.settings.get(name)
            else "–"
            for name in names
        ]
        lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return lines


def equal(found: dict[str, list[Curve]]) -> list[str]:
    """Validation accuracy at equal rollouts, and at the time that the quickest arm took."""
    most = min(min(c.rollouts[-1][0] for c in many) for many in found.values())
    budget = min(statistics.fmean(c.seconds[-1][0] for c in many) for many in found.values())
    marks = [most * part / PARTS for part in range(PARTS + 1)]
    titles = [f"{mark:,.0f} rollouts" for mark in marks]
    heads = ["arm", *titles, f"in {budget:.0f} s", "seconds of training", "rollouts"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, many in found.items():
        cells = [spread([at(c.rollouts, mark) for c in many]) for mark in marks]
        cells.append(spread([at(c.seconds, budget) for c in many]))
        cells.append(spread([c.seconds[-1][0] for c in many], percent=False))
        cells.append(f"{statistics.fmean(c.rollouts[-1][0] for c in many):,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def diagnostics(run: Run) -> list[str]:
    """Rewards of both halves, and silent groups, over the first and the last quarter."""
    names = {
        "rollout/free/accuracy": "policy-free rollouts right",
        "rollout/aware/accuracy": "policy-aware rollouts right",
        "rollout/no_signal/pooled": "groups without signal",
        "rollout/aware/share": "policy-aware share",
        "rollout/aware/reliance": "reliance, nats a token",
        "entropy": "entropy, nats a token",
    }
    lines = [f"| arm | {' | '.join(names.values())} |", "|---" * (len(names) + 1) + "|"]
    for arm in run.arms:
        cells = []
        for name in names:
            ends = []
            for stage in run.stages:
                values = [s[name] for s in stage.steps if s.get(name) is not None]
                if stage.chain == arm.chain and len(values) > 1:
                    part = max(1, len(values) // 4)
                    first, last = values[:part], values[-part:]
                    ends.append((statistics.fmean(first), statistics.fmean(last)))
            means = [statistics.fmean(side) for side in zip(*ends, strict=True)]
            cells.append("{:.2f} → {:.2f}".format(*means) if means else "–")
        if any(cell != "–" for cell in cells):
            lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return lines


def chart(found: dict[str, list[Curve]]) -> str:
    """Mean validation curves of all arms against rollouts."""
    lines = []
    for number, (name, many) in enumerate(found.items()):
        places = [x for x, _ in many[0].rollouts]
        mean = [(x, statistics.fmean(at(c.rollouts, x) for c in many)) for x in places]
        lines.append(Line(name, mean, f"c{number % 6 + 1}"))
    return line_chart(
        lines, label="Accuracy on held-out rows by rollouts", x_name="rollouts", share=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="a finished run folder")
    parser.add_argument("--svg", type=Path, help="also draw the curves to this file")
    args = parser.parse_args()
    run = load_run(args.run)
    found = curves(run)
    for title, lines in (
        ("Test split", tested(run)),
        ("Held-out rows while it trains", equal(found) if found else []),
        ("Rollouts", diagnostics(run)),
    ):
        print(f"\n{title}\n")
        print("\n".join(lines))
    if args.svg:
        args.svg.write_text(chart(found), encoding="utf-8")


if __name__ == "__main__":
    main()
