"""Intervals against numbers computed by hand."""

import math

import pytest

from trimpi.evaluate.statistics import mean_and_spread, median, wilson


def test_wilson_by_hand() -> None:
    # p = 0.8, n = 10, z = 1.96: centre (0.8 + 3.8416/20) / (1 + 3.8416/10) = 0.992080/1.38416,
    # half width 1.96/1.38416 * sqrt(0.016 + 3.8416/400) = 1.416021 * 0.160012
    found = wilson(8, 10, z=1.96)
    assert found is not None
    assert found.value == 0.8
    assert found.low == pytest.approx(0.716738 - 0.226580, abs=2e-6)
    assert found.high == pytest.approx(0.716738 + 0.226580, abs=2e-6)


def test_wilson_at_the_ends_keeps_a_width() -> None:
    # k = 0: low 0, high z^2 / (n + z^2); k = n mirrors it
    z2 = 1.959963984540054**2
    none, all_ = wilson(0, 20), wilson(20, 20)
    assert none is not None and all_ is not None
    assert none.low == 0.0 and none.high == pytest.approx(z2 / (20 + z2))
    assert all_.high == 1.0 and all_.low == pytest.approx(20 / (20 + z2))


def test_wilson_of_nothing_and_of_nonsense() -> None:
    assert wilson(0, 0) is None
    with pytest.raises(ValueError, match="5 successes in 4 trials"):
        wilson(5, 4)


def test_mean_and_spread_by_hand() -> None:
    mean, spread = mean_and_spread([0.5, 0.6, 0.9])
    assert mean == pytest.approx(2.0 / 3)
    # deviations -1/6, -1/15, 7/30; squares sum to 0.08667; / 2
    assert spread == pytest.approx(math.sqrt(0.0866666666 / 2))
    assert mean_and_spread([0.25]) == (0.25, None)
    with pytest.raises(ValueError):
        mean_and_spread([])


def test_median() -> None:
    assert median([3.0, 1.0, 2.0]) == 2.0
    assert median([4.0, 1.0, 2.0, 3.0]) == 2.5
    with pytest.raises(ValueError):
        median([])
