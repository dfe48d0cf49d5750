"""Graders from the recipe to where they are used: dry run, stages, evaluation, identity."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.rl_cases import rl_config
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.evaluate import regrade
from trimpi.evaluate.runner import run_setting
from trimpi.evaluate.settings import build_requests
from trimpi.evaluate.store import read_rows
from trimpi.generate import Generated
from trimpi.graders import make_grader
from trimpi.launch import run_stage
from trimpi.recipe import Recipe
from trimpi.runs import read_json, read_metrics
from trimpi.sample import DataFolder

CHOICE: dict[str, Any] = {"type": "choice", "options": ["Case 1", "Case 2"]}
FAILING: set[str] = set()


def by_length(prompts: Any, completions: Any, answer: Any, id: Any, **kwargs: Any) -> list[float]:
    """A reward function that differs within a group of random completions, and may fail."""
    assert all(prompt[0]["role"] == "user" for prompt in prompts)
    return [
        math.nan
        if name in FAILING
        else 1.0
        if gold in turns[0]["content"]
        else len(turns[0]["content"]) % 5 / 5
        for turns, gold, name in zip(completions, answer, id, strict=True)
    ]


REWARD = f"{__name__}:by_length"


def recipe_of(qwen: Path, data: dict[str, Any], grader: Any, **more: Any) -> Recipe:
    raw = {"name": "r", "model": {"path": str(qwen)}, "data": data, "grader": grader}
    return Recipe.model_validate({**raw, **more})


def dry_run(folder: Path, recipe: Recipe) -> tuple[int, list[str]]:
    file = folder / "recipe.yaml"
    file.write_text(recipe.model_dump_json())  # JSON is YAML
    words = ["run", str(file), "--dry-run", "--output", str(folder / "run")]
    result = CliRunner().invoke(app, words)
    assert not (folder / "run").exists() and "Traceback" not in result.output
    return result.exit_code, result.stderr.splitlines()


SMALL = {
    "stages": {
        "sft": {"batch_size": 4, "lora": {"r": 2}},
        "rl": {"prompts_per_step": 2, "group_size": 4, "micro_batch_size": 4, "max_new_tokens": 8},
    },
    "evaluation": {"settings": ["no_policy"], "max_new_tokens": 8},
}


def test_a_dry_run_finds_labels_that_the_grader_does_not_know(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    recipe = recipe_of(qwen, {"folder": str(data.root)}, CHOICE, **SMALL)
    assert dry_run(tmp_path, recipe) == (0, [])
    for split, row, answer in (("train", 2, "Case 3"), ("test", 7, "maybe")):
        file = data.root / f"{split}.jsonl"
        lines = file.read_text().splitlines()
        lines[row] = json.dumps({**json.loads(lines[row]), "answer": answer})
        file.write_text("\n".join(lines) + "\n")
    code, found = dry_run(tmp_path, recipe)
    assert code == 2
    assert found == [
        f"error: {data.root}/train.jsonl:3: grader choice: row 'train-2': answer 'Case 3' is none "
        "of the 2 options (one of Case 1, Case 2); did you mean 'Case 2'?",
        f"error: {data.root}/test.jsonl:8: grader choice: row 'test-7': answer 'maybe' is none of "
        "the 2 options (one of Case 1, Case 2); correct it, or add it",
    ]


def test_a_dry_run_asks_the_answers_of_a_builder(qwen: Path, tmp_path: Path) -> None:
    args = {"policies": 1, "depth": 1, "profile": "tiny", "workers": 1, "train": 8, "train_cot": 8,
            "test": 8, "override": None}  # fmt: skip
    data = {"builder": "datasets_builders.clevr.builder:build", "args": args}
    assert dry_run(tmp_path, recipe_of(qwen, data, CHOICE, **SMALL)) == (0, [])
    other = {"type": "choice", "options": ["Case 1", "Case 7"]}
    code, found = dry_run(tmp_path, recipe_of(qwen, data, other, **SMALL))
    assert code == 2 and found
    assert all(line.startswith("error: data: t") and "none of the 2 opt" in line for line in found)


def test_a_dry_run_tries_a_reward_function(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    recipe = recipe_of(qwen, {"folder": str(data.root)}, REWARD, **SMALL)
    assert dry_run(tmp_path, recipe) == (0, [])
    FAILING.add("test-1")
    try:
        code, (line,) = dry_run(tmp_path, recipe)
    finally:
        FAILING.clear()
    start = f"error: {data.root}/test.jsonl:2: grader {REWARD}: row 'test-1': gave the value nan;"
    assert code == 2 and line.startswith(start)


@pytest.mark.parametrize("grader", [CHOICE, REWARD])
def test_a_stage_of_rl(qwen: Path, data: DataFolder, tmp_path: Path, grader: Any) -> None:
    """Under the declared grader no random completion is right; form and accuracy are zero."""
    config = rl_config(max_steps=1)
    recipe = recipe_of(qwen, {"folder": str(data.root)}, grader, stages={"rl": {}})
    run_stage(recipe, config, qwen, data.root, tmp_path / "rl", 0)
    (row,) = read_metrics(tmp_path / "rl")
    assert (row["rollout/free/accuracy"] > 0) == (grader == REWARD)
    assert row["rollout/unscorable"] == 0


def test_a_reward_that_fails_stops_rl(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    recipe = recipe_of(qwen, {"folder": str(data.root)}, REWARD, stages={"rl": {}})
    FAILING.update(f"train-{i}" for i in range(8))
    try:
        with pytest.raises(UserError) as raised:
            run_stage(recipe, rl_config(), qwen, data.root, tmp_path / "rl", 0)
    finally:
        FAILING.clear()
    (line,) = str(raised.value).splitlines()  # one for the group of completions of a row
    assert line.startswith(f"{data.root}/train.jsonl:1: grader {REWARD}: row 'train-0': gave the")
    assert not (tmp_path / "rl" / "stage.json").exists()


def test_a_declared_grader_goes_over_to_processes_of_their_own(
    qwen: Path, data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.run", lambda *args, **kwargs: SimpleNamespace(returncode=0))
    folder, stages = {"folder": str(data.root)}, {"sft": {}}
    recipe = recipe_of(qwen, folder, CHOICE, stages=stages, devices=2)
    run_stage(recipe, recipe.stages["sft"], qwen, data.root, tmp_path / "sft", 0)
    job = read_json(tmp_path / "sft" / "job.json")
    assert make_grader(job["grader"]).identity == make_grader(CHOICE).identity


def evaluated(data: DataFolder, output: Path, grader: Any, asked: list[int]) -> dict[str, Any]:
    def generate(prompts: Any, **options: Any) -> list[Generated]:
        asked.append(len(prompts))
        return [Generated("\\boxed{Case 1}", 3, False) for _ in prompts]

    requests = build_requests("no_policy", data, None, target="answer")
    return run_setting("no_policy", requests, output, root=data.root, generate=lambda: generate,
                       identity={}, grader=make_grader(grader), max_new_tokens=8)  # fmt: skip


def test_completions_outlive_a_grader_that_fails(data: DataFolder, tmp_path: Path) -> None:
    output, asked = tmp_path / "eval" / "no_policy", []
    FAILING.update(("test-3", "test-5"))
    try:
        with pytest.raises(UserError) as raised:
            evaluated(data, output, REWARD, asked)
    finally:
        FAILING.clear()
    found = [line.partition(": gave")[0] for line in str(raised.value).splitlines()]
    assert found == [
        f"{output}/completions.jsonl:{row + 1}: grader {REWARD}: row 'test-{row}'" for row in (3, 5)
    ]
    assert len(read_rows(output / "completions.jsonl")) == 8
    assert not (output / "scores.jsonl").exists() and not (output / "summary.json").exists()
    assert regrade(output, make_grader(CHOICE))["accuracy"]["value"] == 2 / 8
    assert evaluated(data, output, REWARD, asked)["accuracy"]["value"] > 2 / 8
    assert asked == [8]


def test_scores_name_the_declaration_that_they_are_of(data: DataFolder, tmp_path: Path) -> None:
    asked: list[int] = []
    first = evaluated(data, tmp_path / "no_policy", CHOICE, asked)
    more = {**CHOICE, "options": ["Case 1", "Case 2", "Case 3"]}
    second = evaluated(data, tmp_path / "no_policy", more, asked)
    assert asked == [8]
    assert first["identity"]["grader"] == make_grader(CHOICE).identity
    assert second["identity"]["grader"] == make_grader(more).identity
    assert first["grading"] == "answers are compared as one of Case 1, Case 2"
