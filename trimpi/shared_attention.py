"""Attention of many completions to prompts whose keys and values are kept once.

Keys and values lie in segments: a policy's (read by all rows under it), a prompt's (read by the
prompt's completions), and the completions' own. Each row attends to its segments by itself, and
the parts are put together by their sums of exponentials, which gives the softmax over all of them
(as in bifurcated attention, arXiv 2403.08845, and Hydragen, arXiv 2402.05099). No key or value is
copied for a completion, and a segment is read once for all of its rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

NAME = "trimpi_shared"
"""Of the attention implementation, while it is switched on."""
UNKNOWN = ("softcap", "s_aux", "sliding_window", "head_mask")
"""Arguments of attention that it knows nothing of."""


class NotShared(Exception):
    """A model's attention does what cannot be put together from segments."""


@dataclass(frozen=True)
class Readers:
    """Which rows read the B entries of a segment.

    `places` [B, C] are numbers of rows, -1 where an entry has fewer than C readers; `attended`
    [B, S] is False at padding, None without any.
    """

    places: Tensor
    attended: Tensor | None

    @cached_property
    def asked(self) -> Tensor:
        """Rows whose queries are put to each entry, [B, C]; any row where there is no reader."""
        return self.places.clamp(min=0)

    @cached_property
    def rows(self) -> Tensor:
        """Numbers of the readers, entry after entry."""
        flat = self.places.flatten()
        return flat[flat >= 0]

    @cached_property
    def real(self) -> Tensor | None:
        """Which of the B * C places these are; None for all."""
        found = (self.places.flatten() >= 0).nonzero().flatten()
        return found if len(found) < self.places.numel() else None

    def kept(self, alive: Tensor) -> "Readers | None":
        """The readers when only the rows of `alive` (ascending numbers) are left.

        None when nobody is left. Entries stay, so that keys and values need not move.
        """
        size = int(max(self.places.max(), alive.max())) + 2
        new = alive.new_full((size,), -1)
        new[alive] = torch.arange(len(alive), device=alive.device)
        places = new[self.places]  # the last entry, -1, is for -1
        width = int((places >= 0).sum(1).max())
        if width == 0:
            return None
        order = (places < 0).int().sort(dim=1, stable=True).indices[:, :width]
        return Readers(places.gather(1, order), self.attended)


