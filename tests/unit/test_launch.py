"""A stage in processes of its own: the job goes over in a file, faults come back as one line."""

import os
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


def missing_split_is_told(
    recipe: Recipe, qwen: Path, data: DataFolder, out: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one line, once, and without a traceback."""
    with pytest.raises(UserError) as caught:
        run_stage(recipe, recipe.stages["sft"], qwen, data.root, out, 0)
    line = str(caught.value)
    assert "train_cot.jsonl: no such split" in line and len(line.splitlines()) == 1
    assert "Traceback" not in capfd.readouterr().err


def test_a_fault_in_a_launched_stage(
    recipe: Recipe, qwen: Path, data: DataFolder, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (data.root / "train_cot.jsonl").unlink()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "fault-1.txt").write_text("what an earlier try has left")
    missing_split_is_told(recipe, qwen, data, tmp_path / "out", capfd)


def test_a_fault_of_two_processes_is_told_once(
    recipe: Recipe,
    qwen: Path,
    data: DataFolder,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    (data.root / "train_cot.jsonl").unlink()
    two = recipe.model_copy(update={"launcher": None, "devices": 2, "parallel": "ddp"})
    missing_split_is_told(two, qwen, data, tmp_path / "out", capfd)


def test_one_of_two_processes_is_killed(
    recipe: Recipe,
    qwen: Path,
    data: DataFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """By the kernel, say, where memory runs out: its own launcher says nothing but 1."""
    kill = "import os\nif os.environ.get('RANK') == '1':\n    os.kill(os.getpid(), 9)\n"
    (tmp_path / "sitecustomize.py").write_text(kill)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    two = recipe.model_copy(update={"launcher": None, "devices": 2})
    with pytest.raises(UserError, match="were killed, most likely because memory ran out; lower"):
        run_stage(two, two.stages["sft"], qwen, data.root, tmp_path / "out", 0)
    assert "Traceback" not in capfd.readouterr().err


def test_a_launcher_that_is_not_there(
    recipe: Recipe, qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    missing = recipe.model_copy(update={"launcher": "no-such-launcher --x"})
    with pytest.raises(UserError, match="launcher: no command 'no-such-launcher'"):
        run_stage(missing, missing.stages["sft"], qwen, data.root, tmp_path / "out", 0)
