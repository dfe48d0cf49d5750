"""SFT of all weights in two processes, killed in an update and after the last one, and resumed.

    python -m benchmarks.kill_two --parallel ddp fsdp2 zero2 zero3

A process kills itself by SIGKILL; the command that failed is then given again, as a user would. The
weights are set beside those of one process that nothing happened to.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.two_processes import chain_of, weights

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "trimpi" / "models" / "tiny-vlm"
KILL = "TRIMPI_BENCHMARK_KILL"
"""Environment: the update (from 0) in which a process dies, or `end`, after the last one."""
ENDS = ("", "2", "end")


def work(file: Path) -> int:
    """One process of a stage, which may have a date with a signal."""
    import trimpi.stages.supervised as stage
    from trimpi.launch import work as launched

    def die(*_: Any, **__: Any) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    moment, trainer = os.environ.get(KILL, ""), stage.SupervisedTrainer
    if moment == "end":
        stage.whole_model = die  # type: ignore[assignment]
    elif moment:
        compute = trainer.compute_loss

        def loss(self: Any, *arguments: Any, **more: Any) -> Any:
            if self.state.global_step == int(moment):
                die()
            return compute(self, *arguments, **more)

        trainer.compute_loss = loss  # type: ignore[method-assign]
    return launched(file)


def job(output: Path, data: Path, halve: bool) -> Path:
    """The job file of a stage of four updates, in `output / "sft"`."""
    from trimpi.recipe import SftConfig

    sizes = {"epochs": 2, "batch_size": 4, "micro_batch_size": 4, "save_steps": 1}
    config = SftConfig(lr=1e-3, lora=None, **sizes)
    jobs = chain_of({"sft": config}, output, MODEL, data, "trimpi.grading:exact_answer", halve)
    file = output / "job.json"
    file.write_text(json.dumps(jobs[0]))
    return file


def start(command: list[str], file: Path, moment: str = "") -> int:
    """Run a job; its exit code."""
    command = [*command, "-m", "benchmarks.kill_two", "--job", str(file)]
    environment = {**os.environ, KILL: moment}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode and not moment:
        raise RuntimeError(done.stderr[-3000:])
    return done.returncode


def apart(one: Path, two: Path) -> float:
    """The largest difference of the weights of two stages."""
    left, right = weights(one / "sft" / "model"), weights(two / "sft" / "model")
    if left.keys() != right.keys():
        raise RuntimeError(f"{two}: other weights than {one}")
    return max(float((left[name] - right[name]).abs().max()) for name in left)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parallel", nargs="+", default=["ddp", "fsdp2"])
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job is not None:
        sys.exit(work(given.job))
    from datasets_builders.clevr import builder
    from trimpi.parallel import launch_command

    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        rows = {"policies": 1, "train": 2, "train_cot": 8, "test": 2, "override": 2}
        builder.build(root / "data", seed=0, progress=False, **rows)
        alone = root / "alone"
        start([sys.executable], job(alone, root / "data", False))
        print("| way | uninterrupted | killed in the third update | killed after the last |")
        print("|---|---|---|---|")
        for way in given.parallel:
            command, cells = launch_command(way, 2), []
            for moment in ENDS:
                folder = root / f"{way}-{moment}"
                file = job(folder, root / "data", True)
                if moment and start(command, file, moment) != 128 + signal.SIGKILL:
                    raise RuntimeError(f"{way}: nothing was killed at {moment}")
                start(command, file)
                cells.append(f"{apart(alone, folder):.1e}")
                shutil.rmtree(folder)
            print(f"| {way} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
