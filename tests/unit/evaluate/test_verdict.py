"""Paired verdicts: expectations by hand, and that interval and p-value never contradict."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimpi.evaluate.statistics import wilson
from trimpi.evaluate.verdict import (
    BOOTSTRAP,
    MCNEMAR,
    Verdict,
    bootstrap,
    compare_pairs,
    holm,
    in_points,
    mcnemar,
    mcnemar_interval,
    p_words,
    verdict_line,
)

COUNTS = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(0, 300))


@pytest.mark.parametrize(
    ("gained", "lost", "p"),
    [
        (0, 0, 1.0),
        (3, 3, 1.0),  # both tails hold the middle
        (0, 5, 2 / 32),
        (0, 6, 2 / 64),
        (1, 7, 2 * (1 + 8) / 256),
        (10, 2, 2 * (1 + 12 + 66) / 4096),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p: float) -> None:
    assert mcnemar(gained, lost) == p == mcnemar(lost, gained)


def test_mcnemar_of_many_flips_is_the_normal_tail() -> None:
    z = (2100 - 1900 - 1) / math.sqrt(4000)  # with the correction for continuity
    assert mcnemar(1900, 2100) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=0.01)


def test_no_flip_leaves_the_width_of_wilson() -> None:
    # 0 of 100 flipped: Wilson's upper bound is z^2 / (n + z^2)
    bound = 1.959964**2 / (100 + 1.959964**2)
    assert mcnemar_interval(0, 0, 100) == pytest.approx((-bound, bound), abs=1e-6)


def test_interval_at_its_ends_by_hand() -> None:
    # 6 flips of 1000, all gains. Their share may be 1 throughout: the high end is that of the
    # flips, Wilson's. With all uncertainty in the share of gains, its low end (Clopper-Pearson)
    # is 0.025^(1/6); sharing it out can only go lower.
    low, high = mcnemar_interval(6, 0, 1000)
    flips = wilson(6, 1000)
    assert flips is not None and high == pytest.approx(flips.high, abs=1e-9)
    assert 0 < low <= 0.006 * (2 * 0.025 ** (1 / 6) - 1) + 1e-9


@settings(max_examples=40, deadline=None)
@given(COUNTS)
def test_interval_and_p_agree(counts: tuple[int, int, int]) -> None:
    gained, lost, same = counts
    rows = gained + lost + same
    if not rows:
        return
    low, high = mcnemar_interval(gained, lost, rows)
    assert -1 <= low <= (gained - lost) / rows <= high <= 1
    assert (mcnemar(gained, lost) < 0.05) == (low > 0 or high < 0)
    assert mcnemar_interval(lost, gained, rows) == pytest.approx((-high, -low), abs=1e-9)


@pytest.mark.parametrize(("up", "down"), [(0.1, 0.1), (0.3, 0.1), (0.02, 0.2)])
def test_coverage_over_all_outcomes(up: float, down: float) -> None:
    rows, covered, rejected = 16, 0.0, 0.0
    for gained in range(rows + 1):
        for lost in range(rows + 1 - gained):
            same = rows - gained - lost
            ways = math.comb(rows, gained) * math.comb(rows - gained, lost)
            chance = ways * up**gained * down**lost * (1 - up - down) ** same
            if chance < 1e-6:
                continue
            low, high = mcnemar_interval(gained, lost, rows)
            covered += chance * (low <= up - down <= high)
            rejected += chance * (mcnemar(gained, lost) < 0.05)
    assert covered > 0.95
    assert up != down or rejected < 0.05


def test_the_test_follows_the_scores() -> None:
    whole = compare_pairs([1, 1, 1, 0], [1, 0, 1, 1])
    assert whole is not None and whole.test == MCNEMAR
    assert (whole.value, whole.gained, whole.lost, whole.p) == (0.0, 1, 1, 1.0)
    parts = compare_pairs([1, 1, 1, 0], [1, 0.5, 1, 1])
    assert parts is not None and parts.test == BOOTSTRAP
    assert (parts.value, parts.gained, parts.lost) == (0.125, 1, 1)
    assert compare_pairs([], []) is None


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="1 rows before and 2 after"):
        compare_pairs([1], [1, 0])
    for score in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match="outside"):
            compare_pairs([score], [0.0])


SHARES = st.lists(
    st.tuples(*[st.sampled_from([0, 1 / 3, 0.5, 2 / 3, 1])] * 2), min_size=1, max_size=60
)


@settings(max_examples=25, deadline=None)
@given(SHARES)
def test_bootstrap_and_its_p_agree(pairs: list[tuple[float, float]]) -> None:
    differences = np.array([b - a for a, b in pairs])
    low, high, p = bootstrap(differences)
    assert (p < 0.05) == (low > 0 or high < 0)
    assert low <= high and bootstrap(differences) == (low, high, p)
    found = compare_pairs([a for a, _ in pairs], [b for _, b in pairs])
    assert found is not None and found.low <= found.value <= found.high
    assert found.significant == (found.low > 0 or found.high < 0)


def test_bootstrap_of_many_rows_is_the_normal_interval() -> None:
    differences = np.random.default_rng(1).choice([-0.5, 0.0, 0.25], size=2000)
    low, high, _ = bootstrap(differences)
    half = 1.96 * differences.std() / math.sqrt(2000)
    assert low == pytest.approx(differences.mean() - half, abs=0.001)
    assert high == pytest.approx(differences.mean() + half, abs=0.001)


def test_a_few_rows_that_all_agree_are_no_certainty() -> None:
    low, high, p = bootstrap(np.array([0.5, 0.5, 0.5]))
    assert low < 0 < high and p > 0.05
    assert compare_pairs([0.5] * 50, [0.5] * 50).low < 0  # type: ignore[union-attr]


def test_the_seed_fixes_the_resampling() -> None:
    before, after = [0.5, 1, 0.25, 1] * 9, [0.25, 1, 0.5, 0] * 9
    assert compare_pairs(before, after) == compare_pairs(before, after)
    assert compare_pairs(before, after) != compare_pairs(before, after, seed=1)


def test_holm_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})
    assert list(found) == ["a", "b", "c", "d"]
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0} and holm({}) == {}


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_lowers_nor_reorders(values: list[float]) -> None:
    p_values = {str(place): p for place, p in enumerate(values)}
    found = holm(p_values)
    ordered = sorted(p_values, key=lambda name: p_values[name])
    assert all(p_values[n] <= found[n] <= min(1.0, len(p_values) * p_values[n]) for n in p_values)
    assert [found[n] for n in ordered] == sorted(found.values())


def test_the_line() -> None:
    found = Verdict(-0.004, -0.011, 0.003, 0.312, 1800, 10, 17, MCNEMAR)
    line = verdict_line("forgetting", found.to_json())
    assert line.startswith("forgetting: -0.4 points [-1.1, +0.3], not significant (p = 0.312, ")
    assert line.endswith("exact McNemar, 1,800 rows)")
    adjusted = Verdict(-0.1, -0.2, -0.01, 0.03, 90, 1, 9, MCNEMAR, p_adjusted=0.09)
    assert "not significant (p = 0.090 by Holm, " in verdict_line("math", adjusted.to_json())


def test_rounding_hides_no_verdict() -> None:
    found = Verdict(-0.0012, -0.0021, -0.0003, 0.04, 90_000, 1, 9, MCNEMAR).to_json()
    assert in_points(found) == ("-0.12", "-0.21", "-0.03")
    nothing = Verdict(0.0, -0.0001, 0.0001, 1.0, 90_000, 0, 0, MCNEMAR).to_json()
    assert in_points(nothing) == ("0.0", "0.0", "0.0")
    assert [p_words(p) for p in (0.0004, 0.0496, 0.04996, 0.0502, 0.2)] == [
        "p < 0.001", "p = 0.04960", "p = 0.04996", "p = 0.05020", "p = 0.200",
    ]  # fmt: skip
