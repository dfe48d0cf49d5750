"""Completions of many prompts, several each: what they have in common is read once.

    prompts -> families (same beginning, a policy) -> keys and values once -> one loop for all rows

A family's common beginning is read once, then the rest of each prompt, once for all of its
completions. Rows that have ended leave the loop. Tokens are drawn by row (`row_draws`), so that
none of this shows in what is drawn.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from trimpi.batch import Encoded
from trimpi.prefix import Inputs, Pixels, forward, lay_out, layers_of, prefix_inputs, share
from trimpi.row_draws import drawn, in_step
from trimpi.shared_attention import Readers, SegmentedCache, SegmentedLayer, shared_attention

LEAST_PREFIX = 32
"""A common beginning shorter than this is not worth a pass of its own."""
ENDED = 0.25
"""Share of ended rows at which the others are put together anew."""

PictureIds = Callable[[str], list[int]]
"""Path of a picture -> the run of tokens that stands for it in a prompt."""


@dataclass(frozen=True)
class Family:
    """Prompts (by number) whose first `prefix` tokens and `shown` pictures are the same."""

    members: tuple[int, ...]
    prefix: int = 0
    shown: int = 0


@dataclass(frozen=True)
class Prompts:
    """What is to be completed, and how often."""

    rows: Sequence[Encoded]
    copies: Sequence[int]
    pad: int
    pixels: Pixels
    picture_ids: PictureIds
    visual: frozenset[int]
    micro_batch: int
    """Prompts that are read together."""


def can_share(model: Any) -> str:
    """Why a model's completions cannot share keys and values; empty if they can."""
    if in_step(model):
        return "its weights lie in shards over several processes"
    kinds = {type(layer) for layer in DynamicCache(config=model.config).layers}
    if kinds - {DynamicLayer}:
        return "it keeps other states than keys and values of all tokens"
    return ""


def families(prompts: Prompts) -> list[Family]:
    """Prompts with a common beginning that is at least half of each; the others by length.

    A picture is part of a beginning when it is the same file.
    """
    signs, ends = zip(*_signs(prompts), strict=True)
    begun: list[list[int]] = []
    common: list[int] = []
    for number in sorted(range(len(signs)), key=lambda n: (len(signs[n]), n)):
        for place, members in enumerate(begun):
            length = min(common[place], _common(signs[members[0]], signs[number]))
            if 2 * length >= len(signs[number]) and length >= LEAST_PREFIX:
                members.append(number)
                common[place] = length
                break
        else:
            begun.append([number])
            common.append(len(signs[number]) - 1)
    found, alone = [], []
    for members, length in zip(begun, common, strict=True):
        if len(members) == 1:
            alone += members
            continue
        shown = sum(end <= length for end in ends[members[0]])
        found.append(Family(tuple(members), length, shown))
    return found + [Family(tuple(part)) for part in _alike(alone, [len(s) for s in signs])]


def decode(
    model: Any,
    input_ids: Tensor,
    *,
    prompts: Prompts,
    numbers: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    **rest: Any,
) -> Tensor:
    """For `generate(custom_generate=...)`, which prepares the arguments.

    Args:
        model: what `generate` was called on.
        input_ids: the prompts, padded to the left, [U, T].
        prompts: the same ones, with their pictures.
        numbers: of the draws by row, [R, new tokens]; R is the sum of all copies.
        logits_processor: temperature, top-k and the like.
        stopping_criteria: ends of turn and the limit of length.
        generation_config: a copy of the caller's.
        rest: nothing that is needed here.

    Returns:
        Prompts with their completions, the copies of a prompt side by side, [R, T + N].

    Raises:
        NotShared: the model's attention cannot be put together from segments.
    """
    training = model.training
    model.eval()  # a layer in between that drops out would make other draws of the same numbers
    try:
        with torch.no_grad():
            cache, logits, positions = prefill(model, prompts)
            device = logits.device
            for process in logits_processor:
                # Padding by prompt, of the prompts as they came; `_seen` has none.
                if isinstance(getattr(process, "prompt_ignore_length", None), Tensor):
                    process.prompt_ignore_length = None
            loop = _Loop(
                model,
                cache,
                positions,
                _seen(prompts, input_ids.to(device), numbers.shape[1]),
                input_ids.shape[1],
                numbers.to(device) if generation_config.do_sample else None,
                logits_processor,
                stopping_criteria,
            )
            result = loop.run(logits)
    finally:
        model.train(training)
    # Rows that ended are filled up behind; what stands there is cut off with the end of turn.
    result[:, : input_ids.shape[1]] = input_ids.repeat_interleave(_copies(prompts, device), dim=0)
    return result


