"""Draws by row: the right distribution, whatever else is in the batch."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trimpi.row_draws import DrawByRow, drawn, uniforms


def test_numbers_are_those_of_the_row_alone() -> None:
    all_rows = uniforms((7, 3, 0), range(12), 9)
    assert all_rows.shape == (12, 9) and all_rows.dtype == torch.float64
    assert ((all_rows >= 0) & (all_rows < 1)).all() and len(all_rows.unique()) == 12 * 9
    # Other rows beside it, in another order, with more places: the same numbers.
    assert torch.equal(uniforms((7, 3, 0), [11, 4], 9), all_rows[[11, 4]])
    assert torch.equal(uniforms((7, 3, 0), [4], 30)[:, :9], all_rows[[4]])
    for other in ((8, 3, 0), (7, 4, 0), (7, 3, 1), (3, 7, 0)):
        assert not torch.isin(uniforms(other, range(12), 9), all_rows).any()


def test_numbers_are_known() -> None:
    """Runs of other days and machines draw these; a change is a change of every result."""
    bits = np.random.Philox(np.random.SeedSequence([0, 1, 2, 5])).random_raw(2)
    expected = [int(b) / 2**64 for b in bits]
    found = uniforms((0, 1, 2), [5], 2)[0].tolist()
    assert found == pytest.approx(expected, abs=1e-15)
    assert found == pytest.approx(KNOWN, abs=1e-12)


KNOWN = [0.3566459976183928, 0.4094052079153355]


def test_tokens_by_hand() -> None:
    """Probabilities 1/8, 0, 1/2, 3/8: cut at 0.125, 0.125 and 0.625."""
    scores = torch.tensor([1 / 8, 0.0, 1 / 2, 3 / 8]).log()
    numbers = [0.0, 0.1249, 0.125, 0.6249, 0.625, 1 - 2**-53]
    found = drawn(scores.expand(6, 4), torch.tensor(numbers, dtype=torch.float64))
    assert found.tolist() == [0, 0, 2, 2, 3, 3]


@given(
    st.lists(
        st.one_of(st.just(-math.inf), st.floats(-60, 60, width=32)), min_size=1, max_size=30
    ).filter(lambda row: max(row) > -math.inf),
    st.floats(0, 1, exclude_max=True),
)
def test_a_token_without_probability_is_never_drawn(row: list[float], number: float) -> None:
    scores = torch.tensor([row])
    token = int(drawn(scores, torch.tensor([number], dtype=torch.float64)))
    assert 0 <= token < len(row) and scores.softmax(-1)[0, token] > 0


def test_the_distribution_is_softmax() -> None:
    """Chi-square over 20000 rows: 9 degrees of freedom, 99.9% of the time below 27.9."""
    scores = torch.linspace(-2, 2, 10)
    count = 20000
    numbers = torch.cat([uniforms((1, 0, 0), range(count // 2), 2)[:, place] for place in (0, 1)])
    found = drawn(scores.expand(count, 10), numbers).bincount(minlength=10).double()
    expected = scores.double().softmax(-1) * count
    assert float(((found - expected) ** 2 / expected).sum()) < 27.9


def test_the_processor_leaves_the_drawn_token_at_its_place() -> None:
    numbers = torch.tensor([[0.9, 0.1], [0.1, 0.9]], dtype=torch.float64)
    process = DrawByRow(numbers, 3)
    scores = torch.tensor([[0.0, 0.0], [0.0, -math.inf]])
    for step, expected in ((0, [1, 0]), (1, [0, 0])):
        left = process(torch.zeros(2, 3 + step, dtype=torch.long), scores)
        assert left.argmax(-1).tolist() == expected
        assert left.isinf().sum() == 2 and left.max() == 0
