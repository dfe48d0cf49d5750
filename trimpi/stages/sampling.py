"""Order of the rows in RL: the same after a resume as without one, in any epoch."""

from collections.abc import Iterator

import torch
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
