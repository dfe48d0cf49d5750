"""Features of pictures: one picture, one way through the vision tower, however many rows show it.

A forward pass of a vision-language model gets its picture features from one method of its inner
model, transformers' `get_image_features`. `share_pictures` puts itself there: equal pictures of a
call are computed once and their features repeated, so that gradients of the copies add up in the
one; and they are kept between calls for as long as they cannot change: where nothing on the way
from pixels to features is trained, for good, else for a block without updates (`kept`).

The numbers are those of the plain way up to rounding. Where a call cannot be cut by picture (a
family with inputs that are not known here, dropout in the tower) the plain way is taken.
"""

import inspect
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import wraps
from types import MethodType
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from transformers.utils import ModelOutput

from trimpi.fingerprints import Fingerprint, fingerprints

METHOD = "get_image_features"
CACHE_BYTES = 1 << 30
ALLOWED = {"image_grid_thw": 2, "pixel_attention_mask": 5}
"""Inputs beside the pixels that are known here, and the rank of the pixels that they go with."""
VISUAL = ("image_", "pixel_", "vision_", "cu_seqlens", "spatial_", "grid_")
"""Beginnings of names of inputs that belong to pictures."""


@dataclass(frozen=True)
class Pictures:
    """A call, cut by picture (by tile, where a family cuts pictures into tiles)."""

    keys: list[Fingerprint]
    some: Callable[[Sequence[int]], dict[str, Any]]
    """Inputs of a call of these pictures alone, in this order."""
    device: torch.device
    groups: list[int] | None = None
    """Pictures of each entry of the output, where a whole call's entries are rows of tiles."""


@dataclass(frozen=True)
class Features:
    """Of one picture: what takes the place of its tokens, and what is added in deeper layers."""

    pooled: Tensor
    deep: tuple[Tensor, ...]

    def on(self, device: torch.device | str) -> "Features":
        """The same, elsewhere."""
        return Features(self.pooled.to(device), tuple(t.to(device) for t in self.deep))

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(t.numel() * t.element_size() for t in (self.pooled, *self.deep))


