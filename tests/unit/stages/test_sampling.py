"""The order of prompts: TRL's while nothing interrupts it, and the same after a resume."""

import torch
from trl.trainer.utils import RepeatSampler

from trimpi.stages.sampling import EpochSampler, dealt, in_order


def settings(shuffle: bool = True) -> dict[str, object]:
    return {
        "data_source": range(7),
        "mini_repeat_count": 2,
        "batch_size": 3,
        "repeat_count": 2,
        "shuffle": shuffle,
        "seed": 5,
    }


def test_uninterrupted_epochs_are_those_of_trl() -> None:
    theirs, ours = RepeatSampler(**settings()), EpochSampler(**settings())
    epochs = [list(theirs) for _ in range(4)]
    for epoch, order in enumerate(epochs):
        ours.set_epoch(epoch)
        assert list(ours) == order
    assert len({tuple(order) for order in epochs}) == 4 and len(ours) == len(epochs[0]) == 24


def test_a_fresh_sampler_continues_in_any_epoch() -> None:
    before = EpochSampler(**settings())
    before.set_epoch(3)
    order = list(before)
    after = EpochSampler(**settings())
    after.set_epoch(3)
    assert list(after) == order == list(after)


def test_without_shuffling_every_epoch_is_alike() -> None:
    sampler = EpochSampler(**settings(shuffle=False))
    first = list(sampler)
    sampler.set_epoch(2)
    assert list(sampler) == first and first[:4] == [0, 0, 1, 1]


def test_rows_are_dealt_by_their_place_among_all() -> None:
    """Whoever holds them, the rows of an update are the same; each run of rows goes to all."""
    whole = dealt(12, 0, updates=3, seed=5, batch=2)
    assert sorted(whole) == list(range(12))
    updates = [set(whole[start : start + 4]) for start in (0, 4, 8)]
    for rows in updates:
        assert sorted(row // 3 for row in rows) == [0, 1, 2, 3]
    halves = [dealt(6, first, updates=3, seed=5, batch=2) for first in (0, 6)]
    for number, rows in enumerate(updates):
        mine = [halves[rank][2 * number : 2 * number + 2] for rank in (0, 1)]
        assert {*mine[0], *(row + 6 for row in mine[1])} == rows
    assert dealt(12, 0, 3, 5, 3) != whole and dealt(12, 0, 3, 6, 2) != whole
    assert dealt(4, 8, 1, 0, 0) == [0, 1, 2, 3]


def test_a_batch_in_another_order() -> None:
    batch = {"a": torch.arange(3), "b": ["x", "y", "z"], "n": torch.tensor(7), "none": None}
    found = in_order(batch, [2, 0, 1])
    assert found["a"].tolist() == [2, 0, 1] and found["b"] == ["z", "x", "y"]
    assert int(found["n"]) == 7 and found["none"] is None
