"""Work over processes keeps its order and leaves no process behind."""

import multiprocessing
import os

import pytest

from datasets_builders.parallel import spread
from trimpi.errors import UserError


def square(number: int) -> int:
    return number * number


def die(number: int) -> int:
    os._exit(3)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(spread(square, range(12), workers)) == [n * n for n in range(12)]


def test_stopping_early_ends_the_workers() -> None:
    results = spread(square, range(40), 2)
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []


def test_a_dead_worker_is_an_error_in_words() -> None:
    with pytest.raises(UserError, match="workers: one of 2 processes died"):
        list(spread(die, range(4), 2))
