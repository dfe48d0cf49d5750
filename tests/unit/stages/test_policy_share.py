"""Schedules of the policy share, batch by batch."""

import pytest

from trimpi.recipe import RlConfig
from trimpi.stages.policy_share import PolicyShare


def share(batches: int = 5, **more: object) -> PolicyShare:
    return PolicyShare(RlConfig(group_size=8, **more), batches)


def counts(found: PolicyShare, batches: int = 5) -> list[int]:
    return [sum(found.layout(batch)) for batch in range(batches)]


def test_constant_is_the_layout_of_the_paper() -> None:
    assert share().layout(3) == (False, True) * 4


def test_annealed_falls_linearly_to_its_end_in_whole_rows() -> None:
    found = share(policy_share="annealed")
    assert [found.value(b) for b in range(5)] == [0.5, 0.375, 0.25, 0.125, 0.0]
    assert counts(found) == [4, 3, 2, 1, 0]
    assert found.layout(2) == (False, False, False, True) * 2  # spread, the first place free
    ending = share(policy_share="annealed", policy_share_end=0.25)
    assert counts(ending) == [4, 4, 3, 3, 2]  # 4, 3.5, 3, 2.5, 2: half a row rounds up


def test_one_batch_keeps_the_start() -> None:
    assert share(1, policy_share="annealed").value(0) == 0.5


def test_trust_is_the_lead_in_gaps() -> None:
    found = share(teacher={"weight": 0.1, "while_ahead": True})
    assert found.trust() == 1.0  # nothing is known yet
    found.observe(0.6, 0.5)
    assert found.trust() == pytest.approx(0.5)  # 0.1 of 0.2
    found.observe(1.0, 0.0)  # 0.8 x 0.1 + 0.2 x 1.0 = 0.28
    assert found.trust() == 1.0


def test_adaptive_follows_the_lead_of_the_aware_half() -> None:
    found = share(
        policy_share="adaptive", policy_share_end=0.125, adaptive={"gap": 0.4, "decay": 0.5}
    )
    assert found.value(0) == 0.5  # nothing is known yet
    found.observe(0.9, 0.3)
    assert found.lead == pytest.approx(0.6) and found.value(1) == 0.5
    found.observe(0.5, 0.7)  # 0.5 x 0.6 + 0.5 x -0.2
    assert found.lead == pytest.approx(0.2)
    assert found.value(2) == pytest.approx(0.125 + 0.375 / 2) and counts(found)[2] == 3
    found.observe(None, 0.7)
    assert found.lead == pytest.approx(0.2)
    found.observe(0.0, 1.0)
    assert found.value(3) == 0.125 and counts(found)[3] == 1
    assert found.trust() == 0.0  # the lead is 0.1 - 0.5
    other = share(policy_share="adaptive", policy_share_end=0.125)
    other.restore(found.state())
    assert other.lead == found.lead
