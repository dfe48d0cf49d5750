"""Advantages and selections on numbers worked out by hand, and against brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trimpi.stages.advantages import (
    beta_norm,
    beta_parameters,
    beta_weights,
    mean_of_parts,
    most_varied,
    teacher_advantages,
    token_weights,
)

T = torch.tensor


@pytest.mark.parametrize(
    ("rates", "parameters", "weights"),
    [
        ([0.1, 0.5, 0.9], (1.09375, 1.09375), [1.042, 0.947, 1.042]),
        ([0.45, 0.5, 0.55], (17.5, 17.5), [0.252, 0.213, 0.252]),
        ([0.02, 0.05, 0.0, 0.03], (1.4604, 18.956), [0.103, 0.118, 1e6, 0.103]),
    ],
)
def test_beta_weights(
    rates: list[float], parameters: tuple[float, float], weights: list[float]
) -> None:
    assert beta_parameters(T(rates)) == pytest.approx(parameters, rel=1e-3)
    assert beta_weights(T(rates)).tolist() == pytest.approx(weights, abs=6e-4)


@pytest.mark.parametrize("rates", [[0.5, 0.5, 0.5], [0.0, 0.0], [0.3], []])
def test_equal_rates_weigh_one(rates: list[float]) -> None:
    assert beta_weights(T(rates)).tolist() == [1.0] * len(rates)


def test_a_uniform_density_is_reinforce_with_a_baseline() -> None:
    """Rates 0 and 1: v = 1/2, a < 0, so alpha = beta = 1 and every weight is 1."""
    found = beta_norm(T([[0.0, 0.0], [1.0, 1.0], [1.0, 0.0]]))
    assert found.tolist() == [[0, 0], [0, 0], [0.5, -0.5]]


def test_beta_norm_leaves_out_what_cannot_be_graded() -> None:
    rewards = T([[1.0, math.nan, 0.0, 0.0], [math.nan] * 4, [1.0, 1.0, 1.0, 0.0]])
    weights = beta_weights(T([1 / 3, 3 / 4])).tolist()
    found = beta_norm(rewards)
    assert found[0].tolist() == pytest.approx(
        [2 / 3 * weights[0], 0, -weights[0] / 3, -weights[0] / 3], rel=1e-5
    )
    assert found[1].tolist() == [0] * 4


def test_parts_of_the_reward_are_normalised_apart() -> None:
    accuracy, form = T([[1.0, 0.0]]), T([[1.0, 1.0]])  # one prompt: weight 1
    found = mean_of_parts([(1.0, accuracy), (0.5, form)])
    assert found[0].tolist() == pytest.approx([1 / 3, -1 / 3])


def chosen(mask: torch.Tensor, values: torch.Tensor) -> list[float]:
    return sorted(values[mask].tolist())


def test_the_most_varied_completions() -> None:
    values = T([1.5, -0.2, 0.1, -1.3, 0.4, -0.5, 2.0, -2.0])
    mask = most_varied(values, 4, torch.ones(8, dtype=torch.bool))
    assert chosen(mask, values) == pytest.approx([-2, -1.3, 1.5, 2])
    assert float(values[mask].var(unbiased=False)) == pytest.approx(2.9825, abs=1e-4)


@pytest.mark.parametrize("keep", range(2, 8))
def test_a_single_failure_is_always_kept(keep: int) -> None:
    values = T([0.35] * 3 + [-2.47] + [0.35] * 4)
    assert most_varied(values, keep, torch.ones(8, dtype=torch.bool))[3]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_other_set_varies_more(data: st.DataObject) -> None:
    values = T(data.draw(st.lists(st.floats(-3, 3, width=16), min_size=3, max_size=8)))
    free = T(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    keep = data.draw(st.integers(1, len(values) - 1))
    least = data.draw(st.integers(0, min(keep, int(free.sum()))))
    mask = most_varied(values, keep, free, least)
    assert int(mask.sum()) == keep and int((mask & free).sum()) >= least
    best = max(
        float(values[list(s)].double().var(unbiased=False))
        for s in itertools.combinations(range(len(values)), keep)
        if int(free[list(s)].sum()) >= least
    )
    assert float(values[mask].double().var(unbiased=False)) == pytest.approx(best, abs=1e-9)


def test_token_weights_are_capped_ratios() -> None:
    free, full = T([[0.2, 0.5, 0.9]]).log(), T([[0.4, 0.5, 0.3]]).log()
    assert token_weights(free, full, 2.0, None)[0].tolist() == pytest.approx([0.5, 1.0, 2.0])
    shaped = token_weights(free, full, 2.0, 0.1)[0].tolist()
    assert shaped == pytest.approx([0.5 / 0.6, 1 / 1.1, 2 / 2.1])


def test_the_teacher_pulls_towards_tokens_that_it_prefers() -> None:
    free, full = T([[-1.0, -1.0, -0.1]]), T([[-0.5, -1.3, -6.0]])
    found = teacher_advantages(free, full, 0.1, 1.0)[0].tolist()
    assert found == pytest.approx([0.05, -0.03, -0.1])
