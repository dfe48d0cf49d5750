"""Trackers that a recipe reports to: names, what is missing, and under which name a run goes.

The log of a stage goes through the callbacks of transformers, so that a tracker sees what
`metrics.jsonl` holds. Nothing is imported, and no network touched, where a recipe names none.
"""

import importlib
import importlib.util
import os
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimpi.recipe import Recipe
from trimpi.runs import read_json, write_json

LOGS, IDS = "logs", "trackers.json"
"""Of a stage or evaluation folder: where trackers write that write files; ids of their runs."""


@dataclass(frozen=True)
class Tracking:
    """Where the log of one stage or evaluation goes beside its own files."""

    report_to: tuple[str, ...]
    project: str
    run: str

    def as_json(self) -> dict[str, Any]:
        """What `from_json` takes."""
        return {**asdict(self), "report_to": list(self.report_to)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any] | None) -> "Tracking | None":
        """The same; None of None."""
        if content is None:
            return None
        return cls(tuple(content["report_to"]), content["project"], content["run"])


def tracking_of(recipe: Recipe, what: str, seed: int) -> Tracking | None:
    """Project and run name of a stage or evaluation; None where the recipe reports to none."""
    if not recipe.report_to:
        return None
    return Tracking(recipe.report_to, recipe.name, f"{recipe.name}-{what}-seed-{seed}")


def missing_trackers(recipe: Recipe) -> list[str]:
    """A line for each tracker of the recipe that is not installed here."""
    # tensorboardX writes the same files, and transformers takes either.
    packages = {"tensorboard": ("tensorboard", "tensorboardX")}
    return [
        f"report_to: {name} is not installed; pip install {name} (or 'trimpi[trackers]' for all), "
        "or drop it"
        for name in recipe.report_to
        if not any(importlib.util.find_spec(p) for p in packages.get(name, (name,)))
    ]


def tracker_settings(tracking: Tracking | None) -> dict[str, Any]:
    """Fields of transformers' arguments; TensorBoard's callback is made apart, for its folder."""
    if tracking is None:
        return {"report_to": "none"}
    others = [name for name in tracking.report_to if name != "tensorboard"]
    project = os.environ.get("TRACKIO_PROJECT", tracking.project)
    settings = {"report_to": others or "none", "run_name": tracking.run, "project": project}
    if space := os.environ.get("TRACKIO_SPACE_ID"):
        settings["trackio_space_id"] = space
    return settings


def board_folder(tracking: Tracking, output: Path) -> Path:
    """Where TensorBoard's files of a stage or evaluation go: beside its log, never among its
    checkpoints, which are removed."""
    if shared := os.environ.get("TENSORBOARD_LOGGING_DIR"):
        return Path(shared).expanduser() / tracking.run
    return output / LOGS


@contextmanager
def tracked(tracking: Tracking | None, output: Path) -> Iterator[None]:
    """W&B takes its settings from the environment; what the user has set there stays.

    A stage that goes on continues its run; the next stage of the same process gets its own.
    """
    if tracking is None or os.environ.get("RANK", "0") != "0":
        yield
        return
    if "wandb" not in tracking.report_to:
        try:
            yield
        finally:
            _end_trackio()
        return
    ids = read_json(output / IDS)
    if not isinstance(ids, dict):
        ids = {"wandb": uuid.uuid4().hex[:8]}
        write_json(output / IDS, ids)
    logs = output / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    ours = {
        "WANDB_PROJECT": tracking.project,
        "WANDB_RUN_ID": ids["wandb"],
        "WANDB_RESUME": "allow",
        "WANDB_DIR": str(logs),
    }
    added = [name for name in ours if name not in os.environ]
    os.environ |= {name: ours[name] for name in added}
    done = False
    try:
        yield
        done = True
    finally:
        for name in added:
            os.environ.pop(name, None)
        if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
            wandb.finish(exit_code=0 if done else 1)
        _end_trackio()


def _end_trackio() -> None:
    """End a run that is open: one of a stage that failed, or that a callback opened again at the
    end of training to log one thing more."""
    if (trackio := sys.modules.get("trackio")) is not None:
        with suppress(RuntimeError):  # there is none
            trackio.finish()


def evaluation_scalars(summary: Mapping[str, Any]) -> dict[str, float]:
    """`eval/<setting>/<quantity>` of an evaluation's summary: plain numbers, and values that have
    an interval."""
    found = {}
    for setting, measured in (summary.get("settings") or {}).items():
        for name, value in measured.items() if isinstance(measured, Mapping) else ():
            number = value.get("value") if isinstance(value, Mapping) else value
            if isinstance(number, int | float) and not isinstance(number, bool):
                found[f"eval/{setting}/{name}"] = float(number)
    return found


def log_evaluation(
    tracking: Tracking | None, output: Path, summary: Mapping[str, Any], step: int = 0
) -> None:
    """Give the trackers an evaluation's numbers, as a run of its own.

    Args:
        tracking: of the evaluation; None does nothing.
        output: its folder.
        summary: of the evaluation.
        step: where its points stand.
    """
    scalars = evaluation_scalars(summary)
    if tracking is None or not scalars:
        return
    if "tensorboard" in tracking.report_to:
        writer = _summary_writer()(log_dir=str(board_folder(tracking, output)))
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.close()
    if "wandb" in tracking.report_to:
        with tracked(tracking, output):
            wandb = importlib.import_module("wandb")
            wandb.init(project=os.environ["WANDB_PROJECT"], name=tracking.run)
            wandb.log(scalars)
    if "trackio" in tracking.report_to:
        trackio = importlib.import_module("trackio")
        settings = tracker_settings(tracking)
        more = {"space_id": settings["trackio_space_id"]} if "trackio_space_id" in settings else {}
        trackio.init(project=settings["project"], name=tracking.run, resume="allow", **more)
        trackio.log(scalars)
        trackio.finish()


def _summary_writer() -> Any:
    try:
        return importlib.import_module("torch.utils.tensorboard").SummaryWriter
    except ImportError:
        return importlib.import_module("tensorboardX").SummaryWriter
