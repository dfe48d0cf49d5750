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
) -> dict[str, list[Task]]:
    """Tasks for training and for testing; tasks that share a picture stay together.

    Groups are taken for the test so that each trait is met there; a group that alone has some trait
    stays in training. What is left of the test's share is drawn at random.

    Args:
        rng: fixes the result.
        tasks: all of them.
        share: of the tasks to test on; the traits come first where they need more.
        traits: by task id, what both splits should meet, such as the tools that are called.

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
    found = [frozenset(t for task in group for t in traits[task.id]) for group in groups]
    having = Counter(trait for of_group in found for trait in of_group)
    wanted = max(1, round(share * len(tasks)))
    test: list[int] = []
    met: set[str] = set()

    def can_go(index: int) -> bool:
        """Whether training has every trait of the group without it."""
        left = having.copy()
        left.subtract(found[index])
        return all(left[trait] > 0 for trait in found[index])

    def take(index: int) -> None:
        test.append(index)
        met.update(found[index])
        having.subtract(found[index])

    while fresh := [i for i in range(len(groups)) if found[i] - met and can_go(i)]:
        take(max(fresh, key=lambda i: len(found[i] - met) / len(groups[i])))
    for index in range(len(groups)):
        if sum(len(groups[i]) for i in test) >= wanted:
            break
        if index not in test and can_go(index):
            take(index)
    if not test:  # every group has something of its own
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