def prefill(model: Any, prompts: Prompts) -> tuple[SegmentedCache, Tensor, Tensor]:
    """All prompts as segments of a cache, their first logits [R, V] and last positions
    [..., R, 1], both by row."""
    count = len(prompts.rows)
    starts = np.concatenate([[0], np.cumsum(prompts.copies)])
    places = [list(range(starts[n], starts[n + 1])) for n in range(count)]
    segments: list[list[tuple[Tensor, Tensor]]] = []
    readers: list[Readers] = []
    logits: list[Tensor | None] = [None] * count
    last: list[Tensor | None] = [None] * count
    for family in families(prompts):
        first = prompts.rows[family.members[0]]
        prefix = None
        if family.prefix:
            asked = (prompts.pad, prompts.pixels, family.prefix, family.shown)
            prefix = DynamicCache(config=model.config)
            forward(model, prefix_inputs(model, first, *asked).to(model), prefix)
            segments.append([(layer.keys, layer.values) for layer in layers_of(prefix)])
            everyone = [place for member in family.members for place in places[member]]
            readers.append(_readers([everyone], None, model.device))
        for batch in _cut(family.members, prompts.micro_batch):
            rows = [prompts.rows[n] for n in batch]
            asked = (prompts.pad, prompts.pixels, family.prefix, family.shown)
            inputs = lay_out(model, rows, *asked).to(model)
            cache = share(prefix, len(rows)) if prefix else DynamicCache(config=model.config)
            found = forward(model, inputs, cache)
            mask = inputs.tensors["attention_mask"][:, family.prefix :].bool()
            # Copies, so that those of the beginning, which lie before them, can go.
            own = [
                (k[:, :, family.prefix :].clone(), v[:, :, family.prefix :].clone())
                for k, v in ((layer.keys, layer.values) for layer in layers_of(cache))
            ]
            segments.append(own)
            readers.append(_readers([places[n] for n in batch], mask, model.device))
            for index, n in enumerate(batch):
                logits[n] = found[index]
                last[n] = inputs.tensors["position_ids"][..., index : index + 1, -1:]
    copies = _copies(prompts, model.device)
    longest = max(len(row.input_ids) for row in prompts.rows)
    layers = [SegmentedLayer(found, longest) for found in zip(*segments, strict=True)]
    known = [place for place in last if place is not None]
    if any(place.ndim == 3 for place in known):  # text alone has one position for all axes
        known = [p if p.ndim == 3 else p.expand(3, *p.shape) for p in known]
    whole = torch.stack([found for found in logits if found is not None])
    return (
        SegmentedCache(layers, readers),
        whole.repeat_interleave(copies, dim=0),
        torch.cat(known, dim=-2).repeat_interleave(copies, dim=-2),
    )


