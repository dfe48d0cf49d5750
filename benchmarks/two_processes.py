"""Two processes beside one with twice the batch a pass: the same rows, groups, metrics, weights?

    python benchmarks/two_processes.py                     # about 5 minutes on two cores
    python benchmarks/two_processes.py --parallel fsdp2    # the same by another way

CPT, SFT and RL one after the other on tiny-vlm, by `accelerate launch` with two processes (gloo)
and in one process with twice the rows a pass, so that an update is made of as many. Each micro
batch is recorded by every process: places of its rows, in RL also the half of the group that they
belong to and their tokens.
"""

import argparse
import json
import math
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TIMED = ("per_second", "mfu", "step_time")
"""Parts of the names of logged values that are times."""


@dataclass(frozen=True)
class Apart:
    """How far two runs of a stage are apart; metrics by name, relative beyond 1, else absolute."""

    updates: int
    rows_equal: bool
    groups_equal: bool | None
    """Halves and tokens of all completions; None where there are none."""
    metrics: dict[str, float]
    learned: float
    """Greatest change of a weight by the stage."""
    weights: float
    """Greatest difference of a final weight."""
    share: float
    """Norm of the difference of all final weights over the norm of what the stage changed."""

    def worst(self, *names: str) -> float:
        """Greatest difference of metrics whose names begin so."""
        found = [value for key, value in self.metrics.items() if key.startswith(names)]
        return max(found, default=math.nan)


@contextmanager
def recorded() -> Iterator[list[dict[str, Any]]]:
    """What the trainers of the block learn from, one entry a micro batch."""
    from trimpi.stages.shaped_rollouts import ShapedRolloutTrainer
    from trimpi.stages.supervised import SupervisedTrainer

    seen: list[dict[str, Any]] = []
    supervised, rollouts = SupervisedTrainer.compute_loss, ShapedRolloutTrainer._compute_loss

    def of_supervised(self: Any, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
        rows = len(self.train_dataset) - self.blanks
        places = [place for place in inputs["place"].tolist() if place < rows]
        seen.append({"step": self.state.global_step, "rows": places})
        return supervised(self, model, inputs, *rest, **more)

    def of_rollouts(self: Any, model: Any, inputs: Any) -> Any:
        ids, mask = inputs["completion_ids"], inputs["completion_mask"].bool()
        seen.append(
            {
                "step": self.state.global_step,
                "rows": inputs["place"].tolist(),
                "aware": inputs["is_aware"].tolist(),
                "tokens": [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)],
            }
        )
        return rollouts(self, model, inputs)

    SupervisedTrainer.compute_loss = of_supervised  # type: ignore[method-assign]
    ShapedRolloutTrainer._compute_loss = of_rollouts  # type: ignore[method-assign]
    try:
        yield seen
    finally:
        SupervisedTrainer.compute_loss = supervised  # type: ignore[method-assign]
        ShapedRolloutTrainer._compute_loss = rollouts  # type: ignore[method-assign]


def run_jobs(file: Path) -> None:
    """Run the jobs of a file one after the other in this process; leaves what each process saw."""
    from trimpi.launch import run_job

    rank = os.environ.get("RANK", "0")
    for job in json.loads(file.read_text()):
        with recorded() as seen:
            run_job(job)
        (Path(job["output"]) / f"seen-{rank}.json").write_text(json.dumps(seen))


def chain_of(
    stages: Mapping[str, Any], output: Path, model: Path, data: Path, grader: str, halve: bool
) -> list[dict[str, Any]]:
    """Jobs of stages (name -> its config), each on the model of the one before.

    Args:
        halve: half of the `micro_batch_size`, for each of two processes.
    """
    jobs, start = [], str(model)
    for name, config in stages.items():
        if halve:
            size = config.micro_batch_size // 2
            config = config.model_copy(update={"micro_batch_size": size})
        jobs.append(
            {
                "stage": config.model_dump(mode="json"),
                "model": start,
                "model_config": {"path": str(model)},
                "data": str(data),
                "output": str(output / name),
                "seed": 0,
                "grader": grader,
                "base": str(model),
                "replay": None,
            }
        )
        (output / name).mkdir(parents=True)
        start = str(output / name / "model")
    return jobs


def in_two(jobs: Sequence[Mapping[str, Any]], folder: Path, way: str = "ddp") -> None:
    """Run jobs by two processes.

    Raises:
        RuntimeError: they failed; with the end of what they said.
    """
    from trimpi.parallel import launch_command

    file = folder / "jobs.json"
    file.write_text(json.dumps(list(jobs)))
    command = [*launch_command(way, 2), "-m", "benchmarks.two_processes", "--jobs", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stdout[-2000:] + done.stderr[-6000:])


