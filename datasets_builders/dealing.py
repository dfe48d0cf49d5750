"""Which split an example goes to, so that no picture is on both sides."""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence


def deal(
    groups: Sequence[Sequence[str]],
    answers: Sequence[str],
    shares: Mapping[str, float],
    seed: int,
) -> list[str]:
    """A split for each example, by shares of the examples of each answer.

    Args:
        groups: keys of each example; examples that have a key in common stay together.
        answers: of each example, so that the splits have the same share of each.
        shares: by split; they need not add up to 1.
        seed: of the order in which groups are dealt.
    """
    whole = sum(shares.values())
    parts = together(groups)
    random.Random(f"{seed}/deal").shuffle(parts)
    seen: Counter[str] = Counter()
    given: Counter[tuple[str, str]] = Counter()
    chosen = [""] * len(groups)
    for members in parts:
        answer = answers[members[0]]
        seen[answer] += len(members)

        def owed(split: str, answer: str = answer) -> tuple[float, str]:
            return (shares[split] / whole * seen[answer] - given[answer, split], split)

        split = max(shares, key=owed)
        given[answer, split] += len(members)
        for member in members:
            chosen[member] = split
    return chosen


def together(groups: Sequence[Sequence[str]]) -> list[list[int]]:
    """Indices of examples that must stay together (union-find over keys)."""
    parent = list(range(len(groups)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[str, int] = {}
    for index, keys in enumerate(groups):
        for key in keys:
            parent[root(index)] = root(first.setdefault(key, index))
    members: dict[int, list[int]] = defaultdict(list)
    for index in range(len(groups)):
        members[root(index)].append(index)
    return sorted(members.values())


def text_key(text: str) -> str:
    """A key for examples without a picture."""
    return f"text {hashlib.sha256(text.encode()).hexdigest()}"
