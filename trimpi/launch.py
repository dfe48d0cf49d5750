"""One stage: in this process, or over several devices as `LAUNCHER -m trimpi.launch JOB.json`."""

import gc
import os
import shlex
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from trimpi.disk import disk_faults_named
from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.parallel import launch_command, parallel_problems, plain_command
from trimpi.quiet import quiet
from trimpi.recipe import AnyStage, ModelConfig, Recipe, StageConfig, TrainingConfig
from trimpi.resolve import resolve_callable
from trimpi.runs import read_json, write_json, write_text
from trimpi.sample import DataFolder
from trimpi.trackers import Tracking, tracked, tracking_of

FAULT = "fault-{}.txt"
"""File of a stage folder: why a process of it ended, by rank."""


def run_stage(
    recipe: Recipe,
    config: StageConfig,
    model: Path,
    data: Path,
    output: Path,
    seed: int,
    *,
    base: Path | None = None,
    replay: Path | None = None,
) -> Path:
    """Run a stage and return the model folder that it leaves.

    Args:
        recipe: how to load the model, devices, grader.
        config: the stage.
        model: the model folder that enters.
        data: the data folder.
        output: the stage folder.
        seed: the training seed.
        base: the model folder that the recipe starts from.
        replay: the folder of general examples.

    Raises:
        UserError: from the stage, or when its processes end with an error.
    """
    tracking = tracking_of(recipe, output.name, seed)
    job = {
        "stage": config.model_dump(mode="json"),
        "model": str(model),
        "model_config": recipe.model.model_dump(mode="json"),
        "data": str(data),
        "output": str(output),
        "seed": seed,
        "grader": recipe.model_dump(mode="json")["grader"],
        "base": None if base is None else str(base),
        "replay": None if replay is None else str(replay),
        "tracking": None if tracking is None else tracking.as_json(),
    }
    alone = not isinstance(config, TrainingConfig)  # arithmetic on files needs no devices
    if alone or (recipe.devices == 1 and recipe.launcher is None):
        return run_job(job)
    if problems := parallel_problems(recipe):
        raise UserError.join(problems)
    file = output / "job.json"
    write_json(file, job)
    for old in output.glob(FAULT.format("*")):
        old.unlink()
    if recipe.parallel is not None:
        start = launch_command(recipe.parallel, recipe.devices)
    elif recipe.launcher is not None:
        start = shlex.split(recipe.launcher)
    else:
        start = plain_command(recipe.devices)
    command = [*start, "-m", "trimpi.launch", str(file)]
    try:
        code = subprocess.run(command, check=False).returncode
    except FileNotFoundError:
        raise UserError(f"launcher: no command {command[0]!r}; install it or change it") from None
    if faults := _faults(output):
        raise UserError.join(faults)
    if code in (-9, 137):
        raise UserError(
            f"{output}: the stage's processes were killed, most likely because memory ran out; "
            "lower micro_batch_size or max_new_tokens, or set gradient_checkpointing: true"
        )
    if code:
        raise UserError(
            f"{output}: the stage's processes ended with code {code} (see above); "
            "mend the cause and run the same command again, it resumes"
        )
    return output / "model"


def run_job(job: dict[str, Any]) -> Path:
    """Run a job in this process; memory is given back before it returns."""
    from trimpi.stages.failures import kept_on_disk, memory_faults_named
    from trimpi.stages.inputs import StageInputs

    quiet()
    config: StageConfig = TypeAdapter(AnyStage).validate_python(job["stage"])
    run = resolve_callable(f"trimpi.stages.{config.kind}:run", "stage")
    inputs = StageInputs(
        model=Path(job["model"]),
        model_config=ModelConfig.model_validate(job["model_config"]),
        data=DataFolder(Path(job["data"])),
        output=Path(job["output"]),
        seed=job["seed"],
        grader=make_grader(job["grader"], "grader"),
        base=None if job["base"] is None else Path(job["base"]),
        replay=None if job["replay"] is None else DataFolder(Path(job["replay"])),
        tracking=Tracking.from_json(job.get("tracking")),
    )
    try:
        with (
            disk_faults_named(config.kind, inputs.output, partial(kept_on_disk, inputs)),
            memory_faults_named(config, inputs),
            tracked(inputs.tracking, inputs.output),
        ):
            return Path(run(config, inputs))
    finally:
        _free_memory()


def _free_memory() -> None:
    gc.collect()
    if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _faults(output: Path) -> list[str]:
    """What the processes of a stage have left as their last words, each once."""
    return list(dict.fromkeys(file.read_text() for file in sorted(output.glob(FAULT.format("*")))))


def work(file: Path) -> int:
    """One of a stage's processes; its fault goes to a file, for whoever started them to tell.

    Returns:
        The exit code.
    """
    job = read_json(file)
    if job is None:
        print(f"{file}: no such job file", file=sys.stderr)
        return 2
    output = Path(job["output"])
    try:
        run_job(job)
    except UserError as fault:
        try:
            write_text(output / FAULT.format(os.environ.get("RANK", "0")), str(fault))
        except OSError:  # the disk may be what is at fault
            print(fault, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except Exception:
        # Where another process has said why it ends, a broken connection to it is no news.
        if not _faults(output):
            raise
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(work(Path(sys.argv[1])))
