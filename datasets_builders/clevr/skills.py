"""General skills on CLEVR pictures: tasks that need no internalized policy.

They serve twice: a small model learns them before any policy is injected, and the same tasks on
fresh pictures, before and after internalization, measure what it forgot. Tasks: `name` (all
objects from left to right), `exist`, `attribute`, `count`, `policy_N` (follow a *random* policy of
depth N that is in context) and `recital` (quote a condition of a policy that is in context).
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from datasets_builders.clevr import wording
from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.clevr.tree import Tree, grow
from trimpi.policy import Policy

PICTURE_TASKS = ("name", "exist", "attribute", "count")


@dataclass(frozen=True)
class Task:
    """One request about a scene; `policy` is shown in context, `rationale` asks for reasoning."""

    kind: str
    query: str
    answer: str
    policy: Policy | None = None
    rationale: str | None = None
    needs_picture: bool = True


def draw(rng: random.Random, kind: str, scene: Mapping[str, Any]) -> Task:
    """Draw a task of one kind about a scene (CLEVR scene JSON).

    Raises:
        KeyError: unknown kind.
    """
    if kind.startswith("policy_"):
        return _follow(rng, scene, int(kind.removeprefix("policy_")))
    if kind == "recital":
        return _recite(rng)
    query, answer = {"name": _name, "exist": _exist, "attribute": _attribute, "count": _count}[
        kind
    ](rng, scene["objects"])
    return Task(kind, query, answer)


def _name(rng: random.Random, objects: list[dict[str, Any]]) -> tuple[str, str]:
    ordered = sorted(objects, key=lambda item: (item["pixel_coords"][0], item["pixel_coords"][1]))
    names = [f"{o['size']} {o['color']} {o['material']} {o['shape']}" for o in ordered]
    return "Name all objects from left to right.", ", ".join(names)


def _exist(rng: random.Random, objects: list[dict[str, Any]]) -> tuple[str, str]:
    attribute = rng.choice(tuple(ATTRIBUTES))
    present = sorted({item[attribute] for item in objects})
    absent = [value for value in ATTRIBUTES[attribute] if value not in present]
    yes = rng.random() < 0.5 or not absent
    value = rng.choice(present if yes else absent)
    text = wording.question(attribute, value)
    return text[0].upper() + text[1:], "Yes" if yes else "No"


def _attribute(rng: random.Random, objects: list[dict[str, Any]]) -> tuple[str, str]:
    item = rng.choice(objects)
    unique = [
        name for name in ATTRIBUTES if sum(other[name] == item[name] for other in objects) == 1
    ]
    if not unique:
        return _exist(rng, objects)
    by = rng.choice(unique)
    asked = rng.choice([name for name in ATTRIBUTES if name != by])
    thing = item[by] if by == "shape" else f"{item[by]} object"
    return f"What is the {asked} of the {thing}?", item[asked]


def _count(rng: random.Random, objects: list[dict[str, Any]]) -> tuple[str, str]:
    attribute = rng.choice(tuple(ATTRIBUTES))
    value = rng.choice(objects)[attribute]
    thing = f"{value}s" if attribute == "shape" else f"{value} objects"
    return f"How many {thing} are there?", str(sum(o[attribute] == value for o in objects))


def _follow(rng: random.Random, scene: Mapping[str, Any], depth: int) -> Task:
    wished = [rng.random() < 0.5 for _ in range(depth)]
    best: Tree | None = None
    agreement = -1
    for _ in range(6):
        tree = grow(rng, depth)
        path, _ = tree.decide(scene["objects"])
        agree = sum(step.outcome == wish for step, wish in zip(path, wished, strict=False))
        if agree > agreement:
            best, agreement = tree, agree
    assert best is not None
    name = wording.made_up_name(rng)
    path, case = best.decide(scene["objects"])
    return Task(
        f"policy_{depth}",
        wording.query(rng, name),
        wording.answer(case),
        wording.write_policy(rng, name, best),
        wording.rationale(path, case),
    )


def _recite(rng: random.Random) -> Task:
    name = wording.made_up_name(rng)
    policy = wording.write_policy(rng, name, grow(rng, rng.choice((1, 2, 2, 3))))
    condition = rng.choice(sorted(policy.metadata["conditions"]))
    return Task(
        "recital",
        wording.recital_query(name, condition),
        policy.metadata["conditions"][condition],
        policy,
        needs_picture=False,
    )
