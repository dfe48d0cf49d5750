"""Which split a row goes to: shares, with rows that share a picture kept together."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasets_builders.dealing import deal as by_shares
from datasets_builders.dealing import text_key, together
from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings, some

TRAINING = ("train", "train_cot")
_COMMON = 5
"""Labels with at least so many rows are dealt by themselves, so that each split gets its share."""


def deal(
    examples: Sequence[Labelled],
    digests: Sequence[tuple[str, ...]],
    shares: Mapping[str, float],
    seed: int,
    reasoned: bool,
    found: Findings,
) -> list[Labelled]:
    """Every example with its split.

    A row keeps the split that it names; the others are dealt by `shares`, label by label. Rows
    that share a picture, or have no picture and the same request, are dealt as one. Training rows
    without a rationale go to `train`, the others to `train_cot`, unless the data name both.

    Args:
        examples: all rows.
        digests: of each row's pictures.
        shares: by split.
        seed: of the order in which rows are dealt.
        reasoned: a model will write the rationales of `train_cot`.
        found: gets problems: a picture in two splits, a split without rows, a row of `train_cot`
            that can have no rationale.
    """
    keys = [
        digest or (text_key(example.query),)
        for example, digest in zip(examples, digests, strict=True)
    ]
    groups = together(keys)
    named = {example.split for example in examples if example.split}
    chosen: dict[int, str] = {}
    free: list[int] = []
    for group in groups:
        own = {examples[i].split for i in group if examples[i].split}
        if len(own) > 1 and not own <= set(TRAINING):
            first = {split: next(examples[i].where for i in group if examples[i].split == split)
                     for split in sorted(filter(None, own))}  # fmt: skip
            told = ", ".join(f"{split} ({where})" for split, where in first.items())
            found.add(examples[group[0]].where, f"images: shared by the splits {told}; keep one")
            continue
        if not own:
            free += group
            continue
        fallback = next(iter(sorted(filter(None, own))))
        chosen |= {i: examples[i].split or fallback for i in group}
    chosen |= _dealt(sorted(free), examples, keys, shares, seed)
    both = set(TRAINING) <= named or set(TRAINING) <= set(shares)
    for group in groups:
        splits = {chosen[i] for i in group if i in chosen}
        if not both and splits and splits <= set(TRAINING):
            whole = all(reasoned or examples[i].rationale is not None for i in group)
            chosen |= dict.fromkeys(group, "train_cot" if whole else "train")
    dealt = [
        replace(example, split=chosen.get(i, example.split)) for i, example in enumerate(examples)
    ]
    _check(dealt, shares if free else {}, reasoned, found)
    return dealt


def _dealt(
    free: Sequence[int],
    examples: Sequence[Labelled],
    keys: Sequence[Sequence[str]],
    shares: Mapping[str, float],
    seed: int,
) -> dict[int, str]:
    """Splits of rows that name none. Rare labels, such as free texts, are dealt as if one."""
    common = Counter(examples[index].answer for index in free)
    labels = [a if common[a := examples[i].answer] >= _COMMON else "" for i in free]
    return dict(zip(free, by_shares([keys[i] for i in free], labels, shares, seed), strict=True))


def _check(
    dealt: Sequence[Labelled], shares: Mapping[str, float], reasoned: bool, found: Findings
) -> None:
    have = Counter(example.split for example in dealt)
    for split in shares if dealt else ():  # without a row left, their faults say all
        trained = split in TRAINING and any(have[name] for name in TRAINING)
        if not have[split] and not trained:
            found.add(
                f"splits.{split}",
                f"gets none of {len(dealt)} rows; give it a larger share, or more examples "
                "(rows that share a picture count as one)",
            )
    bare = [e.where for e in dealt if e.split == "train_cot" and e.rationale is None]
    if bare and not reasoned:
        found.add(
            "train_cot",
            f"{len(bare)} rows have no rationale ({some(bare, 3)}); give them one, put them into "
            "split train, or set generate",
        )
