"""Fingerprints of tensors, by which equal pictures are known again on the device they are on.

Multilinear hashing (Lemire and Kaser 2014, arXiv 1202.4961) of the bits of the values, twice with
weights of their own: integer sums modulo 2^64, which no order of summation changes. Different
pictures get equal fingerprints with a probability below 2^-60; nothing but the fingerprints, 16
bytes a picture, leaves the device.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

Fingerprint = tuple[int, ...]
AT_ONCE = 1 << 22
"""Values that are spread to 64 bits at a time."""


def fingerprints(values: Tensor, counts: Sequence[int] | None = None) -> list[Fingerprint]:
    """One a picture.

    Args:
        values: [n, d], of any type.
        counts: rows of each picture, one after the other; None where each row is a picture.
    """
    bits = values.detach().contiguous()
    width = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[bits.element_size()]
    bits = bits.view(width)
    weights = _weights(bits.shape[1], bits.device)
    step = max(1, AT_ONCE // max(1, bits.shape[1]))
    sums = [
        torch.stack([(part.long() * weight).sum(1) for weight in weights], 1)
        for part in bits.split(step)
    ]
    rows = torch.cat(sums) if sums else bits.new_zeros(0, 2, dtype=torch.int64)
    if counts is None:
        return [tuple(row) for row in rows.tolist()]
    # Low bits of a product depend on few bits of its factors; the high ones come down.
    rows = rows ^ (rows >> 31)
    sizes = torch.tensor(counts, device=rows.device)
    picture = torch.repeat_interleave(torch.arange(len(counts), device=rows.device), sizes)
    starts = torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    place = torch.arange(len(rows), device=rows.device) - starts
    weights = _weights(max(counts, default=0), rows.device)
    found = rows.new_zeros(len(counts), 2)
    found.index_add_(0, picture, rows * weights.T[place])
    return [tuple(row) for row in found.tolist()]


@lru_cache(maxsize=32)
def _weights(count: int, device: torch.device) -> Tensor:
    """[2, count] odd numbers of 64 bits: splitmix64 of the place, so that they never change."""
    with np.errstate(over="ignore"):
        found = np.arange(1, 2 * count + 1, dtype=np.uint64).reshape(count, 2).T
        found = found * np.uint64(0x9E3779B97F4A7C15)
        found = (found ^ (found >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        found = (found ^ (found >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        found = (found ^ (found >> np.uint64(31))) | np.uint64(1)
    return torch.from_numpy(found.astype(np.int64)).to(device)
