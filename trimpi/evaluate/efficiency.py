"""What leaving the policy out saves: prompt tokens and prefill time (paper, setting 6).

The same requests are put with and without the policy. Prefill is one forward pass over the whole
prompt at batch size 1, logits of the last position only, images included: the time to the first
token without decoding. The two prompts are timed in turns, so that a drift of the machine meets
both alike, and the median of the repeats counts.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from trimpi.evaluate.settings import Request
from trimpi.evaluate.statistics import mean_and_spread, median
from trimpi.prompt import Message, build_messages

COUNTED, TIMED, REPEATS = 64, 8, 7
"""Requests whose tokens are counted, whose prefill is timed, and how often each."""


class Prefill(Protocol):
    """Encodes prompts and runs them through a model once."""

    device: str

    def encode(self, messages: list[Message]) -> Any:
        """Model inputs of a prompt, images processed."""
        ...

    def tokens(self, encoded: Any) -> int:
        """Length of the encoded prompt in tokens, image tokens included."""
        ...

    def seconds(self, encoded: Any) -> float:
        """Wall-clock seconds of one forward pass."""
        ...


def chosen(requests: Sequence[Request]) -> list[Request]:
    """The first `COUNTED` requests, policies taking turns."""
    by_policy: dict[str | None, list[Request]] = defaultdict(list)
    for request in requests:
        by_policy[request.sample.policy].append(request)
    turns = [
        (index, order, request)
        for order, group in enumerate(by_policy.values())
        for index, request in enumerate(group)
    ]
    return [request for *_, request in sorted(turns, key=lambda turn: turn[:2])][:COUNTED]


def measure(requests: Sequence[Request], prefill: Prefill) -> dict[str, Any]:
    """Prompt tokens and prefill time with the requests' policies in the prompt and without.

    Returns:
        `prompt_tokens` (means over up to 64 requests) and `prefill_seconds` (medians over up to 8
        requests x 7 repeats), each with `with_policy`, `without_policy` and `saved` (share);
        `policy_tokens` (mean by policy id), `requests`, `timed`, `repeats`, `device`.
    """
    tokens: dict[str, list[float]] = {"with": [], "without": []}
    of_policy: dict[str, list[float]] = defaultdict(list)
    times: dict[str, list[float]] = {"with": [], "without": []}
    picked = chosen(requests)
    for index, request in enumerate(picked):
        encoded = {
            "with": prefill.encode(request.messages),
            "without": prefill.encode(build_messages(request.sample, None, request.target)),
        }
        counts = {side: prefill.tokens(inputs) for side, inputs in encoded.items()}
        for side, count in counts.items():
            tokens[side].append(count)
        of_policy[str(request.sample.policy)].append(counts["with"] - counts["without"])
        if index >= TIMED:
            continue
        for inputs in encoded.values():
            prefill.seconds(inputs)  # warm-up: allocation and kernel selection
        for _ in range(REPEATS):
            for side, inputs in encoded.items():
                times[side].append(prefill.seconds(inputs))
    return {
        "prompt_tokens": _compare(*(mean_and_spread(tokens[s])[0] for s in ("with", "without"))),
        "prefill_seconds": _compare(*(median(times[side]) for side in ("with", "without"))),
        "policy_tokens": {name: mean_and_spread(v)[0] for name, v in sorted(of_policy.items())},
        "requests": len(picked),
        "timed": min(len(picked), TIMED),
        "repeats": REPEATS,
        "device": prefill.device,
    }


def _compare(with_policy: float, without_policy: float) -> dict[str, float]:
    return {
        "with_policy": with_policy,
        "without_policy": without_policy,
        "saved": 1 - without_policy / with_policy,
    }


class TransformersPrefill:
    """Prefill through a loaded transformers model."""

    def __init__(self, model: Any, processor: Any) -> None:
        import torch

        self._torch, self._model, self._processor = torch, model.eval(), processor
        cuda = model.device.type == "cuda"
        self.device = torch.cuda.get_device_name(model.device) if cuda else model.device.type

    def encode(self, messages: list[Message]) -> Any:
        """Tensors of a batch of one, on the model's device, floats in the model's type."""
        from trimpi.batch import encode_prompt
        from trimpi.generate import to_model

        return to_model(encode_prompt(self._processor, messages), self._model)

    def tokens(self, encoded: Any) -> int:
        """Length of `input_ids`."""
        return int(encoded["input_ids"].shape[-1])

    def seconds(self, encoded: Any) -> float:
        """One forward pass that fills a cache, waited for."""
        self._wait()
        start = time.perf_counter()
        with self._torch.inference_mode():
            self._model(**encoded, use_cache=True, logits_to_keep=1)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self._model.device.type == "cuda":
            self._torch.cuda.synchronize(self._model.device)
