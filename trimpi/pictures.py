"""Pictures of prompts: each is opened and processed once, then kept in memory within a bound.

A processor turns a picture into two things: pixels for the vision tower and a run of placeholder
text for the language model. Both depend on the picture alone, so they are computed by a call of
the processor on that picture and reused in every row that shows it.
"""

import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from trimpi.errors import UserError
from trimpi.picture_file import PICTURE_ERRORS

TOKEN_INPUTS = ("input_ids", "attention_mask", "mm_token_type_ids", "token_type_ids")
CACHE_BYTES = 1 << 29


@dataclass(frozen=True)
class Expansion:
    """The text that stands for a picture in a prompt, and the token ids of that text.

    `types` gives for each visual token id its value in the model's token type inputs, by input
    name (`mm_token_type_ids` of the Qwen families, `token_type_ids` of Gemma 3).
    """

    text: str
    ids: list[int]
    types: dict[str, dict[int, int]]


class PictureStore:
    """Expansions (all) and pixels (least recently used, up to `limit` bytes) of pictures by path.

    A file that changes on disk is processed again. The expansion follows from the picture's size
    in all known families, so it is computed once a size; should a processor's not, the first
    picture that differs stops the run.
    """

    def __init__(self, processor: Any, limit: int = CACHE_BYTES) -> None:
        # Not a strong reference: `store_of` keys stores by processor.
        self._processor = weakref.ref(processor)
        self._expansions: dict[tuple[Any, ...], Expansion] = {}
        self._by_size: dict[tuple[int, int], Expansion] = {}
        self._pixels: OrderedDict[tuple[Any, ...], dict[str, Tensor]] = OrderedDict()
        self._bytes, self._limit = 0, limit

    def expansion(self, path: str) -> Expansion:
        """Placeholder text of the picture at `path`.

        Raises:
            UserError: the file is missing or not a picture.
        """
        key = _key(path)
        if key not in self._expansions:
            image = open_picture(path)
            if image.size not in self._by_size:
                self._process(image, key)
            self._expansions[key] = self._by_size[image.size]
        return self._expansions[key]

    def pixels(self, path: str) -> dict[str, Tensor]:
        """Pixel inputs of one picture, in the form that the model takes for a batch of one."""
        key = _key(path)
        if key not in self._pixels:
            self._process(open_picture(path), key)
        self._pixels.move_to_end(key)
        return self._pixels[key]

    def _process(self, image: Image.Image, key: tuple[Any, ...]) -> None:
        processor = self._processor()
        assert processor is not None
        placeholder = processor.image_token
        try:
            output = processor(
                text=[placeholder], images=[image], return_tensors="pt", add_special_tokens=False
            )
        except ValueError as error:  # such as a strip that is 200 times as wide as high
            raise UserError(
                f"{key[0]}: the model's image processor refuses the picture, {image.width} x "
                f"{image.height} pixels ({error}); crop or replace it"
            ) from None
        ids = output["input_ids"][0].tolist()
        tokenizer = processor.tokenizer
        text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
            raise RuntimeError(
                f"{type(processor).__name__}: the placeholders of a picture do not survive "
                "decoding, so that prompts cannot be put together from text"
            )
        types = {
            name: dict(zip(ids, output[name][0].tolist(), strict=True))
            for name in TOKEN_INPUTS[2:]
            if name in output
        }
        expansion = Expansion(text, ids, types)
        if self._by_size.setdefault(image.size, expansion) != expansion:
            raise RuntimeError(
                f"{type(processor).__name__}: pictures of one size, {image.size}, became different "
                "runs of placeholders"
            )
        pixels = {name: value for name, value in output.items() if name not in TOKEN_INPUTS}
        self._pixels[key] = pixels
        self._bytes += _size(pixels)
        while self._bytes > self._limit and len(self._pixels) > 1:
            self._bytes -= _size(self._pixels.popitem(last=False)[1])


def open_picture(path: str) -> Image.Image:
    """A picture as RGB.

    Raises:
        UserError: missing, not a picture, or cut off.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise UserError(f"{path}: no such picture; restore the file") from None
    except PICTURE_ERRORS as error:
        raise UserError(f"{path}: not a readable picture ({error}); replace the file") from None


def join_pixels(rows: Sequence[Sequence[dict[str, Tensor]]]) -> dict[str, Tensor]:
    """Pixel inputs of a batch from those of each row's pictures, in reading order.

    Most families take the pictures of a batch in one flat list: [pictures or patches, ...].
    Idefics3 and SmolVLM take [rows, tiles, channels, height, width] and a mask of rank four, rows
    with fewer tiles filled with zeros, which the model leaves out.
    """
    flat = [pixels for row in rows for pixels in row]
    if not flat:
        return {}
    if flat[0]["pixel_values"].ndim != 5:
        return {name: torch.cat([pixels[name] for pixels in flat]) for name in flat[0]}
    joined = {}
    for name, example in flat[0].items():
        tiles = [torch.cat([*_padded([p[name][0] for p in row])]) if row else None for row in rows]
        known = [t for t in tiles if t is not None]
        shape = [max(t.shape[d] for t in known) for d in range(known[0].ndim)]
        out = torch.zeros(len(rows), *shape, dtype=example.dtype)
        for index, tile in enumerate(tiles):
            if tile is not None:
                out[index][tuple(slice(size) for size in tile.shape)] = tile
        joined[name] = out
    return joined


def store_of(processor: Any) -> PictureStore:
    """The store that belongs to a processor."""
    if processor not in _stores:
        _stores[processor] = PictureStore(processor)
    return _stores[processor]


_stores: "weakref.WeakKeyDictionary[Any, PictureStore]" = weakref.WeakKeyDictionary()


def _padded(tensors: list[Tensor]) -> list[Tensor]:
    """Fill all but the first dimension with zeros up to the largest."""
    shape = [max(t.shape[d] for t in tensors) for d in range(1, tensors[0].ndim)]
    padded = []
    for tensor in tensors:
        out = torch.zeros(tensor.shape[0], *shape, dtype=tensor.dtype)
        out[tuple(slice(size) for size in tensor.shape)] = tensor
        padded.append(out)
    return padded


def _size(pixels: dict[str, Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in pixels.values())


def _key(path: str) -> tuple[Any, ...]:
    try:
        status = Path(path).stat()
    except OSError:
        raise UserError(f"{path}: no such picture; restore the file") from None
    return path, status.st_mtime_ns, status.st_size
