"""Rollout-based instance filtering before RL: leave out prompts that the model never solves.

RIF-RFT (arXiv 2507.05386) samples K responses a prompt from the model that enters and drops the
prompt when none is rewarded. Policy-aware rollouts rescue some of those, so `solvable` samples half
of the K with the policy in context and keeps what either half solves; `free_only` is the paper's.

    instances/<block>.json      what a block of prompts gave; a filter that was cut off goes on
    instances.json              all prompts with their pass rates, and which are kept
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object

from trimpi.errors import UserError
from trimpi.generate import Generator
from trimpi.prompt import build_messages
from trimpi.recipe import RlConfig
from trimpi.runs import read_json, write_json
from trimpi.sample import Completion, DataFolder, Sample
from trimpi.stages.rewards import Graded

INSTANCES = "instances.json"
BLOCK = 32
"""Prompts that are tried, and kept on disk, together."""


@dataclass(frozen=True)
class Instance:
    """What the rollouts of a prompt came to: pass rates, None for a half without rollouts.

    A rollout passes when the grader gives it anything above 0; `solved` counts full marks.
    """

    id: str
    free: float | None
    aware: float | None
    solved: float

    @property
    def solvable(self) -> bool:
        """Whether any rollout was rewarded."""
        return max(self.free or 0.0, self.aware or 0.0) > 0


def kept_rows(
    config: RlConfig,
    samples: Sequence[Sample],
    data: DataFolder,
    generate: Generator,
    grade: Callable[[Sample, Completion], Graded],
    seed: int,
    output: Path,
) -> list[int]:
    """Which rows RL trains on; tries all of them, or reads what was found before.

    Processes that train together try a share of the blocks each, and all return the same rows.

    Args:
        config: the stage.
        samples: the rows of its split.
        data: their data folder.
        generate: answers prompts with the model that enters the stage.
        grade: the reward.
        seed: of the sampling.
        output: the stage folder.

    Returns:
        Indices into `samples`, rising.

    Raises:
        UserError: nothing is kept, or fewer rows than a rollout batch has prompts.
    """
    file, state = output / INSTANCES, PartialState()
    found = read_json(file)
    if found is None:
        mine = []
        for block in range(state.process_index, -(-len(samples) // BLOCK), state.num_processes):
            mine += _block(config, block, samples, data, generate, grade, seed, output)
        tried = gather_object(mine) if state.num_processes > 1 else mine
        place = {sample.id: index for index, sample in enumerate(samples)}
        found = verdicts(
            config, [Instance(**i) for i in sorted(tried, key=lambda i: place[i["id"]])]
        )
        if state.is_main_process:
            write_json(file, found)
            shutil.rmtree(output / "instances", ignore_errors=True)
        state.wait_for_everyone()
    rows = [index for index, instance in enumerate(found["instances"]) if instance["kept"]]
    if len(rows) < config.prompts_per_step:
        left = "no row" if not rows else f"{len(rows)} rows, fewer than prompts_per_step,"
        raise UserError(
            f"{config.kind}: instance_filter {config.instance_filter} leaves {left} of "
            f"{len(samples)} ({words(found)}; {file}); train the stages before it longer, take "
            "easier rows or more filter_rollouts, or set it to none"
        )
    return rows


def verdicts(config: RlConfig, instances: Sequence[Instance]) -> dict[str, Any]:
    """The content of `instances.json`: settings, counts, and each instance with `kept`."""
    never = [not i.solvable for i in instances]
    always = [config.filter_solved and i.solved == 1 for i in instances]
    rows = [
        {**vars(i), "kept": not (a or b)} for i, a, b in zip(instances, never, always, strict=True)
    ]
    return {
        "filter": config.instance_filter,
        "rollouts": config.filter_rollouts,
        "rows": len(rows),
        "kept": sum(row["kept"] for row in rows),
        "never_solved": sum(never),
        "always_solved": sum(i.solved == 1 for i in instances),
        # What `free_only` would drop and policy-aware rollouts show to be within reach.
        "rescued": sum(i.free == 0 and i.solvable for i in instances),
        "instances": rows,
    }


def words(found: dict[str, Any]) -> str:
    """The counts of a filter in one line."""
    return (
        f"{found['never_solved']} never solved in {found['rollouts']} rollouts, "
        f"{found['always_solved']} always, {found['rescued']} only with the policy in context"
    )


def summary(output: Path) -> dict[str, Any] | None:
    """The counts for `stage.json`; None where nothing was filtered."""
    found = read_json(output / INSTANCES)
    return found and {key: value for key, value in found.items() if key != "instances"}


def _block(
    config: RlConfig,
    block: int,
    samples: Sequence[Sample],
    data: DataFolder,
    generate: Generator,
    grade: Callable[[Sample, Completion], Graded],
    seed: int,
    output: Path,
) -> list[dict[str, Any]]:
    """The instances of a block as JSON, tried now or before an interruption."""
    file = output / "instances" / f"{block:06d}.json"
    if (done := read_json(file)) is not None:
        return list(done)
    chosen = samples[block * BLOCK : (block + 1) * BLOCK]
    both = config.instance_filter == "solvable" and config.policy_fraction > 0
    size = config.filter_rollouts // (1 + both)
    graded: dict[tuple[str, bool], list[Graded]] = {}
    for aware in (False, True) if both else (False,):
        rows = [sample for sample in chosen for _ in range(size)]
        written = generate(
            [build_messages(s, data.policy_of(s) if aware else None) for s in rows],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=(seed * 1_000_003 + 2 * block + aware) % 2**31,  # another one for each block
        )
        for sample, answer in zip(rows, written, strict=True):
            completion = Completion(sample.id, answer.text, answer.tokens, answer.truncated)
            graded.setdefault((sample.id, aware), []).append(grade(sample, completion))
    tried = [vars(_instance(s.id, graded[s.id, False], graded.get((s.id, True)))) for s in chosen]
    write_json(file, tried)
    return tried


def _instance(name: str, free: Sequence[Graded], aware: Sequence[Graded] | None) -> Instance:
    """Ungradable rollouts pass nothing."""

    def rate(graded: Sequence[Graded], least: float) -> float:
        passed = [(g.accuracy or 0.0) >= least and (g.accuracy or 0.0) > 0 for g in graded]
        return sum(passed) / len(passed)

    together = [*free, *(aware or ())]
    return Instance(
        name, rate(free, 0), None if aware is None else rate(aware, 0), rate(together, 1)
    )
