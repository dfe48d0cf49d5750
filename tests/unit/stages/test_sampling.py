"""The order of prompts: TRL's while nothing interrupts it, and the same after a resume."""

from trl.trainer.utils import RepeatSampler

from trimpi.stages.sampling import EpochSampler


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
