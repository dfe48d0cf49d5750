"""Which rows are policy-aware: by global index, evenly, equally many on every process."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trimpi.group_layout import aware_in_group, aware_rows, period


def test_half_of_a_group_is_every_second_row() -> None:
    assert aware_in_group(8, 0.5) == (False, True) * 4
    assert period(aware_in_group(8, 0.5)) == 2


def test_other_shares_are_spread_evenly() -> None:
    assert aware_in_group(8, 0.25) == (False, False, False, True) * 2
    assert aware_in_group(4, 0.75) == (False, True, True, True)
    assert aware_in_group(6, 1 / 3) == (False, False, True) * 2
    assert aware_in_group(5, 0.4) == (False, False, True, False, True)
    assert aware_in_group(4, 0.0) == (False,) * 4 and period(aware_in_group(4, 0.0)) == 1


@pytest.mark.parametrize("fraction", [0.3, 1.0, -0.25])
def test_improper_shares_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError):
        aware_in_group(8, fraction)


def test_a_group_split_over_two_processes_keeps_its_layout() -> None:
    layout = aware_in_group(8, 0.5)
    # Two processes of 4 rows: one group, half on each; and of 6 rows: one group and a half each.
    assert aware_rows(layout, 0, 4) + aware_rows(layout, 1, 4) == list(layout)
    quarter = aware_in_group(8, 0.25)
    assert aware_rows(quarter, 0, 12) + aware_rows(quarter, 1, 12) == list(quarter) * 3
    assert aware_rows(quarter, 1, 12) == [*quarter[4:], *quarter]


@given(
    st.integers(2, 16).flatmap(
        lambda size: st.tuples(st.just(size), st.integers(0, size - 1), st.integers(1, 5))
    ),
    st.integers(1, 4),
)
def test_processes_agree_and_have_equally_many(case: tuple[int, int, int], processes: int) -> None:
    size, aware, blocks = case
    assume(aware / size * size == aware)
    layout = aware_in_group(size, aware / size)
    assert len(layout) == size and sum(layout) == aware and not layout[0]
    rows = period(layout) * blocks
    parts = [aware_rows(layout, process, rows) for process in range(processes)]
    together = [mark for part in parts for mark in part]
    assert together == [layout[index % size] for index in range(rows * processes)]
    assert len({sum(part) for part in parts}) == 1
