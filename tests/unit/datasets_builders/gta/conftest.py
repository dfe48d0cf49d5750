"""Timing that a busy machine does not spoil."""

import time
from collections.abc import Callable

import pytest


@pytest.fixture
def best_of_three() -> Callable[[Callable[[], object]], float]:
    """Processor time of a function, seconds: the least of three calls."""

    def measure(function: Callable[[], object]) -> float:
        times = []
        for _ in range(3):
            start = time.process_time()
            function()
            times.append(time.process_time() - start)
        return min(times)

    return measure