class PictureFeatures:
    """The shared features of one model; `share_pictures` makes it.

    Args:
        inner: the model whose `get_image_features` is called.
        limit: bytes of features kept in host memory, least recently used ones leave; 0 keeps none.
        frozen: as in `share_pictures`.
    """

    def __init__(self, inner: Any, limit: int, frozen: bool = False) -> None:
        self._inner, self._limit = weakref.ref(inner), limit
        self.plain: Callable[..., Any] = getattr(type(inner), METHOD)
        self._signature = inspect.signature(self.plain)
        tower = list(_outside_decoder(inner))
        weights = [w for module in tower for w in module.parameters(recurse=False)]
        self._adapters = any(isinstance(module, BaseTunerLayer) for module in tower)
        self._draws = any(draws(module) for module in tower)
        trained = any(weight.requires_grad for weight in weights)
        self.static = not self._adapters and (frozen or not trained)
        """Whether features cannot change while the model is trained."""
        self._kept: OrderedDict[Hashable, Features] = OrderedDict()
        self._form: _Form | None = None
        self._bytes, self._blocks = 0, 0
        self.asked = self.computed = 0
        """Pictures that calls have shown, and those that went through the tower."""
        self.unknown: str | None = None
        """Why the last call that took the plain way could not be cut."""

    def release(self) -> None:
        """Give the model its own method back; forget all features."""
        inner = self._inner()
        if inner is not None:
            inner.__dict__.pop(METHOD, None)
        self._forget()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """A block in which no weight changes: what is computed without gradient is kept in it."""
        self._blocks += 1
        try:
            yield
        finally:
            self._blocks -= 1
            if not self._blocks and not self.static:
                self._forget()

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """In place of `get_image_features`."""
        inner = args[0]
        pictures = self._cut(inner, *args, **kwargs)
        if pictures is None:
            return self.plain(*args, **kwargs)
        self.asked += len(pictures.keys)
        first = {key: place for place, key in reversed(list(enumerate(pictures.keys)))}
        keeps, state = self._keeps(), _state(inner)
        found = {key: self._take((state, key)) for key in first} if keeps else {}
        missing = [key for key in first if found.get(key) is None]
        if len(missing) == len(pictures.keys) and not keeps:
            self.computed += len(missing)
            return self.plain(*args, **kwargs)  # all differ
        if missing:
            with torch.no_grad() if self.static else nullcontext():
                output = self.plain(inner, **pictures.some([first[key] for key in missing]))
            parts = _parts(output, len(missing))
            if parts is None:
                self.unknown = f"{type(output).__name__} does not tell pictures apart"
                return self.plain(*args, **kwargs)
            self.computed += len(missing)
            found.update(zip(missing, parts, strict=True))
            self._form = _form(output)
            if keeps:
                for key, part in zip(missing, parts, strict=True):
                    self._put((state, key), part)
        assert self._form is not None
        there = {key: features.on(pictures.device) for key, features in found.items() if features}
        return self._form.join([there[key] for key in pictures.keys], pictures.groups)

    def _keeps(self) -> bool:
        if not self._limit or torch.is_inference_mode_enabled():
            return False
        return self.static or (
            bool(self._blocks) and not self._adapters and not torch.is_grad_enabled()
        )

    def _cut(self, inner: Any, *args: Any, **kwargs: Any) -> Pictures | None:
        bound = self._signature.bind(*args, **kwargs).arguments
        name = next((n for n, p in self._signature.parameters.items() if p.kind == p.VAR_KEYWORD),
                    "")  # fmt: skip
        given = {**bound, **bound.get(name, {})}
        given.pop(name, None)
        given.pop("self", None)
        pixels = given.get("pixel_values")
        more = {
            key for key, value in given.items()
            if isinstance(value, Tensor) and key.startswith(VISUAL) and key != "pixel_values"
        }  # fmt: skip
        if not isinstance(pixels, Tensor) or given.get("return_dict") is False:
            return None
        if given.get("output_hidden_states") or given.get("output_attentions"):
            return None
        if self._draws and inner.training:
            self.unknown = "dropout in the vision tower draws anew for every copy of a picture"
        elif any(ALLOWED.get(key) != pixels.ndim for key in more):
            self.unknown = f"the family's {', '.join(sorted(more))} cannot be cut by picture here"
        elif pixels.ndim == 2 and more:
            return _patches(given)
        elif pixels.ndim == 4:
            return _whole(given)
        elif pixels.ndim == 5:
            return _tiles(given)
        else:
            self.unknown = f"pixels of rank {pixels.ndim} cannot be cut by picture here"
        return None

    def _take(self, key: Hashable) -> Features | None:
        features = self._kept.get(key)
        if features is not None:
            self._kept.move_to_end(key)
        return features

    def _put(self, key: Hashable, features: Features) -> None:
        features = Features(features.pooled.detach(), tuple(t.detach() for t in features.deep))
        if features.pooled.device.type != "cpu":
            features = features.on("cpu")
        else:  # a part of a larger tensor would keep all of it
            features = Features(features.pooled.clone(), tuple(t.clone() for t in features.deep))
        self._kept[key] = features
        self._bytes += features.size
        while self._bytes > self._limit and self._kept:
            self._bytes -= self._kept.popitem(last=False)[1].size

    def _forget(self) -> None:
        self._kept.clear()
        self._bytes = 0


@dataclass(frozen=True)
class _Form:
    """How a model's output holds features: its class, and which of its fields are lists."""

    kind: type[Any]
    pooled_is_list: bool
    deep_is_list: bool | None

    def join(self, parts: Sequence[Features], groups: list[int] | None) -> Any:
        """An output of these pictures, in order; `groups` as in `Pictures`."""
        pooled: Any = tuple(part.pooled for part in parts)
        if not self.pooled_is_list:
            pooled = torch.stack(pooled)
        elif groups is not None:
            rows = torch.stack(pooled).split(groups)
            pooled = tuple(row.reshape(-1, row.shape[-1]) for row in rows)
        output = self.kind()
        output.pooler_output = pooled  # no field of the class in some versions
        if self.deep_is_list is None:
            return output
        layers: list[Any] = [tuple(level) for level in zip(*(p.deep for p in parts), strict=True)]
        if not self.deep_is_list:
            layers = [torch.cat(layer) for layer in layers]
        output.deepstack_features = layers
        return output


def share_pictures(
    model: Any, limit: int = CACHE_BYTES, frozen: bool = False
) -> PictureFeatures | None:
    """Let a model compute each picture once. None where it has no such method.

    To be called when it is settled what is trained: after freezing, adapters and quantization.

    Args:
        model: as transformers loads it, or wrapped by PEFT; not by DDP or FSDP.
        limit: bytes of features that may be kept between calls. 0 where processes hold parts of
            the weights and must all call the tower alike (FSDP, ZeRO-3).
        frozen: the model is never trained, whatever its weights say (a KL reference).
    """
    inner = _inner(model)
    if inner is None:
        return None
    features = PictureFeatures(inner, limit, frozen)

    @wraps(features.plain)  # `generate` looks at the signature
    def get_image_features(self: Any, *args: Any, **kwargs: Any) -> Any:
        return features.call(self, *args, **kwargs)

    # A bound method follows a copy of its model, where a plain function would not.
    inner.__dict__[METHOD] = MethodType(get_image_features, inner)
    return features


