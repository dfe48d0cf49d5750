"""What a benchmark asks, what was read from a completion, and what a suite is."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from trimpi.benchmarks.source import Source
from trimpi.evaluate.store import digest_prompts
from trimpi.prompt import Message

Extraction = Literal["chain", "strict"]


@dataclass(frozen=True)
class Item:
    """One question. `options` are the texts behind the letters A, B, ...; `gold` is a letter or a
    label."""

    id: str
    category: str
    messages: list[Message]
    gold: str
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reading:
    """The answer in a completion and the level that found it; both None where there is none."""

    answer: str | None
    level: str | None


NOTHING = Reading(None, None)


@dataclass(frozen=True)
class Options:
    """What a user chooses of a suite.

    `shots`: examples before a question. `mode`: reason first, or answer at once (MMMU-Pro).
    `per_category`: rows kept of each category, None for all, drawn with `seed`.
    """

    shots: int = 5
    shots_from: str | None = None
    mode: Literal["cot", "direct"] = "cot"
    per_category: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Suite:
    """A benchmark.

    Attributes:
        hub: official hub id, taken where no source is given; `config`: its configuration.
        read: completion to reading, with the first level alone ("strict") or all of them.
        load: rows to items; the folder is for pictures that have to be written out.
        levels: names of the levels, in the order in which they are tried.
        max_new_tokens: the official limit of a completion.
        positive: the label whose F1 is reported, for classification.
        judged: completions are scored by a judge and not by `read` alone.
    """

    name: str
    hub: str
    config: str | None
    levels: tuple[str, ...]
    max_new_tokens: int
    load: Callable[[Source, Options, Path], list[Item]]
    read: Callable[[Item, str, Extraction], Reading]
    positive: str | None = None
    judged: bool = False
    used: tuple[str, ...] = field(default=())
    """Fields of `Options` that this suite reads, beside those of sampling."""


def chosen_rows(categories: Sequence[str], options: Options) -> list[int]:
    """Places of the rows that are asked, in the order of the source.

    Each category is drawn by a generator of its own, so that more categories change no draw.
    """
    if options.per_category is None:
        return list(range(len(categories)))
    places: dict[str, list[int]] = {}
    for place, category in enumerate(categories):
        places.setdefault(category, []).append(place)
    kept: list[int] = []
    for category, found in places.items():
        draw = random.Random(f"{options.seed}/{category}")
        kept += draw.sample(found, min(options.per_category, len(found)))
    return sorted(kept)


def items_digest(items: Sequence[Item]) -> str:
    """SHA-256 over ids, gold answers, options and whole prompts, pictures by content."""
    return digest_prompts(
        (
            [i.id, i.category, i.gold, *i.options, *(message["role"] for message in i.messages)],
            i.messages,
        )
        for i in items
    )


def user_turn(text: str, pictures: Sequence[str] = ()) -> list[Message]:
    """One user turn: the text, then the pictures."""
    images = [{"type": "image", "image": path} for path in pictures]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *images]}]
