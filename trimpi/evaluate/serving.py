"""What a request costs three ways: policy in the prompt, its prefix cached, policy internalized.

All three run side by side in one process: after a warm-up, each repeat times the ways one after
the other, beginning with another way each time, so that a drift of the machine meets all alike.
Medians count. Requests of a batch share their policy, as prefix caching needs it; a batch larger
than the policy's requests repeats them.

The cached way is the rival that a server with prefix caching is: the policy's keys and values are
there before the request comes, and only what follows is prefilled. What it keeps paying is memory
for the cache and attention over it in every step.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, NamedTuple, Protocol

from trimpi.evaluate.settings import Request
from trimpi.evaluate.statistics import mean_and_spread, median
from trimpi.recipe import EfficiencyConfig

WAYS = ("with_policy", "cached_prefix", "without_policy")
POLICIES = 2
"""Policies whose requests are timed; a batch of each."""
NO_MEMORY = "does not fit into the device's memory"


class Timing(NamedTuple):
    """Seconds of one batch: the prompt's forward pass; until the first tokens are known; until
    the last."""

    prefill: float
    first_token: float
    request: float


@dataclass(frozen=True)
class Prefix:
    """The part of a policy's prompts that is the same in all requests.

    `size` are bytes of its keys and values; `seconds` what filling them takes;
    `logit_difference` is the largest between the first logits with and without the cache, and
    `logit_scale` the largest of those logits. `fault` says why the cached way cannot be timed.
    """

    tokens: int
    size: int
    seconds: float | None
    logit_difference: float | None
    logit_scale: float | None
    fault: str = ""


@dataclass(frozen=True)
class Prepared:
    """A batch of requests ready to be run in each way.

    `prompt_tokens` are means a request by way: tokens that are put through the model before the
    first token, those in the cache not among them.
    """

    prompt_tokens: dict[str, float]
    prefix: Prefix
    inputs: Any


class Server(Protocol):
    """Runs a batch of requests in each of the ways."""

    device: str

    def prepare(self, requests: Sequence[Any]) -> Prepared:
        """Model inputs of requests that share a policy; its prefix is cached."""
        ...

    def time(self, prepared: Prepared, way: str, new_tokens: int) -> Timing | None:
        """Answer a batch with `new_tokens` tokens each; None: too little memory."""
        ...


def measure(
    requests: Sequence[Request], server: Server, options: EfficiencyConfig
) -> dict[str, Any]:
    """Times and throughput of the three ways at each batch size.

    Returns:
        `sizes`, one a batch size: `batch_size` and `ways`, by way `prompt_tokens` (mean),
        `prefill_seconds`, `first_token_seconds`, `request_seconds` (medians, of the whole batch)
        and `requests_per_second`, or None with the reason in `missing`; `prefixes`, one a policy;
        `new_tokens`, `repeats`, `batches` (of each size), `device`.
    """
    by_policy: dict[str, list[Request]] = defaultdict(list)
    for request in requests:
        by_policy[str(request.sample.policy)].append(request)
    timed = dict(islice(by_policy.items(), POLICIES))
    prefixes: dict[str, Prefix] = {}
    sizes = []
    for size in options.batch_sizes:
        batches = ((name, list(islice(cycle(found), size))) for name, found in timed.items())
        ways, missing, seen = measure_size(batches, server, options)
        prefixes = seen | prefixes
        sizes.append({"batch_size": size, "ways": ways, "missing": missing})
    return {
        "sizes": sizes,
        "prefixes": [{"policy": name, **vars(prefix)} for name, prefix in prefixes.items()],
        "new_tokens": options.new_tokens,
        "repeats": options.repeats,
        "batches": len(timed),
        "device": server.device,
    }


def measure_size(
    batches: Iterable[tuple[str, Sequence[Any]]], server: Server, options: EfficiencyConfig
) -> tuple[dict[str, dict[str, float] | None], dict[str, str], dict[str, Prefix]]:
    """Numbers of each way over batches of one size, why some have none, and the prefixes by name.

    A way that fails in one batch has no numbers, so that medians never stand for other batches
    than those beside them.
    """
    tokens: dict[str, list[float]] = defaultdict(list)
    times: dict[str, list[Timing]] = defaultdict(list)
    missing: dict[str, str] = {}
    prefixes, size = {}, 0
    for name, batch in batches:
        prepared, size = server.prepare(batch), len(batch)
        prefixes[name] = prepared.prefix
        if prepared.prefix.fault:
            missing["cached_prefix"] = prepared.prefix.fault
        for way in WAYS:
            tokens[way].append(prepared.prompt_tokens[way])
        for turn in range(-1, options.repeats):  # the first is warm-up: allocation, kernel choice
            for way in (*WAYS[turn % 3 :], *WAYS[: turn % 3]):
                if way in missing:
                    continue
                timing = server.time(prepared, way, options.new_tokens)
                if timing is None:
                    missing[way] = NO_MEMORY
                elif turn >= 0:
                    times[way].append(timing)
    numbers = {
        way: None if way in missing else _numbers(tokens[way], times[way], size) for way in WAYS
    }
    return numbers, missing, prefixes


def _numbers(tokens: Sequence[float], times: Sequence[Timing], size: int) -> dict[str, float]:
    request = median([timing.request for timing in times])
    return {
        "prompt_tokens": mean_and_spread(tokens)[0],
        "prefill_seconds": median([timing.prefill for timing in times]),
        "first_token_seconds": median([timing.first_token for timing in times]),
        "request_seconds": request,
        "requests_per_second": size / request,
    }
