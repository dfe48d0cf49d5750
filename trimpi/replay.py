"""Replay: general examples mixed into training, so that what they need is not forgotten.

Rehearsal of earlier data is the oldest remedy against forgetting (Robins 1995); of instruction
data in fine-tuning, e.g. arXiv 2205.12393. Which rows, how many, in which format; and that none
of them is what forgetting is measured on.
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from trimpi.errors import UserError
from trimpi.prompt import Target, form_fault
from trimpi.runs import digest
from trimpi.sample import DataFolder, Sample

SHOWN = 20
"""Faulty rows that are named one by one."""


def read_general(folder: DataFolder) -> list[Sample]:
    """All rows of all splits, as the evaluation reads its skills; ids are unique over splits.

    Raises:
        UserError: no split, or rows that do not read.
    """
    if not folder.splits:
        raise UserError(f"{folder.root}: holds no rows; give a data folder with a <split>.jsonl")
    several = len(folder.splits) > 1
    return [
        replace(sample, id=f"{split}/{sample.id}") if several else sample
        for split in folder.splits
        for sample in folder.read(split)
    ]


def target_of(sample: Sample) -> Target:
    """The response format of a general example: its `facts.target`, else by its rationale."""
    named = sample.facts.get("target", "cot" if sample.rationale else "answer")
    return "cot" if named == "cot" else "answer"


def general_count(rows: int, ratio: float) -> int:
    """General examples an epoch so that they are `ratio` of all sequences: g = n x / (1 - x).

    Rounded to a whole number, at least 1 where the ratio is not 0.

    Args:
        rows: the stage's own sequences of an epoch (n).
        ratio: share of general examples among all (x), 0 <= x < 1.
    """
    return max(1, round(rows * ratio / (1 - ratio))) if ratio else 0


def draw_general(samples: Sequence[Sample], count: int, seed: str) -> list[Sample]:
    """`count` rows at random; none comes again before all have come.

    Args:
        samples: the general examples.
        count: rows to draw; may be more than there are.
        seed: fixes the draw.
    """
    generator, drawn = random.Random(seed), list[Sample]()
    while len(drawn) < count:
        left = count - len(drawn)
        drawn += generator.sample(list(samples), min(left, len(samples)))
    return drawn


def check_general(folder: DataFolder) -> list[Sample]:
    """The general examples, each with something to train on.

    Raises:
        UserError: all rows without a query, an answer, or the rationale that their format needs
            (of many the first 20), with file and row.
    """
    problems = []
    for split in folder.splits:
        for number, sample in enumerate(folder.read(split), 1):
            where = f"{folder.root / split}.jsonl:{number}"
            problems += [f"{where}: {fault}" for fault in _faults(sample)]
    if problems:
        more = len(problems) - SHOWN
        tail = [f"replay: {more} more problems"] if more > 0 else []
        raise UserError.join([*problems[:SHOWN], *tail])
    return read_general(folder)


def _faults(sample: Sample) -> Iterator[str]:
    for part in ("query", "answer"):
        if not getattr(sample, part).strip():
            yield f"is a general example with an empty {part}; write one, or drop the row"
    if target_of(sample) == "cot" and sample.rationale is None:
        yield "facts.target is 'cot' and there is no rationale; add one, or set it to 'answer'"
    if fault := form_fault(sample):
        yield fault


def refuse_measured(
    replay: DataFolder, measured: Mapping[str, tuple[DataFolder, Sequence[Sample]]]
) -> None:
    """Refuse general examples that the evaluation asks: numbers on trained rows mean nothing.

    Two rows are the same when query, policy and pictures are; a picture is the same when its
    bytes are, and is refused under another query too.

    Args:
        replay: folder of the general examples.
        measured: key of the recipe -> folder and rows that are asked there.

    Raises:
        UserError: one line a key, with the number of rows and the first pair.
    """
    general, hashed = read_general(replay), cache(_file_digest)
    problems = []
    for key, (folder, rows) in measured.items():
        asked = {_row_digest(folder, row, hashed): row.id for row in rows}
        pictures = {hashed(path): row.id for row in rows for path in row.images}
        same = []
        for row in general:
            other = asked.get(_row_digest(replay, row, hashed))
            shown = (pictures.get(hashed(path)) for path in row.images)
            other = other or next((name for name in shown if name is not None), None)
            if other is not None:
                same.append((row.id, other))
        if same:
            ours, theirs = same[0]
            problems.append(
                f"replay: {len(same)} of {len(general)} rows have the request or a picture of a "
                f"row that {key} measures on (first {ours!r}, there {theirs!r}); trained rows "
                "measure nothing: build either with another seed, or take these rows out"
            )
    if problems:
        raise UserError.join(problems)


def _row_digest(folder: DataFolder, sample: Sample, hashed: Callable[[str], str]) -> str:
    policy = folder.policy_of(sample)
    shown = None if policy is None else policy.digest()
    return digest([" ".join(sample.query.split()), shown, [hashed(p) for p in sample.images]])


def _file_digest(path: str) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
