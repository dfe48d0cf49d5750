"""General skill tasks: answers are true of the scene."""

import random

import pytest

from datasets_builders.clevr import skills

SCENE = {
    "objects": [
        {
            "shape": "cube",
            "color": "red",
            "size": "large",
            "material": "metal",
            "pixel_coords": [70, 30, 9],
        },
        {
            "shape": "sphere",
            "color": "blue",
            "size": "small",
            "material": "metal",
            "pixel_coords": [20, 30, 9],
        },
    ]
}


def test_names_run_from_left_to_right() -> None:
    task = skills.draw(random.Random(0), "name", SCENE)
    assert task.answer == "small blue metal sphere, large red metal cube"


def test_existence_answers_are_true_and_balanced() -> None:
    rng = random.Random(0)
    text = "small blue metal sphere large red metal cube"
    answers = []
    for _ in range(200):
        task = skills.draw(rng, "exist", SCENE)
        value = task.query.removeprefix("Is there a ").split()[0].rstrip("?")
        assert (value in text.split()) == (task.answer == "Yes")
        answers.append(task.answer)
    assert 60 < answers.count("Yes") < 140


def test_attribute_questions_name_one_object() -> None:
    rng = random.Random(0)
    seen = {}
    for _ in range(300):
        task = skills.draw(rng, "attribute", SCENE)
        seen[task.query] = task.answer
    assert seen["What is the color of the cube?"] == "red"
    assert seen["What is the shape of the small object?"] == "sphere"
    assert not any("the metal object" in query for query in seen)


def test_counts() -> None:
    rng = random.Random(0)
    seen = {}
    for _ in range(100):
        task = skills.draw(rng, "count", SCENE)
        seen[task.query] = task.answer
    assert (
        seen["How many metal objects are there?"] == "2"
        and seen["How many cubes are there?"] == "1"
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_random_policies_stand_in_context_with_the_oracles_answer(depth: int) -> None:
    task = skills.draw(random.Random(4), f"policy_{depth}", SCENE)
    assert task.policy is not None and task.policy.name in task.query
    assert task.rationale is not None and task.rationale.endswith(f"the response is {task.answer}.")
    assert (
        task.rationale.count("Condition 1") >= 1
        and len(task.policy.metadata["conditions"]) >= depth
    )


def test_recital_quotes_the_policy() -> None:
    task = skills.draw(random.Random(4), "recital", SCENE)
    assert task.policy is not None and task.answer in task.policy.text and not task.needs_picture


def test_unknown_kind() -> None:
    with pytest.raises(KeyError):
        skills.draw(random.Random(0), "sing", SCENE)
