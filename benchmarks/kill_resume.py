"""A run that is killed again and again beside one that is not: is what they leave the same?

    python benchmarks/kill_resume.py --kills 24 --seed 0     # about half an hour on one core

The recipe runs once without interruption. Then it runs in further folders, and each of these runs
is stopped several times by SIGKILL of its whole process group, and started again by the same
command. When a kill falls is drawn uniformly over the processor time that the uninterrupted run
took for the stage (weights, updates, checkpoints, merge, reload; evaluation is one of the stages);
other jobs on the machine do not stretch that. Some kills wait for a checkpoint that is being
written instead, and after some the weights of the newest checkpoint are cut in half. Where a run
has come to its end, its log by step, its models and its completions and scores are compared with
those of the uninterrupted run, bit by bit.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimpi.runs import chain_name, digest, model_digest, read_json, read_metrics, write_json
from trimpi.stages.checkpoints import UNFINISHED, last_whole
from trimpi.stages.throughput import RATES

ROOT = Path(__file__).resolve().parents[1]
TIMED = {*RATES, "step_time"}
"""Logged values that are times, and so differ between any two runs."""
WAYS = ("any time", "any time", "while a checkpoint is written", "any time, then cut it in half")
"""Ways of a kill in a stage, in turn."""
RECORD = "its record"
COLUMNS = ("kill", "run", "stage", "when", "phase", "step", "goes on from", "repeated", "equal")
PATIENCE = 900.0
"""Seconds without the wanted moment after which a sitting is left to come to its end."""


@dataclass
class Kill:
    """One kill: where it was wanted, and what was found after it."""

    run: int
    stage: str
    way: str
    offset: float
    """Seconds of processor time after the stage began."""
    wanted: str = ""
    """The stage that `offset` counts from, where the kill fell in a later one."""
    found: dict[str, Any] = field(default_factory=dict)


class Sitting:
    """The command, running in a process group of its own; knows which stage is under way."""

    def __init__(self, recipe: Path, output: Path) -> None:
        command = [sys.executable, "-m", "trimpi.cli", "run", str(recipe)]
        self.lines: list[tuple[float, str]] = []
        """What it said, each line with the processor time used by then."""
        self.process = subprocess.Popen(
            [*command, "--output", str(output)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._used = 0.0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append((self.used(), line.rstrip()))

    def used(self) -> float:
        """Seconds of processor time so far; what it was before its end after that."""
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
            self._used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except OSError:
            pass
        return self._used

    def began(self, stage: str) -> float | None:
        """When a stage (`evaluate` for the first evaluation) began; None before that."""
        for when, line in list(self.lines):
            said = line.startswith("evaluate ") if stage == "evaluate" else False
            said |= line.split(": ")[0].split("+")[-1] == stage
            if said and line.endswith((": starts", ": resumes")):
                return when
        return None

    def kill(self) -> None:
        """SIGKILL for the whole group."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def end(self) -> None:
        """Wait for the end, which has to be a good one."""
        code = self.process.wait()
        self._reader.join()
        if code:
            raise RuntimeError("\n".join(line for _, line in self.lines[-40:]))

    def said(self, words: str) -> bool:
        return any(words in line for _, line in self.lines)


def durations(sitting: Sitting, stages: list[str]) -> dict[str, float]:
    """Seconds of each stage, and of the evaluation, of a run that came to its end."""
    starts = [sitting.began(stage) for stage in [*stages, "evaluate"]]
    ends = [*starts[1:], sitting.lines[-1][0]]
    return {
        stage: end - start
        for stage, start, end in zip([*stages, "evaluate"], starts, ends, strict=True)
        if start is not None and end is not None
    }


