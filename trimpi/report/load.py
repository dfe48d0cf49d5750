"""Reading a run folder: recipe, record, evaluations by arm, logged steps by stage.

What is not there yet is left out, so that a run can be reported while it is under way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from trimpi.errors import UserError
from trimpi.evaluate.store import SAMPLES, SCORES, SUMMARY, SettingFolder, read_rows
from trimpi.runs import STAGE, chain_name, read_json, read_metrics
from trimpi.sample import Completion, DataFolder, Sample


@dataclass(frozen=True)
class Evaluation:
    """One setting of one model under one seed."""

    seed: int
    folder: Path
    summary: dict[str, Any]

    @cached_property
    def scores(self) -> list[dict[str, Any]]:
        """Rows of scores.jsonl."""
        return read_rows(self.folder / SCORES)

    @cached_property
    def samples(self) -> list[Sample]:
        """What was asked."""
        return [sample for sample, _ in SettingFolder(self.folder).samples()]

    @cached_property
    def completions(self) -> list[Completion]:
        """What the model wrote."""
        return SettingFolder(self.folder).completions()


@dataclass(frozen=True)
class Arm:
    """A chain of stages (none: the base model) and what was measured at its end."""

    name: str
    chain: tuple[str, ...]
    settings: dict[str, list[Evaluation]]
    """By setting, one per seed, in the order of the seeds."""


@dataclass(frozen=True)
class Stage:
    """The last stage of a chain under one seed."""

    chain: tuple[str, ...]
    kind: str
    seed: int
    steps: list[dict[str, Any]]
    record: dict[str, Any]
    preflight: dict[str, Any]


@dataclass(frozen=True)
class Run:
    """Everything that a report is made of."""

    folder: Path
    recipe: dict[str, Any]
    recipe_text: str
    record: dict[str, Any]
    base: Arm
    arms: list[Arm]
    """Trained arms in the order of the recipe."""
    stages: list[Stage]

    @property
    def data(self) -> DataFolder:
        """The data folder of the run, which may have been moved or removed since."""
        named = (self.recipe.get("data") or {}).get("folder")
        return DataFolder(Path(named) if named else self.folder / "data")


def load_run(folder: Path) -> Run:
    """Read a run folder.

    Raises:
        UserError: it has no readable recipe.yaml, or a file in it is broken.
    """
    folder = Path(folder)
    try:
        text = (folder / "recipe.yaml").read_text(encoding="utf-8")
        recipe = yaml.safe_load(text)
    except (OSError, yaml.YAMLError) as error:
        raise UserError(
            f"{folder}/recipe.yaml: cannot be read ({error}); give the --output of a run"
        ) from None
    if not isinstance(recipe, dict):
        raise UserError(f"{folder}/recipe.yaml: not a recipe; give the --output of a run")
    stages = recipe.get("stages") or {}
    arms = recipe.get("arms")
    chains = {name: tuple(chain) for name, chain in (arms or {"main": list(stages)}).items()}
    seeds = recipe.get("seeds") or [recipe.get("seed", 0)]
    trained = [Arm(n, c, _settings(folder, seeds, c)) for n, c in chains.items() if c]
    return Run(
        folder=folder,
        recipe=recipe,
        recipe_text=text,
        record=read_json(folder / "run.json") or {},
        base=Arm("base", (), _settings(folder, seeds, ())),
        arms=[arm for arm in trained if arm.settings],
        stages=list(_stages(folder, seeds, list(chains.values()), stages)),
    )


def _settings(
    folder: Path, seeds: list[int], chain: tuple[str, ...]
) -> dict[str, list[Evaluation]]:
    found: dict[str, list[Evaluation]] = {}
    for seed in seeds:
        base = folder / f"seed-{seed}" / "eval" / chain_name(chain)
        for file in sorted(base.glob(f"*/{SUMMARY}")):
            summary = read_json(file)
            if summary is None or ".old-" in file.parent.name:
                continue
            if summary.get("setting") == "efficiency" or (file.parent / SAMPLES).is_file():
                found.setdefault(file.parent.name, []).append(
                    Evaluation(seed, file.parent, summary)
                )
    return found


def _stages(
    folder: Path,
    seeds: list[int],
    chains: list[tuple[str, ...]],
    configs: dict[str, Any],
) -> Iterator[Stage]:
    prefixes = dict.fromkeys(chain[:end] for chain in chains for end in range(1, len(chain) + 1))
    for chain in prefixes:
        for seed in seeds:
            place = folder / f"seed-{seed}" / chain_name(chain)
            steps = read_metrics(place)
            if steps or (place / STAGE).is_file():
                yield Stage(
                    chain,
                    str((configs.get(chain[-1]) or {}).get("kind", chain[-1])),
                    seed,
                    steps,
                    read_json(place / STAGE) or {},
                    read_json(place / "preflight.json") or {},
                )
