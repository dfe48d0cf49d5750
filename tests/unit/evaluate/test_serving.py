"""Timing three ways side by side: order, medians, what is told of a way that cannot be run."""

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from tests.evaluation_fakes import FakeServer
from trimpi.evaluate.serving import NO_MEMORY, WAYS, Timing, measure
from trimpi.evaluate.settings import Request
from trimpi.policy import Policy, TextPart
from trimpi.recipe import EfficiencyConfig
from trimpi.sample import Sample

OPTIONS = EfficiencyConfig(batch_sizes=(1, 3), new_tokens=4, repeats=3)


def request(name: str, policy: str, words: int) -> Request:
    shown = Policy(policy, (TextPart("rule " * words),))
    return Request(Sample(name, (), "Which?", policy, "a"), shown, "cot")


REQUESTS = [request("1", "A", 10), request("2", "B", 30), request("3", "A", 10)]


def test_ways_are_timed_in_turns_after_a_warm_up() -> None:
    server = FakeServer()
    measure(REQUESTS[:1], server, OPTIONS.model_copy(update={"batch_sizes": (1,)}))
    assert len(server.timed) == 3 * 4  # a warm-up and three repeats
    turns = [tuple(server.timed[start : start + 3]) for start in range(0, 12, 3)]
    assert all(sorted(turn) == sorted(WAYS) for turn in turns)
    assert [turn[0] for turn in turns[1:]] == list(WAYS)  # each way begins once


def test_numbers_are_medians_of_whole_batches() -> None:
    times: Iterator[float] = iter([100.0, 1.0, 7.0, 3.0] * 6)  # the first of four is warm-up

    class Clock(FakeServer):
        def time(self, prepared: object, way: str, new_tokens: int) -> Timing | None:
            if way != "with_policy":
                return Timing(0.5, 0.5, 0.5)
            seconds = next(times)
            return Timing(seconds / 4, seconds / 2, seconds)

    found = measure(REQUESTS, Clock(), OPTIONS)
    assert [size["batch_size"] for size in found["sizes"]] == [1, 3]
    for size in found["sizes"]:
        shown = size["ways"]["with_policy"]
        assert (shown["prefill_seconds"], shown["first_token_seconds"]) == (0.75, 1.5)
        assert shown["request_seconds"] == 3.0
        assert shown["requests_per_second"] == size["batch_size"] / 3
        # "Which?" and 9 words of the instruction; 10 words of policy A and 30 of B, 20 on average.
        bare = size["ways"]["without_policy"]["prompt_tokens"]
        assert shown["prompt_tokens"] - bare == 20
    assert [(p["policy"], p["tokens"]) for p in found["prefixes"]] == [("A", 10), ("B", 30)]
    assert (found["batches"], found["repeats"], found["new_tokens"]) == (2, 3, 4)


def test_a_way_that_cannot_run_has_a_reason_and_no_numbers() -> None:
    found = measure(REQUESTS, FakeServer(fails=["with_policy"]), OPTIONS)["sizes"][1]
    assert found["ways"]["with_policy"] is None
    assert found["missing"] == {"with_policy": NO_MEMORY}
    server = FakeServer(fault="logits differ")
    found = measure(REQUESTS, server, OPTIONS)["sizes"][0]
    assert found["ways"]["cached_prefix"] is None and "cached_prefix" not in server.timed
    assert found["missing"] == {"cached_prefix": "logits differ"}
    assert found["ways"]["without_policy"]["requests_per_second"] > 0


@pytest.mark.parametrize(
    ("sizes", "fault"), [((1, 1), "appears twice"), ((), "at least 1 item"), ((0,), "greater than")]
)
def test_batch_sizes_that_make_no_sense(sizes: tuple[int, ...], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        EfficiencyConfig(batch_sizes=sizes)