def state_of(folder: Path, evaluation: Path, stage: str) -> dict[str, Any]:
    """What a kill left: the step reached, what was going on, and the checkpoint to go on from."""
    if stage == "evaluate":
        files = sorted(evaluation.rglob("completions.jsonl"))
        rows = sum(len(file.read_bytes().splitlines()) for file in files)
        return {"step": None, "phase": f"evaluation, {rows} rows answered", "from": "these rows"}
    steps = [row["step"] for row in read_metrics(folder)]
    step = steps[-1] if steps else 0
    unfinished = [path.name for path in folder.glob(f"checkpoints/{UNFINISHED}/checkpoint-*")]
    last = last_whole(folder / "checkpoints")
    if (folder / "done.json").is_file():
        phase = "done"
    elif (folder / "stage.json").is_file():
        phase = "recorded, not yet marked as done"
    elif (folder / ".model.part").is_dir():
        phase = "saving the model"
    elif unfinished:
        phase = f"writing {unfinished[0]}"
    elif (folder / "model").is_dir():
        phase = "comparing the saved model"
    elif not steps:
        phase = "before the first update"
    else:
        phase = "updates"
    origin = last.name if last else "the start"
    if (folder / "stage.json").is_file():
        origin = RECORD  # by then the checkpoints may be gone, and nothing is trained again
    return {"step": step, "phase": phase, "from": origin}


