"""Trees: the paper's constraint, reachability, the oracle, JSON."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.clevr.tree import Node, Tree, grow
from trimpi.errors import UserError


def thing(**values: str) -> dict[str, str]:
    return {"shape": "cube", "color": "red", "size": "large", "material": "rubber"} | values


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_no_attribute_is_tested_again_below_a_true_edge(seed: int, depth: int) -> None:
    for _, path in grow(random.Random(seed), depth).leaves():
        known: set[str] = set()
        tests = set()
        for step in path:
            assert step.attribute not in known
            assert (step.attribute, step.value) not in tests
            tests.add((step.attribute, step.value))
            if step.outcome:
                known.add(step.attribute)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_every_response_is_reached_by_the_scene_that_its_path_describes(
    seed: int, depth: int
) -> None:
    tree = grow(random.Random(seed), depth)
    for case, path in tree.leaves():
        allowed = {name: list(values) for name, values in ATTRIBUTES.items()}
        item = {}
        for step in path:
            if step.outcome:
                item[step.attribute] = step.value
            else:
                allowed[step.attribute].remove(step.value)
        first = {name: item.get(name, values[0]) for name, values in allowed.items()}
        assert tree.decide([first]) == (path, case)


def test_cases_are_unique_and_shuffled() -> None:
    trees = [grow(random.Random(seed), 4) for seed in range(20)]
    orders = [[case for case, _ in tree.leaves()] for tree in trees]
    assert all(sorted(order) == list(range(1, len(order) + 1)) for order in orders)
    assert any(order != sorted(order) for order in orders)


@pytest.mark.parametrize(
    ("depth", "responses"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 28), (6, 40), (7, 52), (8, 64)]
)
def test_number_of_responses_by_depth(depth: int, responses: int) -> None:
    assert {len(grow(random.Random(s), depth).leaves()) for s in range(20)} == {responses}


def test_oracle_on_a_tree_written_by_hand() -> None:
    leaf = [Node(case=number) for number in (7, 8, 9)]
    inner = Node("1.1", "material", "metal", leaf[0], leaf[1])
    tree = Tree(Node("1", "color", "blue", inner, leaf[2]), 2)
    assert tree.decide([thing()])[1] == 9
    # blue and metal need not be the same object: each node asks about the picture
    path, case = tree.decide([thing(color="blue"), thing(material="metal")])
    assert case == 7 and [step.condition for step in path] == ["1", "1.1"]
    assert tree.decide([thing(color="blue")])[1] == 8


def test_json_round_trip_and_bad_node() -> None:
    tree = grow(random.Random(3), 5)
    assert Tree.from_json(tree.to_json()) == tree
    record = tree.to_json()
    record["root"]["value"] = "plaid"
    with pytest.raises(UserError, match="plaid"):
        Tree.from_json(record)


@pytest.mark.parametrize("depth", [0, 9])
def test_depth_out_of_range(depth: int) -> None:
    with pytest.raises(UserError, match=r"outside 1\.\.8"):
        grow(random.Random(0), depth)
