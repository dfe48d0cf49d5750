"""`trimpi init` and then `trimpi run`: every stage and the report, cut to a few steps."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from datasets_builders.starter import project
from trimpi.cli import app


def test_a_new_project_runs_to_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "ROWS", 40)
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    assert runner.invoke(app, ["init", "shop"]).exit_code == 0
    cuts = [
        "stages.cpt.max_steps=2", "stages.sft.max_steps=2", "stages.rl.max_steps=1",
        "stages.cpt.batch_size=8", "stages.cpt.micro_batch_size=8",
        "stages.sft.batch_size=8", "stages.sft.micro_batch_size=8",
        "stages.rl.prompts_per_step=2", "stages.rl.group_size=4", "stages.rl.micro_batch_size=4",
        "stages.rl.max_new_tokens=16", "stages.rl.preflight_prompts=0",
        "evaluation.max_new_tokens=16", "evaluation.limit=4",
    ]  # fmt: skip
    words = [word for cut in cuts for word in ("--set", cut)]
    result = runner.invoke(app, ["run", "shop/recipe.yaml", *words])
    assert result.exit_code == 0, result.output
    report = tmp_path / "runs" / "shop" / "report"
    assert json.loads((report / "summary.json").read_text())["name"] == "shop"
    assert (report / "report.html").is_file()