def draws(module: Any) -> bool:
    """Whether a module drops out at random while it is trained."""
    if isinstance(module, torch.nn.modules.dropout._DropoutNd):
        return module.p > 0
    rates = (getattr(module, name, 0.0) for name in ("attention_dropout", "dropout_p"))
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _inner(model: Any) -> Any:
    """The module whose `get_image_features` a forward pass calls."""
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    inner = getattr(model, "base_model", model)
    return inner if hasattr(type(inner), METHOD) else None


def _outside_decoder(inner: Any) -> Iterator[Any]:
    decoder = inner.get_decoder()
    inside = set() if decoder is inner else {id(module) for module in decoder.modules()}
    return (module for module in inner.modules() if id(module) not in inside)


def _state(inner: Any) -> Hashable:
    """What else the features of a picture depend on."""
    device = inner.device.type
    autocast = torch.is_autocast_enabled(device)
    return (inner.dtype, torch.get_autocast_dtype(device) if autocast else None)


def _patches(given: dict[str, Any]) -> Pictures | None:
    """Qwen: patches of all pictures one after the other, and a grid for each picture."""
    pixels, grid = given["pixel_values"], given["image_grid_thw"]
    shapes = grid.tolist()
    counts = [t * h * w for t, h, w in shapes]
    if sum(counts) != len(pixels):
        return None
    prints = fingerprints(pixels, counts)
    keys = [(*shape, *key) for shape, key in zip(shapes, prints, strict=True)]

    def some(places: Sequence[int]) -> dict[str, Any]:
        split = pixels.split(counts)
        chosen = torch.cat([split[place] for place in places])
        return {**given, "pixel_values": chosen, "image_grid_thw": grid[list(places)]}

    return Pictures(keys, some, pixels.device)


def _whole(given: dict[str, Any]) -> Pictures:
    """Gemma 3, LLaVA, InternVL: pictures or tiles [n, C, H, W]."""
    pixels = given["pixel_values"]

    def some(places: Sequence[int]) -> dict[str, Any]:
        return {**given, "pixel_values": pixels[list(places)]}

    shape = tuple(pixels.shape[1:])
    return Pictures([(*shape, *key) for key in fingerprints(pixels.flatten(1))], some,
                    pixels.device)  # fmt: skip


def _tiles(given: dict[str, Any]) -> Pictures | None:
    """Idefics3, SmolVLM: tiles [rows, tiles, C, H, W], the empty ones of which fill up a row."""
    pixels, mask = given["pixel_values"], given.get("pixel_attention_mask")
    flat = pixels.flatten(0, 1)
    real = (flat != 0).flatten(1).any(1).nonzero().flatten()
    if not len(real):
        return None
    flat, masks = flat[real], None if mask is None else mask.flatten(0, 1)[real]
    shape = tuple(flat.shape[1:])
    keys: list[Fingerprint] = [(*shape, *key) for key in fingerprints(flat.flatten(1))]
    if masks is not None:
        shown = fingerprints(masks.flatten(1))
        keys = [(*key, *more) for key, more in zip(keys, shown, strict=True)]

    def some(places: Sequence[int]) -> dict[str, Any]:
        # A row each: newer transformers give features by row.
        chosen = {**given, "pixel_values": flat[list(places)].unsqueeze(1)}
        if masks is not None:
            chosen["pixel_attention_mask"] = masks[list(places)].unsqueeze(1)
        return chosen

    tiles = torch.zeros(pixels.shape[:2].numel(), dtype=torch.long, device=pixels.device)
    tiles[real] = 1
    return Pictures(keys, some, pixels.device, tiles.view(pixels.shape[:2]).sum(1).tolist())


def _form(output: Any) -> _Form:
    deep = getattr(output, "deepstack_features", None)
    return _Form(
        type(output),
        isinstance(output.pooler_output, list | tuple),
        None if deep is None else bool(deep) and isinstance(deep[0], list | tuple),
    )


def _parts(output: Any, count: int) -> list[Features] | None:
    """An output by picture; None where it cannot be told apart."""
    if not isinstance(output, ModelOutput) or not hasattr(output, "pooler_output"):
        return None
    pooled = output.pooler_output
    if pooled is None or len(pooled) != count:
        return None
    sizes = [len(part) for part in pooled]
    deep = getattr(output, "deepstack_features", None) or []
    layers = [layer.split(sizes) if isinstance(layer, Tensor) else layer for layer in deep]
    if any(len(layer) != count for layer in layers):
        return None
    return [
        Features(part, tuple(layer[place] for layer in layers)) for place, part in enumerate(pooled)
    ]
