"""The policy's prefix: where it ends in a prompt, and its keys and values, kept and shared.

The prefix of a set of prompts is what their token ids have in common, so a tokenizer that joins
the policy's end with the request's beginning shortens it rather than changing it. Positions are
those of the whole prompt, cut where the prefix ends: families whose pictures take positions of
their own (multimodal rotary embedding) number what follows a picture otherwise than by counting.
"""

import copy
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from trimpi.batch import IGNORED, Encoded, pad_rows
from trimpi.pictures import join_pixels

Pixels = Callable[[str], dict[str, Tensor]]
"""Path of a picture -> its pixel inputs, in the form for a batch of one."""


@dataclass(frozen=True)
class Inputs:
    """What a forward pass takes: `tensors` by argument, positions and attention mask among them.

    With a cached prefix of P tokens, ids and positions are those of the rest (T - P), the
    attention mask that of the whole (T).
    """

    tensors: dict[str, Tensor]

    def to(self, model: Any) -> "Inputs":
        """On the model's device, pixels in its precision."""
        from trimpi.generate import to_model

        return Inputs(to_model(self.tensors, model))


def shared_prefix(rows: Sequence[Encoded]) -> int:
    """Number of leading tokens that all rows have in common, at least one left for each row."""
    shortest = min(len(row.input_ids) for row in rows) - 1
    columns = zip(*(row.input_ids[:shortest] for row in rows), strict=True)
    return next((place for place, ids in enumerate(columns) if len(set(ids)) > 1), shortest)


def lay_out(
    model: Any, rows: Sequence[Encoded], pad: int, pixels: Pixels, prefix: int = 0, shown: int = 0
) -> Inputs:
    """Inputs of a batch of prompts of which `prefix` tokens and `shown` pictures are cached.

    Padding goes between the prefix and the rest of a row; without a prefix, to the left.
    """
    tail = pad_rows([_cut(row, prefix, None) for row in rows], pad, "left")
    head = pad_rows([_cut(row, 0, prefix) for row in rows], pad, "left")
    whole = {name: torch.cat([head[name], tail[name]], dim=1) for name in tail if name != "labels"}
    pictures = [[pixels(path) for path in row.pictures] for row in rows]
    place = positions(model, whole, join_pixels(pictures))
    tensors = {name: value[:, prefix:] for name, value in whole.items()}
    tensors["attention_mask"] = whole["attention_mask"]
    tensors["position_ids"] = place[..., prefix:]
    return Inputs(tensors | join_pixels([row[shown:] for row in pictures]))


def prefix_inputs(
    model: Any, row: Encoded, pad: int, pixels: Pixels, prefix: int, shown: int
) -> Inputs:
    """Inputs of the prefix alone, its first `shown` pictures with it."""
    return lay_out(model, [_cut(row, 0, prefix, row.pictures[:shown])], pad, pixels)


def positions(model: Any, tokens: dict[str, Tensor], pixels: dict[str, Tensor]) -> Tensor:
    """Position ids of whole prompts: [B, T], or [3, B, T] where pictures have positions in rows
    and columns (`get_rope_index` of the Qwen families). Padding has position 0."""
    mask = tokens["attention_mask"]
    index = getattr(model.model, "get_rope_index", None)
    if index is not None and "image_grid_thw" in pixels:
        found, _ = index(
            tokens["input_ids"],
            mm_token_type_ids=tokens["mm_token_type_ids"],
            image_grid_thw=pixels["image_grid_thw"],
            attention_mask=mask,
        )
        return torch.as_tensor(found)
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def forward(model: Any, inputs: Inputs, cache: DynamicCache) -> Tensor:
    """Logits of the last position [B, V]; `cache` grows by the inputs."""
    kind: Any = type(model)
    named = {_cache_argument(kind): cache}
    output = model(**inputs.tensors, **named, use_cache=True, logits_to_keep=1)
    return torch.as_tensor(output.logits[:, -1])


@lru_cache
def _cache_argument(kind: Any) -> str:
    """What models call it; `past_key_values` until transformers 5.24."""
    known = inspect.signature(kind.forward).parameters
    return "cache" if "cache" in known else "past_key_values"


def following(inputs: Inputs, tokens: Tensor) -> Inputs:
    """Inputs of the next decoding step: `tokens` [B], one position further, all of it attended."""
    mask = inputs.tensors["attention_mask"]
    return Inputs(
        {
            "input_ids": tokens[:, None],
            "attention_mask": torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1),
            "position_ids": inputs.tensors["position_ids"][..., -1:] + 1,
        }
    )


def shareable(cache: DynamicCache) -> bool:
    """Whether all layers keep keys and values of attention; states of other kinds are changed in
    place."""
    return all(isinstance(layer, DynamicLayer) for layer in cache.layers)


def share(cache: DynamicCache, batch: int) -> DynamicCache:
    """The cache of a prefix, made by a batch of one, for a batch of requests.

    No key or value is copied here and the original stays as it is: layers of a dynamic cache put
    what is new behind what they hold in new tensors.
    """
    shared = copy.copy(cache)
    shared.layers = []
    for original in layers_of(cache):
        layer = copy.copy(original)
        layer.keys = layer.keys.expand(batch, -1, -1, -1)
        layer.values = layer.values.expand(batch, -1, -1, -1)
        shared.layers.append(layer)
    return shared


def size_in_bytes(cache: DynamicCache) -> int:
    """Memory of all keys and values."""
    return sum(
        tensor.numel() * tensor.element_size()
        for layer in layers_of(cache)
        for tensor in (layer.keys, layer.values)
    )


def layers_of(cache: DynamicCache) -> list[Any]:
    """Its layers, whose keys and values are [B, H, T, D]."""
    return list(cache.layers)


def _cut(
    row: Encoded, start: int, end: int | None, pictures: tuple[str, ...] | None = None
) -> Encoded:
    ids = row.input_ids[start:end]
    types = {name: values[start:end] for name, values in row.types.items()}
    return Encoded(ids, [IGNORED] * len(ids), types, row.pictures if pictures is None else pictures)
