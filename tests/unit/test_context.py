"""Rows beyond the context are found before the first stage, also those that come last."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import add_texts
from tests.general_cases import general_folder, read_rows, write_rows
from trimpi.budget import policy_tokens
from trimpi.checks import check_recipe
from trimpi.context import check_context, long_policies
from trimpi.errors import UserError
from trimpi.identities import stage_identity
from trimpi.memory import read_size
from trimpi.processor import load_processor
from trimpi.recipe import CptConfig, Recipe, RlConfig
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


def test_a_policy_beyond_the_context_is_one_line_with_all_that_show_it(
    qwen: Path, data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = data.root / "policies" / "lumen.json"
    record = json.loads(file.read_text())
    record["parts"].append({"type": "text", "text": "word " * 9000})
    file.write_text(json.dumps(record))
    monkeypatch.setattr("trimpi.context.token_budget", None)  # no row is counted
    monkeypatch.setattr("trimpi.token_estimate.token_budget", None)
    stages = {"cpt": {"batch_size": 4}, "sft": {"show_policy": True, "batch_size": 4}}
    recipe = recipe_of(qwen, data, stages=stages)
    (told,) = check_recipe(recipe, tmp_path / "run").problems
    assert told.startswith("policy 'lumen': ") and "of text, " in told
    shows = "in every prompt of stages.cpt, stages.sft, evaluation.in_context; the model's context"
    assert shows in told and told.endswith("take a model with a longer context")
    with pytest.raises(UserError) as caught:
        check_context(recipe, qwen, DataFolder(data.root), None)
    assert str(caught.value) == told
    unseen = {"sft": {"split": "train", "target": "answer"}}
    asked = {"settings": ["no_policy"], "split": "train"}
    recipe = recipe_of(qwen, data, stages=unseen, evaluation=asked)
    limit = read_size(qwen).context
    assert long_policies(recipe, load_processor(qwen, recipe.model), data, limit) == []


def test_a_policy_that_leaves_no_room_for_rows_is_told_once_a_place(
    qwen: Path, data: DataFolder
) -> None:
    file = data.root / "policies" / "lumen.json"
    record = json.loads(file.read_text())
    processor = load_processor(qwen, recipe_of(qwen, data).model)
    text, pictures = policy_tokens(processor, data.policies["lumen"])
    limit = read_size(qwen).context
    assert limit is not None
    per_word = len(processor.tokenizer("a " * 1000)["input_ids"]) / 1000
    more = int((limit - text - pictures - 8) / per_word)
    record["parts"].append({"type": "text", "text": "a " * more})
    file.write_text(json.dumps(record))
    changed = DataFolder(data.root)
    assert limit * 0.9 < sum(policy_tokens(processor, changed.policies["lumen"])) < limit
    rows = len(changed.read("train"))
    with pytest.raises(UserError) as caught:
        check_context(recipe_of(qwen, changed), qwen, changed, None)
    told = str(caught.value).splitlines()
    assert len(told) == 3 < rows
    for line, place in zip(told, ("stages.cpt: train", "stages.rl: train"), strict=False):
        assert line.startswith(f"{place}: policy 'lumen': row 'train-")
        assert f" and {rows - 1} more: " in line and "shorten the policy" in line
    assert told[2].startswith("evaluation.in_context: policy 'lumen': row 'train-")


def test_a_text_that_is_too_long_is_named(qwen: Path, data: DataFolder) -> None:
    file = add_texts(data).root / "policy_text.jsonl"
    file.write_text(file.read_text().replace("is there a red", "is there a red" * 2000, 1))
    stages = {"cpt": {"split": "train", "texts": "policy_text"}}
    with pytest.raises(UserError, match=r"stages\.cpt: policy_text: row 'text-0': .*shorten the"):
        check_context(recipe_of(qwen, data, stages=stages), qwen, data, None)


def test_a_general_example_that_is_too_long_is_named(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    replay = general_folder(tmp_path / "general")
    rows = read_rows(replay.root)
    more = {"stages": {"cpt": {"replay_ratio": 0.5}}, "evaluation": {"settings": ["no_policy"]}}
    recipe = recipe_of(qwen, data, replay={"folder": str(replay.root)}, **more)
    check_context(recipe, qwen, data, None, replay)
    found = check_recipe(recipe, tmp_path / "run")
    assert found.problems == []
    rows[1]["answer"] = "long " * 300
    write_rows(replay.root, rows)
    longer = check_recipe(recipe, tmp_path / "run").stages[0].training_tokens
    assert longer > found.stages[0].training_tokens
    rows[0]["query"] = "What? " * 4000
    write_rows(replay.root, rows)
    with pytest.raises(
        UserError, match=r"replay: row 'general-0': .* exceed .*; shorten the query"
    ):
        check_context(recipe, qwen, data, None, replay)
    rows[0]["query"] = "<|im_end|>"
    write_rows(replay.root, rows)
    with pytest.raises(UserError, match=r"replay: row 'general-0': .* is a control token"):
        check_context(recipe, qwen, data, None, replay)


def test_control_tokens_and_other_faults_of_all_rows_are_told_at_once(
    qwen: Path, data: DataFolder
) -> None:
    file = data.root / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[0]["query"] += "<|im_end|>\n<|im_start|>system"
    rows[1]["answer"] = "<|vision_start|>"
    (data.root / rows[2]["images"][0]).write_bytes(b"none")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = {"settings": ["no_policy"], "split": "test"}
    recipe = recipe_of(qwen, data, stages={"cpt": {"split": "train"}}, evaluation=asked)
    with pytest.raises(UserError) as caught:
        check_context(recipe, qwen, DataFolder(data.root), None)
    told = str(caught.value).splitlines()
    cure = "is a control token of the model, not text; write it in another way"
    assert f"stages.cpt: train: row 'train-0': '<|im_end|>' {cure}" in told
    assert f"stages.cpt: train: row 'train-1': '<|vision_start|>' {cure}" in told
    assert any(
        line.startswith("stages.cpt: train: row 'train-2':") and "not a readable" in line
        for line in told
    )


def test_a_dry_run_knows_the_texts(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    file = add_texts(data).root / "policy_text.jsonl"
    stages = {"cpt": {"split": "train_cot", "texts": "policy_text", "batch_size": 4}}
    recipe = recipe_of(qwen, data, stages=stages)
    found = check_recipe(recipe, tmp_path / "run")
    assert found.problems == []
    assert "(8 rows + 3 texts) x 5 epochs = 15 updates" in found.stages[0].schedule.arithmetic
    file.write_text(file.read_text().replace("is there a red object?", "", 1))
    (told,) = check_recipe(recipe, tmp_path / "run").problems
    assert told == f"{file}:1: is a text with an empty answer; write one, or drop the row"
    file.unlink()
    (told,) = check_recipe(recipe, tmp_path / "run").problems
    assert told.startswith("stages.cpt.texts: the data have no split 'policy_text'")
    assert "their argument policy_text" in told


def test_a_teacher_of_an_older_run_is_the_same_teacher() -> None:
    settings = {"kind": "rl", "group_size": 4, "prompts_per_step": 4, "max_new_tokens": 32}
    old, new = ({"weight": 0.1}, {"weight": 0.1, "while_ahead": True})
    found = [stage_identity(RlConfig(**settings, teacher=teacher)) for teacher in (old, new)]
    assert found[0]["teacher"] == {"weight": 0.1, "kl_clip": 1.0}
    assert found[1]["teacher"]["while_ahead"] is True


def test_texts_are_part_of_a_stages_identity_where_there_are_some() -> None:
    plain, mixed = CptConfig(), CptConfig(texts="policy_text")
    assert "texts" not in stage_identity(plain)  # as in runs from before there were texts
    assert stage_identity(mixed)["texts_epochs"] == 1
    twice = CptConfig(texts="policy_text", texts_epochs=2)
    assert stage_identity(mixed) != stage_identity(twice)


def test_a_bad_picture_is_named_with_its_row(qwen: Path, data: DataFolder) -> None:
    sample = data.read("train")[0]
    Path(sample.images[0]).write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"stages\.cpt: train: row '.*': .*not a readable picture"):
        check_context(recipe_of(qwen, data), qwen, data, None)


def test_a_stage_outside_of_all_arms_is_not_asked(qwen: Path, data: DataFolder) -> None:
    stages = {"cpt": {"split": "train"}, "rl": {"split": "train", "max_new_tokens": 4000}}
    recipe = recipe_of(qwen, data, stages=stages, arms={"main": ["cpt"]})
    check_context(recipe, qwen, data, None)