class SegmentedLayer(DynamicLayer):
    """A cache layer: keys and values [B, H, S, D] of the segments, and those of rows as they grow.

    Args:
        segments: keys and values of each segment.
        length: tokens that count as seen.
    """

    def __init__(self, segments: Sequence[tuple[Tensor, Tensor]], length: int) -> None:
        super().__init__()
        self.segments, self._length, self.grown = list(segments), length, 0
        self.is_initialized = True

    keys: Any
    values: Any

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append [R, H, 1, D] of the rows; returns those of the rows alone."""
        place = self.grown
        if self.keys is None or place == self.keys.shape[2]:
            self.keys, self.values = (
                self._grow(key_states, self.keys),
                self._grow(value_states, self.values),
            )
        self.keys[:, :, place] = key_states[:, :, 0]
        self.values[:, :, place] = value_states[:, :, 0]
        self.grown = place + 1
        return self.keys[:, :, : self.grown], self.values[:, :, : self.grown]

    def _grow(self, states: Tensor, old: Tensor | None) -> Tensor:
        rows, heads, _, width = states.shape
        new = states.new_empty(rows, heads, max(32, 2 * self.grown), width)
        if old is not None:
            new[:, :, : self.grown] = old
        return new

    def get_seq_length(self) -> int:
        """Tokens so far, of the longest row."""
        return self._length + self.grown

    def keep(self, alive: Tensor, segments: Sequence[int]) -> None:
        """Only the rows `alive` go on, and only these segments are still read."""
        self.keys, self.values = self.keys[alive], self.values[alive]
        self.segments = [self.segments[number] for number in segments]


class SegmentedCache(DynamicCache):
    """Cache of R rows over segments; `readers` says who reads which."""

    layers: list[Any]

    def __init__(self, layers: Sequence[SegmentedLayer], readers: Sequence[Readers]) -> None:
        super().__init__()
        self.layers, self.readers = list(layers), list(readers)

    def keep(self, alive: Tensor) -> None:
        """Drop all rows but `alive` (ascending), and what nobody reads any more."""
        left = [found.kept(alive) for found in self.readers]
        numbers = [number for number, found in enumerate(left) if found is not None]
        self.readers = [found for found in left if found is not None]
        for layer in self.layers:
            layer.keep(alive, numbers)

    def size_in_bytes(self) -> int:
        """Memory of all keys and values."""
        tensors = [t for layer in self.layers for pair in layer.segments for t in pair]
        tensors += [t for layer in self.layers for t in (layer.keys, layer.values) if t is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


_current: ContextVar[SegmentedCache] = ContextVar("segmented cache")


@contextmanager
def shared_attention(model: Any, cache: SegmentedCache) -> Iterator[None]:
    """Inside, the language model of `model` attends to `cache`, one new token a row."""
    kind = type(model.config.get_text_config())
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in found if type(config) is kind}
    before = {key: config._attn_implementation for key, config in configs.items()}
    token = _current.set(cache)
    try:
        for config in configs.values():
            config._attn_implementation = NAME
        yield
    finally:
        for key, config in configs.items():
            config._attn_implementation = before[key]
        _current.reset(token)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """An attention function of transformers: `query` [R, heads, 1, D]; returns [R, 1, heads, D].

    Raises:
        NotShared: the model asks for more than a softmax over all keys.
    """
    if any(kwargs.get(name) is not None for name in UNKNOWN) or query.shape[2] != 1:
        raise NotShared(f"{type(module).__name__} asks for more than plain attention")
    cache = _current.get()
    layer = cache.layers[module.layer_idx]
    rows, heads, _, width = query.shape
    kv = key.shape[1]
    scaling = width**-0.5 if scaling is None else scaling
    queries = query.reshape(rows, kv, heads // kv, width) * scaling
    top, norm, out = _part(queries, key, value, None)  # [R, kv, n, 1] and [R, kv, n, D]
    for (keys, values), readers in zip(layer.segments, cache.readers, strict=True):
        found = _segment(queries, keys, values, readers)
        if readers.real is not None:
            found = tuple(part[readers.real] for part in found)
        added_top, added_norm, added_out = found
        places = readers.rows
        before = top[places]
        both = torch.maximum(before, added_top)
        old, new = (before - both).exp(), (added_top - both).exp()
        norm.index_copy_(0, places, norm[places] * old + added_norm * new)
        out.index_copy_(0, places, out[places] * old + added_out * new)
        top.index_copy_(0, places, both)
    attended = (out / norm).to(query.dtype)
    return attended.reshape(rows, 1, heads, width), None


def _segment(queries: Tensor, keys: Tensor, values: Tensor, readers: Readers) -> tuple[Tensor, ...]:
    """Parts of all readers of a segment, [B * C, ...]."""
    entries, most = readers.places.shape
    _, kv, repeat, width = queries.shape
    chosen = queries[readers.asked]  # [B, C, kv, n, D]
    chosen = chosen.transpose(1, 2).reshape(entries, kv, most * repeat, width)
    parts = _part(chosen, keys, values, readers.attended)
    shaped = (part.view(entries, kv, most, repeat, -1).transpose(1, 2) for part in parts)
    top, norm, out = (part.reshape(entries * most, kv, repeat, -1) for part in shaped)
    return top, norm, out


def _part(
    queries: Tensor, keys: Tensor, values: Tensor, attended: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Largest score, sum of exponentials, and weighted values: [B, H, Q, 1], same, [B, H, Q, D]."""
    scores = (queries @ keys.transpose(-1, -2)).float()
    if attended is not None:
        scores = scores.masked_fill(~attended[:, None, None], -torch.inf)
    top = scores.amax(dim=-1, keepdim=True)
    weights = (scores - top).exp()
    return top, weights.sum(dim=-1, keepdim=True), (weights.to(values.dtype) @ values).float()


AttentionInterface.register(NAME, attend)
