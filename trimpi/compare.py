"""`trimpi compare`: two models on the same rows, from the folders that evaluations left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from trimpi.errors import UserError, did_you_mean
from trimpi.evaluate.verdict import in_points, p_words
from trimpi.report.comparison import compare, told
from trimpi.report.load import load_run
from trimpi.report.measured import Measured, is_result, read_measured
from trimpi.runs import chain_name
from trimpi.terminal_text import aligned, harmless

TASK = "task, policy in the weights against in the prompt"


@dataclass(frozen=True)
class Side:
    """What was measured of one model: by suite or setting, one entry a seed."""

    name: str
    results: Mapping[str, Sequence[Measured]]


def of_paths(
    before: Path, after: Sequence[Path], arm: str | None = None, before_arm: str | None = None
) -> dict[str, Any]:
    """Every suite and setting that both have, compared.

    Args:
        before: a suite's or setting's folder, a folder of these, or a run folder.
        after: the same; several are the seeds of one model. None: `before` is a run folder, whose
            arm is compared with its base.
        arm: of the run folder after.
        before_arm: of the run folder before; None is the base.

    Returns:
        `before` and `after` (names), `comparisons` (see `report.comparison.compare`),
        `only_before` and `only_after` (names of suites and settings).

    Raises:
        UserError: no results, no such arm, nothing in both, or results that cannot be compared
            (all of them at once).
    """
    after = after or ([before] if _is_run(before) else [])
    if not after:
        raise UserError(f"{before}: give AFTER too, or a run folder with --arm")
    runs = [_is_run(path) for path in (before, *after)]
    if before_arm and not runs[0]:
        raise UserError(f"--before-arm: goes with a run folder, and {before} is none; leave it out")
    if arm and not any(runs[1:]):
        raise UserError(f"--arm: goes with a run folder, and {after[0]} is none; leave it out")
    first = _side_of_run(before, before_arm or "base") if runs[0] else _side([before])
    if any(runs[1:]):
        if len(after) > 1:
            raise UserError("AFTER: give one run folder (all of its seeds count), or results")
        second = _side_of_run(after[0], arm or _only_arm(after[0]))
    else:
        second = _side(after)
    return _compared(first, second)


def print_comparisons(found: Mapping[str, Any], console: Console) -> None:
    """Print a table of each suite and setting, what to know of it, and the verdict lines."""
    comparisons = found["comparisons"]
    lines = [f"before: {found['before']}", f"after:  {found['after']}"]
    known = [told(one) for one in comparisons]
    everywhere = [line for line in known[0] if all(line in other for other in known)]
    for one, sentences in zip(comparisons, known, strict=True):
        lines += ["", harmless(one["called"]), *aligned(_rows(one))]
        lines += [line for line in sentences if line not in everywhere or len(known) == 1]
    if len(known) > 1 and everywhere:
        lines += ["", *everywhere]
    if any(c["difference"]["p_adjusted"] is not None for one in comparisons for c in _tasks(one)):
        lines += [
            "",
            "p of categories is adjusted for their number (Holm); that of all rows is not",
        ]
    for word in ("before", "after"):
        if names := found[f"only_{word}"]:
            lines += ["", f"{word} alone, not compared: {', '.join(names)}"]
    lines += ["", *(one["line"] for one in comparisons)]
    for line in lines:
        console.print(line, markup=False)


def _compared(first: Side, second: Side) -> dict[str, Any]:
    pairs: list[tuple[Sequence[Measured], Sequence[Measured], str | None]] = [
        (before, second.results[name], None)
        for name, before in first.results.items()
        if name in second.results
    ]
    lone = [next(iter(s.results.values())) for s in (first, second) if len(s.results) == 1]
    if not pairs and len(lone) == 2:  # two single folders: the user named what to compare
        pairs = [(lone[0], lone[1], f"{lone[0][0].name} to {lone[1][0].name}")]
    if "no_policy" in second.results and "in_context" in first.results and len(first.results) > 1:
        pairs.append((first.results["in_context"], second.results["no_policy"], TASK))
    shown = {m[0].name for pair in pairs for m in pair[:2]}
    if not pairs:
        raise UserError(
            f"{first.name} has {', '.join(first.results)}, {second.name} has "
            f"{', '.join(second.results)}: nothing in both; evaluate both in the same way"
        )
    found, problems = [], []
    for before, after, name in pairs:
        try:
            found.append(compare(before, after, name))
        except UserError as error:
            problems += str(error).splitlines()
    if problems:
        raise UserError.join(problems)
    return {
        "schema": 1,
        "before": first.name,
        "after": second.name,
        "comparisons": found,
        "only_before": [name for name in first.results if name not in shown],
        "only_after": [name for name in second.results if name not in shown],
    }


def _is_run(path: Path) -> bool:
    return (path / "run.json").is_file() and (path / "recipe.yaml").is_file()


def _only_arm(path: Path) -> str:
    arms = [arm.name for arm in load_run(path).arms]
    if len(arms) == 1:
        return arms[0]
    known = f"one of {', '.join(arms)}" if arms else "but none is trained and measured yet"
    raise UserError(f"{path}: a run folder wants --arm, {known}")


def _side_of_run(path: Path, name: str) -> Side:
    run = load_run(path)
    arms = {arm.name: arm.chain for arm in (run.base, *run.arms)}
    if name not in arms:
        raise UserError(f"{path}: no arm {name!r} that is measured; {did_you_mean(name, arms)}")
    chain = chain_name(arms[name])
    seeds = run.recipe.get("seeds") or [run.recipe.get("seed", 0)]
    found: dict[str, list[Measured]] = {}
    for seed in seeds:
        for kind in ("eval", "benchmarks"):
            for folder in _inner(path / f"seed-{seed}" / kind / chain):
                measured = read_measured(folder)
                found.setdefault(measured.name, []).append(measured)
    if not found:
        raise UserError(f"{path}: nothing is measured of {name!r} yet; run trimpi run again")
    return Side(f"{name} of {path}", found)


def _side(paths: Sequence[Path]) -> Side:
    """Of folders of results; several are seeds, each with the same suites and settings."""
    found: dict[str, list[Measured]] = {}
    problems = []
    for path in paths:
        folders = [path] if is_result(path) else _inner(path)
        if not folders:
            what = "a folder of results" if path.is_dir() else "there"
            problems.append(
                f"{path}: not {what}; give a suite's or setting's folder, a folder of these, "
                "or a run folder with --arm"
            )
        for folder in folders:
            try:
                measured = read_measured(folder)
            except UserError as error:
                problems.append(str(error))
                continue
            found.setdefault(measured.name, []).append(measured)
    if problems:
        raise UserError.join(problems)
    uneven = [name for name, of in found.items() if len(of) != len(paths)]
    if uneven:
        raise UserError(
            f"AFTER: {', '.join(uneven)}: not in each of the {len(paths)} folders given; "
            "give folders of the same suites and settings"
        )
    return Side(", ".join(map(str, paths)), found)


def _inner(path: Path) -> list[Path]:
    return [p for p in sorted(path.iterdir()) if is_result(p)] if path.is_dir() else []


def _tasks(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Changes by category; of one category alone there is nothing to tell beside `all`."""
    return list(found["by_task"].values()) if len(found["by_task"]) > 1 else []


def _rows(found: Mapping[str, Any]) -> list[list[str]]:
    top = ["category", "rows", "before", "after", "difference", "95% interval", "lost", "won", "p"]
    names = [harmless(name) for name in found["by_task"]]
    inner = [[n, *_cells(c)] for n, c in zip(names, _tasks(found), strict=False)]
    return [top, *inner, ["all", *_cells(found["all"])]]


def _cells(change: Mapping[str, Any]) -> list[str]:
    verdict = change["difference"]
    value, low, high = in_points(verdict)
    p = verdict["p"] if verdict["p_adjusted"] is None else verdict["p_adjusted"]
    return [
        f"{change['rows']:,}",
        f"{100 * change['before']:.1f}",
        f"{100 * change['after']:.1f}",
        value,
        f"[{low}, {high}]",
        str(verdict["lost"]),
        str(verdict["gained"]),
        p_words(p).removeprefix("p ").removeprefix("= "),
    ]
