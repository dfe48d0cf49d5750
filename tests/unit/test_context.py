"""Rows beyond the context are found before the first stage, also those that come last."""

from pathlib import Path
from typing import Any

import pytest

from trimpi.context import check_context
from trimpi.errors import UserError
from trimpi.recipe import Recipe
from trimpi.sample import DataFolder


def recipe_of(model: Path, data: DataFolder, **changes: Any) -> Recipe:
    raw = {
        "name": "r",
        "model": {"path": str(model)},
        "data": {"folder": str(data.root)},
        "stages": {"cpt": {"split": "train"}, "rl": {"split": "train", "max_new_tokens": 64}},
        "evaluation": {"settings": ["no_policy", "in_context"], "split": "train"},
    }
    return Recipe.model_validate({**raw, **changes})


def test_rows_that_fit_pass(qwen: Path, data: DataFolder) -> None:
    check_context(recipe_of(qwen, data), qwen, data, None)


def test_a_later_stage_is_named_with_its_row(qwen: Path, data: DataFolder) -> None:
    stages = {"cpt": {"split": "train"}, "rl": {"split": "train", "max_new_tokens": 4000}}
    message = r"stages\.rl: train: row 'train-0': .* completion 4000\) exceed .*; lower max_new"
    with pytest.raises(UserError, match=message) as caught:
        check_context(recipe_of(qwen, data, stages=stages), qwen, data, None)
    assert "stages.cpt" not in str(caught.value)


def test_the_evaluation_is_named_by_setting(qwen: Path, data: DataFolder) -> None:
    asked = {"settings": ["no_policy", "in_context"], "split": "train", "max_new_tokens": 4030}
    with pytest.raises(UserError, match=r"evaluation\.in_context: row 'train-0'"):
        check_context(recipe_of(qwen, data, evaluation=asked), qwen, data, None)


def test_a_bad_picture_is_named_with_its_row(qwen: Path, data: DataFolder) -> None:
    sample = data.read("train")[0]
    Path(sample.images[0]).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"stages\.cpt: train: row '.*': .*not a readable picture"):
        check_context(recipe_of(qwen, data), qwen, data, None)


def test_a_stage_outside_of_all_arms_is_not_asked(qwen: Path, data: DataFolder) -> None:
    stages = {"cpt": {"split": "train"}, "rl": {"split": "train", "max_new_tokens": 4000}}
    recipe = recipe_of(qwen, data, stages=stages, arms={"main": ["cpt"]})
    check_context(recipe, qwen, data, None)
