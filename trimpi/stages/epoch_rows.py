"""Order of the rows where each epoch has rows of its own, or the last batch is filled up."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch.utils.data import Sampler

from trimpi.batch import IGNORED, Encoded


class EpochRows(Sampler[int]):
    """Row numbers of a table that holds the rows of all epochs, one epoch after the other.

    An epoch yields its own rows, in an order that is a function of (seed, epoch), so that a stage
    that resumes goes on in the same one. It is the order of transformers' trainer.

    Processes that train together take batches in turn and each needs as many: accelerate would
    give the first rows of an epoch a second time, with their loss. `blanks` rows without loss,
    which end the table, come at the end of every epoch instead.
    """

    def __init__(
        self, rows: int, table: int, seed: int, blanks: int = 0, same: bool = False
    ) -> None:
        """
        Args:
            rows: rows of an epoch.
            table: rows of the table without blanks, a multiple of `rows`.
            seed: of the orders.
            blanks: rows that fill up the last batch of an epoch.
            same: every epoch has the same rows, which the table holds once.
        """
        if table % rows:
            raise ValueError(f"a table of {table} rows is not made of epochs of {rows}")
        self._rows, self._epochs, self._seed = rows, table // rows, seed
        self._blanks, self._same = range(table, table + blanks), same
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the training loop before each epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._rows + len(self._blanks)

    def __iter__(self) -> Iterator[int]:
        if not self._same and self.epoch >= self._epochs:
            raise IndexError(f"epoch {self.epoch} of a table of {self._epochs}")
        generator = torch.Generator()
        generator.manual_seed(self._seed + self.epoch)
        first = 0 if self._same else self.epoch * self._rows
        for place in torch.randperm(self._rows, generator=generator).tolist():
            yield first + place
        yield from self._blanks


def blank_rows(rows: Sequence[Encoded], seen: int, micro: int, processes: int) -> list[Encoded]:
    """What fills up the last batches of an epoch, so that each process has as many of them.

    One process needs none. A blank is the shortest row with nothing in the loss; it shows pictures
    where any row does, since a part of the model that only some processes use would stop them.

    Args:
        rows: of the table.
        seen: rows of an epoch.
        micro: rows of a batch of a process.
        processes: that train together.
    """
    count = -seen % (micro * processes) if processes > 1 else 0
    shown = [row for row in rows if row.pictures] or rows
    shortest = min(shown, key=lambda row: len(row.input_ids))
    return [replace(shortest, labels=[IGNORED] * len(shortest.labels))] * count
