"""A stage in processes of its own: the job goes over in a file, faults come back as one line."""

import sys
from pathlib import Path
from typing import Any

import pytest

from trimpi.errors import UserError
from trimpi.launch import run_stage
from trimpi.recipe import Recipe
from trimpi.runs import read_json
from trimpi.sample import DataFolder


@pytest.fixture
def recipe(qwen: Path, data: DataFolder) -> Recipe:
    """One short stage, started by a launcher that is plain Python."""
    stage = {"lora": None, "max_steps": 1, "batch_size": 2, "micro_batch_size": 2, "lr": 0.01}
    raw: dict[str, Any] = {
        "name": "r",
        "launcher": sys.executable,
        "model": {"path": str(qwen)},
        "data": {"folder": str(data.root)},
        "stages": {"sft": stage},
    }
    return Recipe.model_validate(raw)


def test_a_launched_stage_leaves_what_the_same_stage_here_leaves(
    recipe: Recipe, qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    here = recipe.model_copy(update={"launcher": None})
    for name, how in (("there", recipe), ("here", here)):
        model = run_stage(how, how.stages["sft"], qwen, data.root, tmp_path / name, 7)
        assert model == tmp_path / name / "model"
    stages = [read_json(tmp_path / name / "stage.json") for name in ("there", "here")]
    assert stages[0]["output_digest"] == stages[1]["output_digest"]
    assert stages[0]["seed"] == 7
    assert (tmp_path / "there" / "job.json").is_file()
    assert not (tmp_path / "here" / "job.json").exists()


def test_a_fault_in_a_launched_stage(
    recipe: Recipe, qwen: Path, data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data.root / "train_cot.jsonl").unlink()
    with pytest.raises(UserError, match="the stage's processes ended with code 2"):
        run_stage(recipe, recipe.stages["sft"], qwen, data.root, tmp_path / "out", 0)
    said = capfd.readouterr().err
    assert "train_cot.jsonl: no such split" in said and "Traceback" not in said


def test_a_launcher_that_is_not_there(
    recipe: Recipe, qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    missing = recipe.model_copy(update={"launcher": "no-such-launcher --x"})
    with pytest.raises(UserError, match="launcher: no command 'no-such-launcher'"):
        run_stage(missing, missing.stages["sft"], qwen, data.root, tmp_path / "out", 0)
