"""The split of tasks: no picture on both sides, and both sides meet what they should."""

import random
from pathlib import Path

import pytest

from datasets_builders.gta.source import Task
from datasets_builders.gta.split import split_tasks
from trimpi.errors import UserError


def tasks_over(folder: Path, pictures: list[str]) -> list[Task]:
    """A task for each entry, which names the contents of its pictures by letters."""
    for letter in set("".join(pictures)):
        (folder / letter).write_text(letter)
    return [
        Task(str(number), "q", {name: str(folder / name) for name in letters}, ())
        for number, letters in enumerate(pictures)
    ]


def test_tasks_that_share_a_picture_stay_together(tmp_path: Path) -> None:
    tasks = tasks_over(tmp_path, ["a", "b", "ac", "d", "cb", "e", "f", "ef"])
    for seed in range(20):
        parts = split_tasks(random.Random(seed), tasks, 0.3, {task.id: () for task in tasks})
        test = {task.id for task in parts["test"]}
        assert test and len(test) + len(parts["train_cot"]) == len(tasks)
        for group in ({"0", "1", "2", "4"}, {"5", "6", "7"}):
            assert group <= test or not group & test


def test_each_trait_is_met_on_both_sides_where_two_groups_have_it(tmp_path: Path) -> None:
    tasks = tasks_over(tmp_path, list("abcdefghij"))
    # "rare" is in two groups, "only" in one, which therefore stays in training.
    traits = {task.id: {"common"} for task in tasks} | {
        "2": {"rare", "common"},
        "7": {"rare"},
        "5": {"only", "common"},
    }
    for seed in range(20):
        parts = split_tasks(random.Random(seed), tasks, 0.2, traits)
        met = {s: {t for task in part for t in traits[task.id]} for s, part in parts.items()}
        assert met == {"train_cot": {"common", "rare", "only"}, "test": {"common", "rare"}}
        assert len(parts["test"]) == 2


def test_both_sides_get_as_many_tasks_as_a_trait_needs(tmp_path: Path) -> None:
    tasks = tasks_over(tmp_path, list("abcdefghijkl"))
    traits = {task.id: {"tool"} if int(task.id) < 6 else set() for task in tasks}
    for seed in range(20):
        parts = split_tasks(random.Random(seed), tasks, 0.1, traits, {"tool": 3})
        assert sum("tool" in traits[task.id] for task in parts["test"]) == 3
        assert len(parts["test"]) == 3  # the share asks for one
    # Training comes first where there are too few for both.
    parts = split_tasks(random.Random(0), tasks, 0.1, traits, {"tool": 4})
    assert sum("tool" in traits[task.id] for task in parts["test"]) == 2


def test_groups_that_all_have_something_of_their_own_are_split_all_the_same(tmp_path: Path) -> None:
    tasks = tasks_over(tmp_path, list("abc"))
    parts = split_tasks(random.Random(0), tasks, 0.3, {task.id: {task.id} for task in tasks})
    assert len(parts["test"]) == 1 and len(parts["train_cot"]) == 2


def test_the_seed_fixes_the_split(tmp_path: Path) -> None:
    tasks = tasks_over(tmp_path, list("abcdefghij"))
    traits = {task.id: () for task in tasks}
    first, again, other = (split_tasks(random.Random(s), tasks, 0.4, traits) for s in (1, 1, 2))
    assert first == again != other


def test_tasks_that_all_share_pictures_cannot_be_split(tmp_path: Path) -> None:
    tasks = tasks_over(tmp_path, ["a", "a", "a"])
    with pytest.raises(UserError, match="source: 3 tasks make 1 group that shares no picture"):
        split_tasks(random.Random(0), tasks, 0.2, {task.id: () for task in tasks})