def compare(one: Path, two: Path, start: Path) -> Apart:
    """Stage folders of one process and of two; `start`: the model that entered the first."""
    from trimpi.runs import read_metrics

    alone, together = merged([one / "seen-0.json"]), merged(sorted(two.glob("seen-*.json")))
    metrics: dict[str, float] = {}
    ones, twos = read_metrics(one), read_metrics(two)
    if len(ones) != len(twos):
        raise ValueError(f"{one} logged {len(ones)} steps, {two} {len(twos)}")
    for left, right in zip(ones, twos, strict=True):
        if set(left) != set(right):
            raise ValueError(f"step {left['step']}: {sorted(set(left) ^ set(right))} in one alone")
        for key, value in left.items():
            if isinstance(value, int | float) and not any(part in key for part in TIMED):
                difference = abs(value - right[key]) / max(1.0, abs(value))
                metrics[key] = max(metrics.get(key, 0.0), difference)
    rollouts = "tokens" in alone
    before, left, right = (weights(folder) for folder in (start, one / "model", two / "model"))
    return Apart(
        updates=len(alone["rows"]),
        rows_equal=alone["rows"] == together["rows"],
        groups_equal=(
            all(alone[key] == together[key] for key in ("aware", "tokens")) if rollouts else None
        ),
        metrics=metrics,
        learned=max(float((left[k] - before[k]).abs().max()) for k in left if k in before),
        weights=max(float((left[k] - right[k]).abs().max()) for k in left),
        share=math.sqrt(
            sum(float((left[k] - right[k]).square().sum()) for k in left)
            / max(sum(float((left[k] - before[k]).square().sum()) for k in left), 1e-30)
        ),
    )


def merged(files: Sequence[Path]) -> dict[str, list[list[Any]]]:
    """What all processes saw: quantity -> update -> rows in the order of the global batch.

    Completions of an update stand sorted: each process puts its own of like length together.
    """
    ranks = [json.loads(file.read_text()) for file in files]
    found: dict[str, dict[int, list[Any]]] = {}
    # Rows are dealt to processes batch by batch; rollouts are made, and stay, by process.
    entries = [e for rank in ranks for e in rank]
    if "tokens" not in entries[0]:
        entries = [e for together in zip(*ranks, strict=True) for e in together]
    for entry in entries:
        for key in entry.keys() - {"step"}:
            found.setdefault(key, {}).setdefault(entry["step"], []).extend(entry[key])
    if "tokens" in found:
        for step in found["tokens"]:
            rows = sorted(zip(*(found[key][step] for key in found), strict=True))
            for key, column in zip(found, zip(*rows, strict=True), strict=True):
                found[key][step] = list(column)
    return {key: [steps[step] for step in sorted(steps)] for key, steps in found.items()}


def weights(folder: Path) -> dict[str, Any]:
    """All tensors of a model folder, float32."""
    from safetensors.torch import load_file

    found: dict[str, Any] = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= {name: tensor.float() for name, tensor in load_file(file).items()}
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parallel", default="ddp", choices=("ddp", "fsdp2", "zero2", "zero3"))
    parser.add_argument("--work", type=Path, help="keep the stage folders here")
    parser.add_argument("--jobs", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.jobs is not None:
        run_jobs(given.jobs)
        return
    from datasets_builders.clevr import builder
    from trimpi.recipe_file import load_recipe

    recipe = load_recipe(Path(__file__).with_name("two_processes.yaml"))
    model = ROOT / "trimpi" / "models" / "tiny-vlm"
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        builder.build(work / "data", seed=0, progress=False, **recipe.data.args)
        sides = {}
        for side in ("one", "two"):
            where = (work / side, model, work / "data", recipe.grader, side == "two")
            sides[side] = chain_of(recipe.trained, *where)
        (work / "jobs-of-one.json").write_text(json.dumps(sides["one"]))
        run_jobs(work / "jobs-of-one.json")
        in_two(sides["two"], work, given.parallel)
        print("| stage | updates | rows by update | groups | loss | grad norm | reward | weights |")
        print("|---|---|---|---|---|---|---|---|")
        start = model
        for name in recipe.trained:
            apart = compare(work / "one" / name, work / "two" / name, start)
            start = work / "one" / name / "model"
            print(line(name, apart), flush=True)


def line(name: str, apart: Apart) -> str:
    """A row of the table."""
    said = {True: "equal", False: "DIFFERENT", None: ""}
    values = [apart.worst("loss"), apart.worst("grad_norm"), apart.worst("reward")]
    numbers = ["" if math.isnan(value) else f"{value:.1e}" for value in values]
    numbers.append(f"{apart.weights:.1e} of {apart.learned:.1e}")
    cells = [name, str(apart.updates), said[apart.rows_equal], said[apart.groups_equal], *numbers]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
