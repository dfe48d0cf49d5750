"""The three ways of `serving` through a loaded transformers model, greedy, token by token.

Not timed are tokenization, the processing of pictures and the numbering of positions. The vision
tower runs where the pictures are not in the cache, and counts.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from trimpi.batch import Encoded, encode_text
from trimpi.errors import UserError
from trimpi.evaluate.serving import NO_MEMORY, WAYS, Prefix, Prepared, Timing
from trimpi.evaluate.settings import Request
from trimpi.pictures import store_of
from trimpi.prefix import (
    Inputs,
    Pixels,
    following,
    forward,
    lay_out,
    prefix_inputs,
    share,
    shareable,
    shared_prefix,
    size_in_bytes,
)
from trimpi.processor import visual_token_ids
from trimpi.prompt import build_messages
from trimpi.sample import Sample

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
HALF = 5e-2
"""Share of the largest logit by which logits with and without the cache may differ, by precision;
in half precisions the order of summation alone makes a few percent."""
PROBE = Sample(id="probe", images=(), query="§", policy=None, answer="")
"""A request that has nothing in common with any other: the prefix ends where it begins."""


@dataclass(frozen=True)
class Batch:
    """Inputs of a batch by way, and the keys and values of its prefix."""

    inputs: dict[str, Inputs]
    cache: DynamicCache | None


class RowServer:
    """Runs encoded prompts; needs no processor.

    Args:
        model: any image-text-to-text model of transformers.
        pad: id of the padding token.
        pixels: pixel inputs of a picture by path.
        banned: ids that are never generated (placeholders of pictures).
    """

    def __init__(self, model: Any, pad: int, pixels: Pixels, banned: Sequence[int] = ()) -> None:
        self._model, self._pad, self._pixels = model.eval(), pad, pixels
        self._banned = torch.tensor(sorted(banned), dtype=torch.long, device=model.device)
        self._kept: tuple[tuple[int, ...], tuple[str, ...], DynamicCache, float] | None = None
        cuda = model.device.type == "cuda"
        self.device = torch.cuda.get_device_name(model.device) if cuda else model.device.type

    def prepare_rows(
        self,
        shown: Sequence[Encoded],
        bare: Sequence[Encoded],
        prefix: int,
        pictures: int,
        fault: str = "",
    ) -> Prepared:
        """A batch of prompts with the policy (`shown`) and without (`bare`).

        Args:
            shown: their first `prefix` tokens and `pictures` pictures are the same.
            bare: the same requests.
            prefix: tokens to be cached.
            pictures: pictures among them.
            fault: why nothing can be cached.
        """
        arguments = (self._model, shown, self._pad, self._pixels)
        inputs = {
            "with_policy": lay_out(*arguments),
            "cached_prefix": lay_out(*arguments, prefix, pictures),
            "without_policy": lay_out(self._model, bare, self._pad, self._pixels),
        }
        mean = sum(len(row.input_ids) for row in shown) / len(shown)
        tokens = {
            "with_policy": mean,
            "cached_prefix": mean - prefix,
            "without_policy": sum(len(row.input_ids) for row in bare) / len(bare),
        }
        try:
            if not fault:
                cache, seconds = self._prefix(shown[0], prefix, pictures)
                fault = "" if shareable(cache) else "the model keeps states that cannot be shared"
        except torch.cuda.OutOfMemoryError:
            fault = NO_MEMORY
        if fault:
            return Prepared(tokens, Prefix(prefix, 0, None, None, None, fault), Batch(inputs, None))
        batch = Batch(inputs, cache)
        found, scale = self._difference(batch)
        tolerance = TOLERANCE.get(self._model.dtype, HALF)
        if found is not None and scale is not None and not found <= tolerance * scale:
            fault = f"logits with the cached prefix differ by {found:.2g} (largest {scale:.2g})"
        kept = Prefix(prefix, size_in_bytes(cache), seconds, found, scale, fault)
        return Prepared(tokens, kept, batch)

    def time(self, prepared: Prepared, way: str, new_tokens: int) -> Timing | None:
        """Answer a batch with `new_tokens` tokens each; None: too little memory."""
        batch: Batch = prepared.inputs
        try:
            with torch.inference_mode():
                return self._timed(batch, way, new_tokens)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None

    def _timed(self, batch: Batch, way: str, new_tokens: int) -> Timing:
        self._wait()
        start = time.perf_counter()
        inputs = batch.inputs[way].to(self._model)
        self._wait()
        ready = time.perf_counter()
        cache = self._cache(batch, way)
        logits = forward(self._model, inputs, cache)
        self._wait()
        filled = time.perf_counter()
        tokens = self._chosen(logits)
        first = time.perf_counter()
        for _ in range(new_tokens - 1):
            inputs = following(inputs, tokens)
            tokens = self._chosen(forward(self._model, inputs, cache))
        return Timing(filled - ready, first - start, time.perf_counter() - start)

    def _cache(self, batch: Batch, way: str) -> DynamicCache:
        if way != "cached_prefix":
            return DynamicCache(config=self._model.config)
        assert batch.cache is not None
        return share(batch.cache, len(batch.inputs[way].tensors["input_ids"]))

    def _chosen(self, logits: torch.Tensor) -> torch.Tensor:
        """The likeliest tokens [B], read by the host as a server does to stream and to stop."""
        tokens = logits.index_fill(1, self._banned, -torch.inf).argmax(dim=-1)
        tokens.tolist()
        return tokens

    def _prefix(self, row: Encoded, length: int, pictures: int) -> tuple[DynamicCache, float]:
        """Keys and values of a prefix and the seconds that they took; the last one is kept."""
        key = (tuple(row.input_ids[:length]), row.pictures[:pictures])
        if self._kept is None or self._kept[:2] != key:
            self._kept = None
            pad, pixels = self._pad, self._pixels
            inputs = prefix_inputs(self._model, row, pad, pixels, length, pictures).to(self._model)
            for _ in range(2):  # the first is warm-up
                self._wait()
                start = time.perf_counter()
                cache = DynamicCache(config=self._model.config)
                with torch.inference_mode():
                    forward(self._model, inputs, cache)
                self._wait()
                seconds = time.perf_counter() - start
            self._kept = (*key, cache, seconds)
        return self._kept[2], self._kept[3]

    def _difference(self, batch: Batch) -> tuple[float | None, float | None]:
        """Largest difference of the first logits, with the cached prefix against without."""
        logits = []
        try:
            with torch.inference_mode():
                for way in WAYS[:2]:
                    inputs = batch.inputs[way].to(self._model)
                    logits.append(forward(self._model, inputs, self._cache(batch, way)).float())
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return None, None
        whole, cached = logits
        return float((whole - cached).abs().max()), float(whole.abs().max())

    def _wait(self) -> None:
        if self._model.device.type == "cuda":
            torch.cuda.synchronize(self._model.device)


class TransformersServer(RowServer):
    """Runs requests through a loaded model and its processor.

    Args:
        model: the model.
        processor: of the model.
        new_tokens: what requests will be answered with, to be checked against the context.
    """

    def __init__(self, model: Any, processor: Any, new_tokens: int) -> None:
        self._visual = visual_token_ids(model.config, processor.tokenizer)
        self._processor, self._new_tokens = processor, new_tokens
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        pad = processor.tokenizer.pad_token_id
        super().__init__(model, pad, store_of(processor).pixels, sorted(self._visual))

    def prepare(self, requests: Sequence[Request]) -> Prepared:
        """Model inputs of requests that share a policy, which is in their prompts.

        Raises:
            UserError: a picture cannot be read, or a prompt leaves no room in the context.
        """
        policy = requests[0].shown
        assert policy is not None
        shown = [encode_text(self._processor, request.messages) for request in requests]
        bare = [
            encode_text(self._processor, build_messages(r.sample, None, r.target)) for r in requests
        ]
        self._check_length(max(len(row.input_ids) for row in shown))
        probe = encode_text(self._processor, build_messages(PROBE, policy, requests[0].target))
        prefix, pictures = shared_prefix([probe, *shown]), len(policy.images)
        if not any(token in self._visual for token in probe.input_ids[prefix:]):
            return self.prepare_rows(shown, bare, prefix, pictures)
        # Such a template puts pictures elsewhere than the messages do.
        fault = "the chat template leaves no prefix that holds the policy with its pictures"
        return self.prepare_rows(shown, bare, 0, 0, fault)

    def _check_length(self, longest: int) -> None:
        if self._limit is not None and longest + self._new_tokens > self._limit:
            raise UserError(
                f"evaluation.efficiency: a prompt of {longest} tokens and new_tokens "
                f"{self._new_tokens} exceed the model's context of {self._limit}; lower new_tokens"
            )
