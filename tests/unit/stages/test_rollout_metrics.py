"""What is logged of a rollout batch, on a table worked out by hand."""

import math

import pytest
import torch

from trimpi.sample import Completion
from trimpi.stages.rewards import Graded
from trimpi.stages.rollout_metrics import RolloutTable, as_table, without_signal

NAN = math.nan


def table(rewards: list[float], aware: list[bool], size: int) -> RolloutTable:
    values = torch.tensor(
        [[r, r, 1.0, 10.0 * (1 + a), a, NAN] for r, a in zip(rewards, aware, strict=True)]
    )
    return RolloutTable(torch.tensor(aware), values, size)


def test_halves_and_groups_without_signal() -> None:
    rewards = [0, 1, 0, 1,  1, 1, 1, 1,  0, 0, 1, 0,  0, 0, 0, 0.5]  # fmt: skip
    summary = table(list(map(float, rewards)), [False, True] * 8, 4).summary()
    assert summary["rollout/aware/reward"] == pytest.approx((2 + 2 + 0 + 0.5) / 8)
    assert summary["rollout/free/reward"] == pytest.approx((0 + 2 + 1 + 0) / 8)
    assert summary["rollout/aware/length"] == 20 and summary["rollout/free/length"] == 10
    assert "rollout/aware/overlong" not in summary  # no penalty is asked for
    assert summary["rollout/aware/truncated"] == 1 and summary["rollout/free/truncated"] == 0
    # Free rows differ in the third group alone; pooled, only the second group is silent.
    assert summary["rollout/no_signal/free"] == 3 / 4
    assert summary["rollout/no_signal/pooled"] == 1 / 4
    assert summary["rollout/no_signal/rescued"] == 2 / 4


def test_without_aware_rows_the_group_is_its_free_half() -> None:
    summary = table([0.0, 1.0, 1.0, 1.0], [False] * 4, 2).summary()
    assert "rollout/aware/reward" not in summary
    assert summary["rollout/no_signal/free"] == summary["rollout/no_signal/pooled"] == 0.5
    assert summary["rollout/no_signal/rescued"] == 0


def test_mean_rewards_of_both_halves() -> None:
    assert table([1.0, 0.0, 0.5, NAN], [False, True] * 2, 4).mean_rewards() == (0.0, 0.75)
    assert table([1.0, 0.0], [False] * 2, 2).mean_rewards() == (None, 0.5)


def test_ungradable_rows_are_left_out() -> None:
    summary = table([NAN, 1.0, 0.0, 1.0], [False, True] * 2, 4).summary()
    assert summary["rollout/free/reward"] == 0 and summary["rollout/aware/reward"] == 1
    assert summary["rollout/unscorable"] == 0.25
    groups = torch.tensor([[NAN, NAN, NAN], [NAN, 1.0, NAN], [NAN, 1.0, 0.0], [1.0, 1.0, 1.0]])
    assert without_signal(groups).tolist() == [True, True, False, True]


def test_rows_as_a_table() -> None:
    graded = [
        Graded(1.5, 1.0, 1.0, Completion("a", "x", 7, False)),
        Graded(None, None, 0.0, Completion("b", "y", 9, True), -0.5),
    ]
    first, second = as_table(graded).tolist()
    assert first[:5] == [1.5, 1.0, 1.0, 7.0, 0.0] and math.isnan(first[5])
    assert math.isnan(second[0]) and math.isnan(second[1]) and second[2:] == [0.0, 9.0, 1.0, -0.5]
