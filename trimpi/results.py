"""The numbers of a finished run as rows of a table, mean over seeds and spread."""

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from trimpi.recipe import Recipe
from trimpi.runs import eval_folder, read_json


def result_rows(recipe: Recipe, run: Path) -> list[dict[str, str]]:
    """One row per model, the base first: accuracy by setting in percent, prompt tokens saved.

    With several seeds a cell is `mean ± standard deviation`; a setting that was not measured is
    left out.
    """
    arms = {"base": (), **{arm: chain for arm, chain in recipe.chains.items() if chain}}
    return [
        {
            "arm": arm,
            **{name: _cell(found) for name, found in _measured(recipe, run, chain).items()},
        }
        for arm, chain in arms.items()
    ]


def _measured(recipe: Recipe, run: Path, chain: tuple[str, ...]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for seed in recipe.all_seeds:
        folder = eval_folder(run, seed, chain)
        for setting in recipe.evaluation.settings:
            summary = read_json(folder / setting / "summary.json")
            if summary is None:
                continue
            name, value = _number(setting, summary)
            if value is not None:
                found.setdefault(name, []).append(value)
    return found


def _number(setting: str, summary: dict[str, Any]) -> tuple[str, float | None]:
    if setting == "efficiency":
        return "prompt tokens saved", summary["prompt_tokens"]["saved"]
    return setting, summary["accuracy"]["value"]


def _cell(values: list[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}%{spread}"
