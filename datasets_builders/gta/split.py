"""Which tasks are for training and which for testing: by picture, both meeting all rules."""

import hashlib
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from datasets_builders.gta.source import Task
from trimpi.errors import UserError


def split_tasks(
    rng: random.Random,
    tasks: Sequence[Task],
    share: float,
    traits: Mapping[str, Collection[str]],
    needs: Mapping[str, int] | None = None,
) -> dict[str, list[Task]]:
    """Tasks for training and for testing; tasks that share a picture stay together.

    Groups are taken for the test until it has enough tasks of each trait, but never so many that
    training has too few. What is left of the test's share is drawn at random.

    Args:
        rng: fixes the result.
        tasks: all of them.
        share: of the tasks to test on; the traits come first where they need more.
        traits: by task id, what both splits should meet, such as the tools that are called.
        needs: how many tasks with a trait each split should have, where one is not enough.

    Raises:
        UserError: there are fewer than two groups of tasks.
    """
    groups = _groups(tasks)
    if len(groups) < 2:
        raise UserError(
            f"source: {len(tasks)} tasks make {len(groups)} group that shares no picture with"
            " another; training and test need one each, give more tasks"
        )
    rng.shuffle(groups)
    found = [Counter(t for task in group for t in set(traits[task.id])) for group in groups]
    left = sum(found, Counter[str]())
    missing = Counter({trait: (needs or {}).get(trait, 1) for trait in left})
    needed = dict(missing)
    wanted = max(1, round(share * len(tasks)))
    test: list[int] = []

    def can_go(index: int) -> bool:
        """Whether training has enough of every trait of the group without it."""
        group = found[index]
        return index not in test and all(left[t] - group[t] >= needed[t] for t in group)

    def gain(index: int) -> float:
        """Tasks that the test is short of, as a share of the group."""
        group = found[index]
        return sum(min(group[t], missing[t]) for t in group) / len(groups[index])

    def take(index: int) -> None:
        nonlocal missing
        test.append(index)
        left.subtract(found[index])
        missing -= found[index]

    while useful := [i for i in range(len(groups)) if can_go(i) and gain(i) > 0]:
        take(max(useful, key=gain))
    for index in range(len(groups)):
        if sum(len(groups[i]) for i in test) >= wanted:
            break
        if can_go(index):
            take(index)
    if not test:  # every group has something that training cannot do without
        test.append(len(groups) - 1)
    return {
        "train_cot": [t for i, group in enumerate(groups) if i not in test for t in group],
        "test": [t for i in sorted(test) for t in groups[i]],
    }


def _groups(tasks: Sequence[Task]) -> list[list[Task]]:
    """Tasks joined by pictures of the same content."""
    owner: dict[str, int] = {}
    groups: dict[int, list[Task]] = {}
    for number, task in enumerate(tasks):
        contents = [hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in task.images.values()]
        met = {owner[content] for content in contents if content in owner}
        groups[number] = [task for key in sorted(met) for task in groups.pop(key)] + [task]
        for key, value in owner.items():
            if value in met:
                owner[key] = number
        owner.update(dict.fromkeys(contents, number))
    return list(groups.values())
