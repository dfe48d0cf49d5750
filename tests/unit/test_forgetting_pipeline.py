"""Replay and interpolation in a run: who gets what, and what a finished stage depends on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.general_cases import general_folder, read_rows, write_rows
from tests.unit.test_pipeline import log, recipe  # noqa: F401  fixtures
from trimpi.checks import check_recipe
from trimpi.console import print_findings
from trimpi.errors import UserError
from trimpi.identities import YOUNGER
from trimpi.launch import run_stage
from trimpi.pipeline import run_recipe
from trimpi.recipe import Recipe
from trimpi.report.costs import costs
from trimpi.report.load import load_run
from trimpi.runs import model_digest, read_json

Make = Callable[..., Recipe]


def replayed(recipe: Make, root: Path, ratio: float = 0.25, **more: Any) -> Recipe:  # noqa: F811
    stages = {"cpt": {}, "sft": {"replay_ratio": ratio}, "rl": {}}
    return recipe(stages=stages, replay={"folder": str(root)}, **more)


def test_general_examples_count_for_the_stages_that_use_them(
    recipe: Make,  # noqa: F811
    log: list[str],  # noqa: F811
    tmp_path: Path,
) -> None:
    folder, run = general_folder(tmp_path / "general"), tmp_path / "run"
    said: list[str] = []
    run_recipe(replayed(recipe, folder.root), run, say=said.append)
    assert any(line.startswith(f"replay: {folder.root}") for line in said)
    assert "replay" in read_json(run / "seed-0" / "sft+rl" / "started.json")
    assert "replay" not in read_json(run / "seed-0" / "cpt" / "started.json")
    rows = read_rows(folder.root)
    write_rows(folder.root, [{**rows[0], "answer": "teal"}, *rows[1:]])
    with pytest.raises(UserError) as caught:
        run_recipe(replayed(recipe, folder.root), run, say=said.append)
    faulty = {line.split(":")[0].rpartition("seed-0/")[2] for line in str(caught.value).split("\n")}
    assert "sft" in faulty and "cpt" not in faulty and "cpt+sft" in faulty


def test_older_runs_know_their_stages_again(
    recipe: Make,  # noqa: F811
    log: list[str],  # noqa: F811
    tmp_path: Path,
) -> None:
    run_recipe(recipe(), tmp_path / "run", say=[].append)
    young = {key for name, (_, more) in YOUNGER.items() for key in (name, *more)}
    assert {"replay_ratio", "kl_reference", "instance_filter", "filter_solved"} < young
    for chain in ("sft", "sft+rl", "cpt"):
        identity = read_json(tmp_path / "run" / "seed-0" / chain / "started.json")
        assert set(identity) == {"stages", "model", "data", "grader", "seed"}
        assert not any(young & set(stage) for stage in identity["stages"])


def test_a_measured_row_stops_a_run_before_training(
    recipe: Make,  # noqa: F811
    log: list[str],  # noqa: F811
    tmp_path: Path,
) -> None:
    ours, theirs = (general_folder(tmp_path / name) for name in ("ours", "theirs"))
    evaluation = {"settings": ["skills"], "skills": {"folder": str(theirs.root)}}
    asked = replayed(recipe, ours.root, evaluation=evaluation)
    with pytest.raises(UserError, match="replay: 4 of 4 rows have the request or a picture"):
        run_recipe(asked, tmp_path / "run", say=[].append)
    assert log == []
    problems = check_recipe(asked, tmp_path / "run", estimates=False).problems
    assert any(line.startswith("replay: 4 of 4 rows") for line in problems)


def test_a_dry_run_counts_general_examples(
    recipe: Make,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = general_folder(tmp_path / "general")
    found = check_recipe(replayed(recipe, folder.root), tmp_path / "run", estimates=False)
    assert found.rows["replay"] == {"test": 4}
    with (tmp_path / "out").open("w") as file:
        console = Console(record=True, width=160, file=file)
        print_findings(console, found)
    said = console.export_text()
    assert "sft: (8 rows + 3 general) x 5 epochs = 5 updates of 64 rows" in said


def test_an_interpolation_is_a_stage_of_an_arm(
    recipe: Make,  # noqa: F811
    log: list[str],  # noqa: F811
    tmp_path: Path,
) -> None:
    """The real stage: the base and what entered are recorded, and costs add up."""
    stages = {"sft": {}, "half": {"kind": "interpolate", "weight": 0.5}}
    made = recipe(stages=stages, arms={"long": ["sft"], "mixed": ["sft", "half"]})
    said: list[str] = []
    run_recipe(made, tmp_path / "run", say=said.append)
    folder = tmp_path / "run" / "seed-0" / "sft+half"
    stage = read_json(folder / "stage.json")
    assert (stage["stage"], stage["config"]["weight"], stage["steps"]) == ("interpolate", 0.5, 0)
    assert stage["base"]["digest"] == model_digest(tmp_path / "base")
    assert stage["model"]["digest"] == model_digest(tmp_path / "run" / "seed-0" / "sft" / "model")
    assert stage["output_digest"] == model_digest(folder / "model")
    assert any(line.startswith("sft+half: made in") for line in said)
    assert "0:eval cot sft+half" in log
    run_recipe(made, tmp_path / "run", say=said.append)
    assert "sft+half: done already, skipped" in said
    stages_read = {stage.chain: stage for stage in load_run(tmp_path / "run").stages}
    assert stages_read["sft", "half"].kind == "interpolate"
    assert isinstance(costs(load_run(tmp_path / "run")), dict)


def test_an_interpolation_needs_no_devices(
    recipe: Make,  # noqa: F811
    log: list[str],  # noqa: F811
    tmp_path: Path,
) -> None:
    made = recipe(
        stages={"sft": {}, "half": {"kind": "interpolate", "weight": 0.5}},
        arms={"mixed": ["sft", "half"]},
        launcher="command-that-is-not-there",
    )
    base = tmp_path / "base"
    run_stage(made, made.stages["half"], base, base, tmp_path / "out", 0, base=base)
    assert (tmp_path / "out" / "stage.json").is_file()
