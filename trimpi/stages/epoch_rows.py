"""Order of the rows where each epoch has rows of its own."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochRows(Sampler[int]):
    """Row numbers of a table that holds the rows of all epochs, one epoch after the other.

    An epoch yields its own rows, in an order that is a function of (seed, epoch), so that a stage
    that resumes goes on in the same one.
    """

    def __init__(self, rows: int, table: int, seed: int) -> None:
        """
        Args:
            rows: rows of an epoch.
            table: rows of the table, a multiple of `rows`.
            seed: of the orders.
        """
        if table % rows:
            raise ValueError(f"a table of {table} rows is not made of epochs of {rows}")
        self._rows, self._epochs, self._seed = rows, table // rows, seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._rows

    def __iter__(self) -> Iterator[int]:
        if self.epoch >= self._epochs:
            raise IndexError(f"epoch {self.epoch} of a table of {self._epochs}")
        generator = torch.Generator()
        generator.manual_seed(self._seed + self.epoch)
        first = self.epoch * self._rows
        for place in torch.randperm(self._rows, generator=generator).tolist():
            yield first + place
