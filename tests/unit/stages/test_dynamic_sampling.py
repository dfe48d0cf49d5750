"""Dynamic sampling without a model: which groups stay, when it gives up, what it counts."""

from collections.abc import Sequence

import pytest

from trimpi.recipe_rl import DynamicSampling
from trimpi.sample import Completion
from trimpi.stages.dynamic_sampling import DynamicRecord, has_signal, refill
from trimpi.stages.rewards import Graded
from trimpi.stages.rollouts import Group, Rolled, Sampled, mean_abs_advantage


def group(row: int, *accuracies: float | None, form: Sequence[float] = ()) -> Group:
    """A group of these accuracies; the reward adds half of the form."""
    forms = [*form, *[0.0] * (len(accuracies) - len(form))]
    rolled = [
        Rolled(
            place % 2 == 1,
            Sampled([1], [2], None),
            Graded(None if a is None else a + f / 2, a, f, Completion(str(row), "x", 1, False)),
        )
        for place, (a, f) in enumerate(zip(accuracies, forms, strict=True))
    ]
    return Group(row, tuple(rolled))


def batches(*of: Sequence[Group]) -> tuple[list[int], "object"]:
    """Hands out these batches; the list counts the calls."""
    calls: list[int] = []

    def sample() -> Sequence[Group]:
        calls.append(1)
        return of[len(calls) - 1]

    return calls, sample


@pytest.mark.parametrize(
    ("values", "signal"),
    [
        ([0.0, 1.0], True),
        ([0.5, 0.5, 0.5], False),  # a filter of the mean would keep this group
        ([0.5, 0.5 + 1e-7], False),
        ([0.3, 0.31], True),
        ([1.0], False),
        ([], False),
    ],
)
def test_signal_is_a_spread_of_any_values(values: list[float], signal: bool) -> None:
    assert has_signal(values, 1e-6) is signal


def test_groups_without_signal_make_room_for_new_prompts() -> None:
    calls, sample = batches(
        [group(0, 1, 1), group(1, 0, 1), group(2, 0, 0)],
        [group(3, 0, 0), group(4, 1, 0), group(5, 0, 0)],
        [group(6, 1, 0), group(7, 0, 1), group(8, 1, 1)],
        [],
    )
    batch = refill(sample, 3, DynamicSampling())
    assert [g.row for g in batch.groups] == [1, 4, 6] and len(calls) == 3
    assert (batch.tries, batch.sampled, batch.with_signal) == (3, 9, 4)
    assert (batch.dropped, batch.surplus, batch.filled) == (6, 1, True)
    assert batch.right == pytest.approx(4 / 10)  # of 0, 2, 3, 5 and 8
    metrics = batch.metrics()
    assert metrics["rollout/dynamic/signal"] == pytest.approx(4 / 9)
    assert metrics["rollout/dynamic/exhausted"] == 0


def test_what_is_missing_after_the_last_try_is_filled_with_silent_groups() -> None:
    calls, sample = batches(
        [group(0, 1, 1), group(1, 0, 0), group(2, 1, 1)], [group(3, 0, 0), group(4, 0, 1), group(5)]
    )
    batch = refill(sample, 3, DynamicSampling(max_tries=2))
    assert [g.row for g in batch.groups] == [4, 0, 1] and len(calls) == 2
    assert not batch.filled and batch.with_signal == 1


def test_the_metric_decides_what_must_differ() -> None:
    formed = group(0, 0, 0, form=[1, 0])  # the reward differs, the accuracy does not
    for metric, expected in (("reward", 1), ("accuracy", 0)):
        _, sample = batches([formed])
        batch = refill(sample, 1, DynamicSampling(max_tries=1, metric=metric))
        assert batch.with_signal == expected


def test_ungradable_completions_are_no_signal() -> None:
    _, sample = batches([group(0, None, 1.0), group(1, None, 0.0, 1.0)])
    assert [g.row for g in refill(sample, 1, DynamicSampling()).groups] == [1]


def test_a_stage_ends_after_several_unfilled_batches_in_a_row() -> None:
    options = DynamicSampling(max_tries=1, patience=2)
    record = DynamicRecord(options)

    def batch(*groups: Group) -> list[str]:
        _, sample = batches(groups)
        return record.add(refill(sample, len(groups), options))

    empty = (group(0, 1, 1), group(1, 0, 0))
    assert batch(*empty) == [
        "dynamic sampling: 0 of 2 groups had signal in 1 tries; in the others 50% was right; 2 "
        "groups without signal fill the batch"
    ]
    assert batch(group(2, 0, 1), group(3, 1, 0)) == [] and record.totals.in_a_row == 0
    batch(*empty)
    assert record.stopped is None
    other = DynamicRecord(options)
    other.restore(record.state())
    batch(*empty)
    assert record.stopped is not None and "2 batches in a row were not filled" in record.stopped
    totals = record.totals
    assert (totals.batches, totals.tries, totals.groups, totals.exhausted) == (4, 4, 8, 3)
    assert (totals.with_signal, totals.dropped) == (2, 0)
    assert (other.totals.batches, other.totals.in_a_row, other.stopped) == (3, 1, None)


def test_a_budget_of_groups_ends_a_stage() -> None:
    record = DynamicRecord(DynamicSampling(max_groups=4))
    for expected in (None, "4 groups are sampled, and max_groups is 4"):
        _, sample = batches([group(0, 0, 1), group(1, 1, 0)])
        assert record.add(refill(sample, 2, DynamicSampling())) == []
        assert record.stopped == expected


def test_mean_advantage_of_a_group_is_largest_at_one_half() -> None:
    """2 sqrt(p (1 - p)) at p = 1/8, 1/4, 1/2, 3/4."""
    found = [mean_abs_advantage([1.0] * right + [0.0] * (8 - right)) for right in (1, 2, 4, 6, 8)]
    assert found == pytest.approx([0.6614, 0.8660, 1.0, 0.8660, 0.0], abs=1e-4)
