"""Order of the rows in RL: the same after a resume as without one, in any epoch, and whatever the
number of processes."""

import random
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import RepeatSampler


class EpochSampler(RepeatSampler):
    """TRL's `RepeatSampler`, its permutation a function of (seed, epoch).

    TRL draws one permutation an epoch from a generator that lives as long as the process, so a run
    that resumes in a later epoch repeats the order of the first. Here epoch `e` always takes the
    draw number `e + 1` of a freshly seeded generator: what TRL yields when nothing interrupts it.
    """

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch, counted from 0."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Row indices: chunks of prompts, each prompt repeated, each chunk repeated."""
        if self.shuffle:
            assert self.seed is not None
            self.generator.manual_seed(self.seed)
            for _ in range(self.epoch):
                torch.randperm(self.num_samples, generator=self.generator)
        return super().__iter__()


def dealt(rows: int, first: int, updates: int, seed: int, batch: int) -> list[int]:
    """The order in which a process learns from its rows of a rollout batch.

    TRL shuffles them by the draws of each process, so that the updates of a batch would be made of
    other rows on two processes than on one. Here each run of `updates` rows is dealt to the updates
    by a permutation that is a function of (seed, batch, place in the batch of all processes): every
    update takes as many rows of each prompt, whoever holds them (one more or less where `updates`
    does not divide the group size).

    Args:
        rows: of this process, a multiple of `updates`.
        first: place of its first row in the batch of all processes, a multiple of `updates`.
        updates: that are made from a rollout batch.
        seed: of the stage.
        batch: number of the rollout batch.

    Returns:
        Places of its rows: those of the first update, then those of the second, and so on.
    """
    hands: list[list[int]] = [[] for _ in range(updates)]
    for start in range(0, rows, updates):
        draw = random.Random(f"{seed} {batch} {first + start}")
        for place, hand in enumerate(draw.sample(range(updates), updates), start):
            hands[hand].append(place)
    return [place for hand in hands for place in hand]


def in_order(batch: Mapping[str, Any], order: list[int]) -> dict[str, Any]:
    """The rows of a batch in another order: tensors [B, ...] and lists of B; scalars stay."""

    def ordered(value: Any) -> Any:
        if value is None or (isinstance(value, Tensor) and value.ndim == 0):
            return value
        return value[order] if isinstance(value, Tensor) else [value[place] for place in order]

    return {name: ordered(value) for name, value in batch.items()}