def cut_newest(folder: Path) -> str | None:
    """Cut the weights of the newest whole checkpoint in half where there is one before it."""
    newest = last_whole(folder / "checkpoints")
    whole = list(folder.glob("checkpoints/checkpoint-*"))
    if newest is None or len(whole) < 2:
        return None
    weights = max(newest.glob("*.safetensors"), key=lambda file: file.stat().st_size)
    with weights.open("r+b") as stream:
        stream.truncate(weights.stat().st_size // 2)
    return newest.name


def run_until(kill: Kill, sitting: Sitting, folder: Path) -> bool:
    """Wait for the moment of a kill and kill; False where the run came to its end before."""
    deadline = time.monotonic() + PATIENCE
    before: set[str] | None = None
    while sitting.process.poll() is None and time.monotonic() < deadline:
        began = sitting.began(kill.stage)
        if began is not None:
            passed = sitting.used() - began >= kill.offset
            if kill.way == WAYS[2]:
                there = {p.name for p in folder.glob(f"checkpoints/{UNFINISHED}/checkpoint-*")}
                passed = passed and before is not None and bool(there - before)
                before = there
            if passed:
                sitting.kill()
                return True
        time.sleep(0.002 if kill.way == WAYS[2] else 0.02)
    sitting.end()
    return False


def contents(run: Path, chains: list[tuple[str, ...]]) -> dict[str, dict[str, Any]]:
    """Stage -> what it left, as digests and rows that can be compared; `evaluate` as well."""
    found: dict[str, dict[str, Any]] = {}
    for chain in chains:
        folder = run / "seed-0" / chain_name(chain)
        rows = [
            {key: value for key, value in row.items() if key not in TIMED}
            for row in read_metrics(folder)
        ]
        stage = read_json(folder / "stage.json")
        kept = {k: stage.get(k) for k in ("steps", "sequences", "tokens_trained", "gradients",
                                          "verified", "dynamic_sampling")}  # fmt: skip
        found[chain[-1]] = {"log": rows, "model": model_digest(folder / "model"), "record": kept}
    answers = {}
    for name in ("completions.jsonl", "scores.jsonl"):
        for file in sorted((run / "seed-0" / "eval").rglob(name)):
            key = file.relative_to(run).as_posix()
            answers[key] = digest(file.read_text(encoding="utf-8"))
    found["evaluate"] = answers
    return found


def apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Which parts of a stage's contents differ, in words; empty for none."""
    return ", ".join(key for key in one if one[key] != other.get(key))


def killed_run(
    number: int, kills: list[Kill], recipe: Path, run: Path, chains: list[tuple[str, ...]]
) -> list[Kill]:
    """A run that is killed at the given moments and then comes to its end; the kills that were."""
    done: list[Kill] = []
    folders = {chain[-1]: run / "seed-0" / chain_name(chain) for chain in chains}
    cut: str | None = None
    for kill in [*kills, None]:
        if kill is not None and (folders.get(kill.stage, run) / "done.json").is_file():
            continue
        sitting = Sitting(recipe, run)
        if kill is None:
            sitting.end()
        else:
            folder = folders.get(kill.stage, run)
            if run_until(kill, sitting, folder):
                # Where the stage was faster than the moment, the next one is under way.
                at = next((s for s, f in folders.items() if not (f / "done.json").is_file()),
                          "evaluate")  # fmt: skip
                kill.wanted, kill.stage = kill.stage, at
                kill.found = state_of(folders.get(at, run), run / "seed-0" / "eval", at)
                done.append(kill)
        if cut is not None and not sitting.said(f"{cut}: damaged"):
            raise RuntimeError(f"run {number}: {cut} was cut in half, and nothing was said of it")
        cut = None
        if kill is None or sitting.process.returncode == 0:
            break
        if kill.way == WAYS[3] and kill.stage != "evaluate":
            cut = cut_newest(folders[kill.stage])
            if cut is not None:
                instead = last_whole(folders[kill.stage] / "checkpoints")
                kill.found["cut"] = cut
                kill.found["from"] = instead.name if instead else "the start"
    if not (run / "report").is_dir():
        raise RuntimeError(f"run {number} left no report")
    return done


def planned(
    total: int, seconds: Mapping[str, float], generator: random.Random, runs_from: int
) -> list[list[Kill]]:
    """Kills by run: two a stage that trains and one in the evaluation, in that order."""
    found: list[list[Kill]] = []
    ways = 0
    while sum(map(len, found)) < total:
        kills = []
        for stage in seconds:
            for _ in range(1 if stage == "evaluate" else 2):
                way = WAYS[0] if stage == "evaluate" else WAYS[ways % len(WAYS)]
                ways += stage != "evaluate"
                # The moment of a checkpoint's writing is looked for from here on.
                offset = generator.uniform(0, seconds[stage] * (0.6 if way == WAYS[2] else 1))
                kills.append(Kill(runs_from + len(found), stage, way, offset))
        found.append(kills)
    return found


def main() -> None:
    """Print the table of kills."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = Path(__file__).with_suffix(".yaml")
    parser.add_argument("recipe", type=Path, nargs="?", default=default)
    parser.add_argument("--kills", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--work",
        type=Path,
        help="keep the run folders here; an uninterrupted run that is there is used",
    )
    given = parser.parse_args()
    from trimpi.recipe_file import load_recipe

    recipe = load_recipe(given.recipe)
    (chain,) = recipe.chains.values()
    chains = [chain[:end] for end in range(1, len(chain) + 1)]
    generator = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        seconds = read_json(work / "seconds.json")
        if seconds is None:
            sitting = Sitting(given.recipe, work / "whole")
            sitting.end()
            seconds = durations(sitting, list(chain))
            write_json(work / "seconds.json", seconds)
        expected = contents(work / "whole", chains)
        told = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
        print(f"uninterrupted: {told}\n", flush=True)
        print(
            "| kill | run | stage | when | phase | steps logged | goes on from | repeated | equal |"
        )
        print("|---" * len(COLUMNS) + "|", flush=True)
        count = number = unequal = 0
        while count < given.kills:
            kills = planned(1, seconds, generator, number)[0]
            run = work / f"killed-{number}"
            done = killed_run(number, kills, given.recipe, run, chains)
            found = contents(run, chains)
            for kill in done:
                count += 1
                # What a kill did to its stage shows in that stage and in all after it.
                later = list(expected)[list(expected).index(kill.stage) :]
                wrong = [f"{s}: {d}" for s in later if (d := apart(expected[s], found[s]))]
                unequal += bool(wrong)
                print(line(count, kill, wrong), flush=True)
            number += 1
        print(f"\n{count} kills in {number} runs, {unequal} with a difference")
    sys.exit(1 if unequal else 0)


def line(count: int, kill: Kill, wrong: list[str]) -> str:
    """A row of the table."""
    found = kill.found
    origin = found["from"]
    repeated = ""
    if found["step"] is not None and origin != RECORD:
        start = 0 if origin == "the start" else int(origin.rpartition("-")[2])
        repeated = str(max(0, found["step"] - start))
    if "cut" in found:
        origin += f" ({found['cut']} cut in half)"
    step = "" if found["step"] is None else found["step"]
    when = f"{kill.offset:.1f} s" if kill.way != WAYS[2] else "a checkpoint is written"
    if kill.wanted != kill.stage:
        when += f" from {kill.wanted}'s start"
    equal = "bitwise" if not wrong else "no: " + "; ".join(wrong)
    return (
        f"| {count} | {kill.run + 1} | {kill.stage} | {when} | {found['phase']} | {step} | "
        f"{origin} | {repeated} | {equal} |"
    )


if __name__ == "__main__":
    main()
