"""Fingerprints tell tensors apart by every bit, and know equal ones anywhere in a batch."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimpi.fingerprints import fingerprints


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=6), st.integers(0, 10**6))
def test_pictures_by_their_rows(counts: list[int], seed: int) -> None:
    """The same picture among others has the same fingerprint; each other one has its own."""
    draw = torch.Generator().manual_seed(seed)
    pictures = [torch.randn(count, 7, generator=draw) for count in counts]
    alone = [fingerprints(picture, [len(picture)])[0] for picture in pictures]
    together = fingerprints(torch.cat(pictures[::-1]), counts[::-1])[::-1]
    assert alone == together and len(set(alone)) == len(counts)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 11), st.integers(0, 31))
def test_every_bit_counts(place: int, bit: int) -> None:
    values = torch.arange(12, dtype=torch.float32)
    other = values.clone()
    view = other.view(torch.int32)
    view[place] ^= (1 << bit) if bit < 31 else -(1 << 31)
    found = fingerprints(torch.stack([values, other]))
    assert found[0] != found[1]
    shaped = fingerprints(torch.cat([values.view(4, 3), other.view(4, 3)]), [4, 4])
    assert shaped[0] != shaped[1]


def test_order_of_rows_counts() -> None:
    values = torch.randn(4, 3)
    found = fingerprints(torch.cat([values, values.flip(0)]), [4, 4])
    assert found[0] != found[1]


def test_kinds_of_values() -> None:
    for dtype in (torch.bfloat16, torch.float64, torch.bool, torch.uint8):
        values = torch.tensor([[0, 1, 1], [0, 1, 1], [1, 0, 1]]).to(dtype)
        first, second, third = fingerprints(values)
        assert first == second != third
