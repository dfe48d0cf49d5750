"""Looking at a data folder: what `trimpi data show` prints."""

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from datasets_builders.base import answer_balance
from datasets_builders.coverage import coverage, rows_by_side
from datasets_builders.policy_text import is_text_split
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import DataFolder, Sample

PARTS = ("policy", "query", "rationale", "answer")


@dataclass(frozen=True)
class Lengths:
    """Shortest, mean and longest of a part's texts, in the unit of the counting function."""

    shortest: int
    mean: float
    longest: int

    @classmethod
    def of(cls, values: Iterable[int]) -> "Lengths | None":
        """None for no value."""
        listed = list(values)
        if not listed:
            return None
        return cls(min(listed), round(mean(listed), 1), max(listed))


@dataclass(frozen=True)
class Overview:
    """Everything that is shown of a data folder.

    `splits`: rows, distinct pictures and rationales of each split; `balance`: by split (but for
    texts) and policy id, see `answer_balance`; `lengths`: by split and part of the prompt or
    completion; `policy_images`: images in each policy; `coverage`: by policy and rule the rows in
    `training` and `test`, see `coverage.rows_by_side`.
    """

    builder: str
    digest: str
    splits: Mapping[str, Mapping[str, int]]
    balance: Mapping[str, Mapping[str, Mapping[str, Any]]]
    lengths: Mapping[str, Mapping[str, Lengths]]
    policy_images: Mapping[str, int]
    coverage: Mapping[str, Mapping[str, Mapping[str, int]]]


def words(text: str) -> int:
    """Counts words, where no tokenizer is at hand."""
    return len(text.split())


def overview(folder: DataFolder, count: Callable[[str], int] = words) -> Overview:
    """Read a whole data folder and sum it up.

    Args:
        count: length of a text, such as `lambda text: len(tokenizer(text).input_ids)`. Images are
            not counted: how many tokens one takes depends on the model.

    Raises:
        UserError: the folder, or any row of it, is faulty.
    """
    card = folder.card
    policy_lengths = {name: count(policy.text) for name, policy in folder.policies.items()}
    splits, balance, lengths, whole = {}, {}, {}, {}
    for split in folder.splits:
        samples = folder.read(split)
        if split not in card.get("views", {}):
            whole[split] = samples
        splits[split] = {
            "rows": len(samples),
            "images": len({image for sample in samples for image in sample.images}),
            "rationales": sum(sample.rationale is not None for sample in samples),
        }
        if not is_text_split(split):
            balance[split] = answer_balance(samples, folder.policies)
        lengths[split] = _lengths(samples, policy_lengths, count)
    return Overview(
        builder=str(card.get("builder", "")),
        digest=str(card.get("digest", "")),
        splits=splits,
        balance=balance,
        lengths=lengths,
        policy_images={name: len(policy.images) for name, policy in folder.policies.items()},
        coverage={
            policy: {rule: rows_by_side(entry["rows"]) for rule, entry in rules.items()}
            for policy, rules in coverage(folder.policies, whole).items()
        },
    )


def _lengths(
    samples: list[Sample], policies: Mapping[str, int], count: Callable[[str], int]
) -> dict[str, Lengths]:
    values = {
        "policy": [policies[sample.policy] for sample in samples if sample.policy is not None],
        "query": [count(sample.query) for sample in samples],
        "rationale": [count(sample.rationale) for sample in samples if sample.rationale],
        "answer": [count(sample.answer) for sample in samples],
    }
    found = {part: Lengths.of(values[part]) for part in PARTS}
    return {part: lengths for part, lengths in found.items() if lengths is not None}


def example_rows(folder: DataFolder, split: str, number: int) -> list[tuple[Sample, Policy | None]]:
    """`number` samples drawn from a split, the same each time, with their policies."""
    samples = folder.read(split)
    places = random.Random(0).sample(range(len(samples)), min(number, len(samples)))
    return [(samples[place], folder.policy_of(samples[place])) for place in sorted(places)]


def default_split(folder: DataFolder) -> str:
    """The split that is best to look at: one with rationales if there is one."""
    splits = folder.splits
    if not splits:
        raise UserError(f"{folder.root}: no split (*.jsonl); build the data again")
    return next((split for split in ("train_cot", "test", "train") if split in splits), splits[0])


def contact_sheet(
    folder: DataFolder, file: Path, split: str | None = None, number: int = 12
) -> Path:
    """Write the contact sheet PNG of a split; see `datasets_builders.contact_sheet`."""
    from datasets_builders.contact_sheet import draw_sheet

    return draw_sheet(example_rows(folder, split or default_split(folder), number), file)
