"""What training an arm takes, and what it takes beyond the arm that it goes on from."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.evaluate.statistics import mean_and_spread
from trimpi.report.load import Run, Stage

QUANTITIES = ("updates", "sequences", "tokens", "seconds")


def costs(run: Run) -> dict[str, dict[str, Any]]:
    """By arm: optimizer `updates`, training `sequences` and `tokens`, `seconds`; means over seeds.

    All stages of the arm's chain count, those that it shares with other arms too. `parent` is the
    arm with the longest chain that this one goes on from, None without; `beyond` are the same
    quantities of the stages after it. None stands for what a stage of the chain has not recorded.
    `resumed`: a stage was interrupted, so that its seconds count its last sitting alone.
    """
    stages: dict[tuple[str, ...], list[Stage]] = {}
    for stage in run.stages:
        stages.setdefault(stage.chain, []).append(stage)
    chains = {arm.name: arm.chain for arm in run.arms}
    found = {}
    for name, chain in chains.items():
        made = [stages.get(chain[:end], []) for end in range(1, len(chain) + 1)]
        before = [p for p in chains if p != name and _goes_on(chain, chains[p])]
        parent = max(before, key=lambda p: len(chains[p]), default=None)
        found[name] = {
            **_sum(made),
            "parent": parent,
            "beyond": _sum(made[len(chains[parent]) :]) if parent else None,
            "resumed": any(s.record.get("resumed_from") for of in made for s in of),
        }
    return found


def _goes_on(chain: Sequence[str], before: Sequence[str]) -> bool:
    return len(before) < len(chain) and chain[: len(before)] == before


def _sum(stages: Sequence[Sequence[Stage]]) -> dict[str, float | None]:
    """Sums over stages, each the mean over its seeds."""
    found: dict[str, float | None] = {}
    for quantity in QUANTITIES:
        means = [_mean([_recorded(stage)[quantity] for stage in seeds]) for seeds in stages]
        known = [mean for mean in means if mean is not None]
        found[quantity] = sum(known) if len(known) == len(means) else None
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean_and_spread(known)[0] if known and len(known) == len(values) else None


def _recorded(stage: Stage) -> dict[str, float | None]:
    """The quantities of a stage that is finished."""
    record: Mapping[str, Any] = stage.record
    updates, tokens = record.get("steps"), record.get("tokens_trained")
    if tokens is None:  # the log of each step says it too
        tokens = next(
            (
                r["num_tokens"]
                for r in stage.steps
                if r.get("step") == updates and "num_tokens" in r
            ),
            None,
        )
    sequences = record.get("sequences")
    seconds = record.get("seconds")
    return {"updates": updates, "sequences": sequences, "tokens": tokens, "seconds": seconds}