class _Loop:
    """The decoding loop; its rows are those that go on."""

    def __init__(
        self,
        model: Any,
        cache: SegmentedCache,
        positions: Tensor,
        seen: Tensor,
        length: int,
        numbers: Tensor | None,
        process: Callable[..., Tensor],
        stops: Callable[..., Tensor],
    ) -> None:
        self._model, self._cache, self._positions = model, cache, positions
        self._seen, self._length, self._numbers = seen, length, numbers
        self._process, self._stops = process, stops
        self._result, self._rows = seen.clone(), torch.arange(len(seen), device=seen.device)

    def run(self, logits: Tensor) -> Tensor:
        """All rows with their tokens, [R, T + N]."""
        ended = torch.zeros(len(self._rows), dtype=torch.bool, device=logits.device)
        with shared_attention(self._model, self._cache):
            for step in range(self._result.shape[1] - self._length):
                tokens = self._choose(logits, step)
                end = self._length + step + 1
                self._seen[:, end - 1] = tokens
                self._result[self._rows, end - 1] = tokens
                ended |= self._stops(self._seen[:, :end], None).to(ended.device)
                gone = float(ended.float().mean())
                if gone == 1:
                    break
                if gone >= ENDED and step:
                    ended = self._keep(ended, tokens)
                    tokens = self._seen[:, end - 1]
                logits = self._next(tokens)
        return self._result

    def _choose(self, logits: Tensor, step: int) -> Tensor:
        scores = self._process(self._seen[:, : self._length + step], logits.float())
        if self._numbers is None:
            return scores.argmax(dim=-1)
        return drawn(scores, self._numbers[:, step])

    def _next(self, tokens: Tensor) -> Tensor:
        self._positions = self._positions + 1
        step = {"input_ids": tokens[:, None], "position_ids": self._positions}
        return forward(self._model, Inputs(step), self._cache)

    def _keep(self, ended: Tensor, tokens: Tensor) -> Tensor:
        alive = (~ended).nonzero().flatten()
        self._cache.keep(alive)
        self._rows, self._seen = self._rows[alive], self._seen[alive]
        self._positions = self._positions[..., alive, :]
        if self._numbers is not None:
            self._numbers = self._numbers[alive]
        return torch.zeros(len(alive), dtype=torch.bool, device=ended.device)


def _seen(prompts: Prompts, input_ids: Tensor, new: int) -> Tensor:
    """What processors look at, [R, T + new]: a prompt's first token stands for padding, so that
    penalties of what was seen are those of the prompt alone."""
    lengths = [len(row.input_ids) for row in prompts.rows]
    width = input_ids.shape[1]
    filled = input_ids.clone()
    for line, length in zip(filled, lengths, strict=True):
        line[: width - length] = line[width - length].item()
    rows = filled.repeat_interleave(_copies(prompts, input_ids.device), dim=0)
    room = rows.new_full((len(rows), new), prompts.pad)
    return torch.cat([rows, room], dim=1)


def _copies(prompts: Prompts, device: Any) -> Tensor:
    return torch.tensor(list(prompts.copies), device=device)


def _readers(places: Sequence[Sequence[int]], mask: Tensor | None, device: Any) -> Readers:
    most = max(map(len, places))
    filled = [[*row, *[-1] * (most - len(row))] for row in places]
    attended = None if mask is None or bool(mask.all()) else mask
    return Readers(torch.tensor(filled, device=device), attended)


def _signs(prompts: Prompts) -> Iterator[tuple[np.ndarray[Any, Any], list[int]]]:
    """Token ids of each prompt, those of pictures by file, and where its pictures end."""
    files: dict[str, int] = {}
    for row in prompts.rows:
        signs, ends, start = np.array(row.input_ids, dtype=np.int64), [], 0
        for path in row.pictures:
            ids = prompts.picture_ids(path)
            places = [place for place, token in enumerate(ids) if token in prompts.visual]
            run = ids[places[0] : places[-1] + 1]
            while row.input_ids[start : start + len(run)] != run:
                start = row.input_ids.index(run[0], start + 1)
            signs[start : start + len(run)] = -1 - files.setdefault(path, len(files))
            start += len(run)
            ends.append(start)
        yield signs, ends


def _common(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> int:
    """Tokens that two prompts begin with alike, at least one left of each."""
    length = min(len(one), len(other)) - 1
    differ = one[:length] != other[:length]
    return int(differ.argmax()) if differ.any() else length


def _alike(members: Sequence[int], lengths: Sequence[int]) -> list[list[int]]:
    """Members in parts of similar length: none twice as long as another."""
    parts: list[list[int]] = []
    for number in sorted(members, key=lambda n: lengths[n]):
        if not parts or lengths[number] > 2 * lengths[parts[-1][0]]:
            parts.append([])
        parts[-1].append(number)
    return parts


def _cut(members: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for start in range(0, len(members), size):
        yield members[start : start + size]
