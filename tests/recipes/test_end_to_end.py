"""A whole recipe on a tiny random model through the command line; killed and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimpi.cli import app
from trimpi.runs import model_digest, read_json

ROOT = Path(__file__).resolve().parents[2]

RECIPE = """
name: whole
model: {{path: {model}}}
data:
  builder: datasets_builders.clevr.builder:build
  args: {{depth: 2, policies: 2, train: 4, train_cot: 6, test: 3, override: 2, profile: tiny,
         workers: 1}}
grader: datasets_builders.clevr.grader:grade
stages:
  cpt: {{batch_size: 4, micro_batch_size: 2, lr: 1e-3}}
  sft: {{batch_size: 4, micro_batch_size: 4, epochs: 6, lr: 1e-2, lora: {{r: 2}}, save_steps: 1}}
  rl:
    {{prompts_per_step: 2, group_size: 4, micro_batch_size: 4, max_steps: 2, updates_per_rollout: 2,
     max_new_tokens: 8, preflight_prompts: 2, preflight_rollouts: 2}}
arms: {{in_context: [], short: [sft], whole: [cpt, sft, rl]}}
evaluation:
  settings: [no_policy, in_context, override, recital, efficiency, skills]
  max_new_tokens: 8
  limit: 3
  skills: {{builder: datasets_builders.clevr.skills_builder:build, args: {{rows: 1}}}}
  diagnose: datasets_builders.clevr.grader:diagnose
"""


@pytest.fixture
def recipe(tmp_path: Path, qwen: Path) -> Path:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.format(model=qwen))
    return file


def trimpi(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_recipe_from_data_to_report(recipe: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = trimpi("run", recipe, "--output", run)
    assert said.index("cpt: trained") < said.index("cpt+sft: trained") < said.index("evaluate base")
    for chain in ("sft", "cpt", "cpt+sft", "cpt+sft+rl"):
        stage = read_json(run / "seed-0" / chain / "stage.json")
        assert stage["verified"] and stage["versions"]["trl"]
        steps = read_json(run / "seed-0" / chain / "model" / "lineage.json")["steps"]
        assert [step["stage"] for step in steps] == chain.split("+")
    for chain in ("base", "sft", "cpt+sft+rl"):
        settings = {p.name for p in (run / "seed-0" / "eval" / chain).iterdir() if p.is_dir()}
        expected = {"no_policy", "in_context", "override", "recital", "efficiency", "skills"}
        assert settings >= expected
    assert (run / "report" / "report.html").is_file() and (run / "report" / "report.md").is_file()
    summary = json.loads((run / "report" / "summary.json").read_text())
    assert {model["name"] for model in summary["models"]} >= {"short", "whole"}

    digest = model_digest(run / "seed-0" / "cpt+sft+rl" / "model")
    again = trimpi("run", recipe, "--output", run)
    assert again.count("done already, skipped") == 4 + 3
    assert model_digest(run / "seed-0" / "cpt+sft+rl" / "model") == digest
    assert "graded again" in trimpi("eval", recipe, "--arm", "whole", "--output", run, "--regrade")
    assert "report: " in trimpi("report", run)


def test_the_same_seed_gives_the_same_bytes(recipe: Path, tmp_path: Path) -> None:
    digests = []
    for name in ("a", "b"):
        run = tmp_path / name
        trimpi("run", recipe, "--output", run, "--set", "evaluation.settings=[no_policy]",
               "--set", "arms={whole: [sft, rl]}", "--set", "evaluation.skills=null")  # fmt: skip
        digests.append(model_digest(run / "seed-0" / "sft+rl" / "model"))
    assert digests[0] == digests[1]


def test_a_killed_run_resumes_to_the_same_model(recipe: Path, tmp_path: Path) -> None:
    words = ["run", str(recipe), "--set", "arms={short: [sft]}", "--set", "evaluation.skills=null",
             "--set", "evaluation.settings=[no_policy]"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    trimpi(*words, "--output", whole)

    command = [sys.executable, "-m", "trimpi.cli", *words, "--output", str(killed)]
    stage = killed / "seed-0" / "sft"
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 120
        while not list(stage.glob("checkpoints/checkpoint-[3-9]*")):
            assert process.poll() is None and time.monotonic() < deadline, "no checkpoint seen"
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert not (stage / "stage.json").exists() and not (stage / "done.json").exists()

    said = trimpi(*words, "--output", killed)
    assert "sft: resumes" in said
    assert read_json(stage / "stage.json")["resumed_from"].startswith("checkpoint-")
    assert model_digest(stage / "model") == model_digest(whole / "seed-0" / "sft" / "model")
