"""Evaluation through a real transformers model: a random Qwen2.5-VL of 0.2 M parameters."""

from pathlib import Path

from datasets_builders.clevr.grader import grade
from tests.evaluation_fakes import DIAGNOSE, clevr_folder, skills_folder
from trimpi.evaluate import evaluate_model
from trimpi.evaluate.store import read_rows
from trimpi.recipe import Recipe


def test_every_setting_runs_through_a_model(qwen: Path, tmp_path: Path) -> None:
    data, skills = clevr_folder(tmp_path / "data"), skills_folder(tmp_path / "skills", rows=1)
    recipe = Recipe.model_validate(
        {
            "name": "test",
            "model": {"path": str(qwen)},
            "data": {"folder": str(data.root)},
            "evaluation": {
                "settings": [
                    "no_policy",
                    "in_context",
                    "override",
                    "recital",
                    "efficiency",
                    "skills",
                ],
                "skills": {"folder": str(skills.root)},
                "diagnose": DIAGNOSE,
                "limit": 3,
                "batch_size": 2,
                "max_new_tokens": 6,
            },
        }
    )
    first = evaluate_model(qwen, recipe, data, skills, tmp_path / "a", grade, 0)
    for name, summary in first["settings"].items():
        if name == "efficiency":
            continue
        assert summary["rows"] == 3, name
        assert summary["accuracy"]["value"] == 0.0, name  # random weights box no answer
        assert summary["accuracy"]["scored"] == 3, name
        assert summary["completion_tokens"] > 0, name
    saved = first["settings"]["efficiency"]
    assert saved["prompt_tokens"]["with_policy"] > saved["prompt_tokens"]["without_policy"] > 0
    assert saved["prefill_seconds"]["with_policy"] > 0 and saved["device"] == "cpu"

    evaluate_model(qwen, recipe, data, skills, tmp_path / "b", grade, 0)
    for name in ("no_policy", "in_context", "skills"):
        once, twice = (read_rows(tmp_path / k / name / "completions.jsonl") for k in "ab")
        assert once == twice, name
