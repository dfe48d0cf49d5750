"""Referral in a run: the report, the script that states agreement, an evaluation that is done."""

import json
import runpy
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.clevr.grader import grade
from tests.evaluation_fakes import Scripted, Skill, clevr_folder, pretend
from trimpi.errors import UserError
from trimpi.evaluate import evaluate_model
from trimpi.evaluate.referral.setting import refer
from trimpi.recipe import Recipe
from trimpi.recipe_file import dump_recipe
from trimpi.report import write_report
from trimpi.runs import eval_folder, write_json, write_text

ROOT = Path(__file__).resolve().parents[3]
DATA = ROOT / "benchmarks" / "data"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two seeds with a perfect arm and a base that knows nothing."""
    folder = tmp_path_factory.mktemp("referral") / "run"
    data = clevr_folder(folder / "data")
    recipe = Recipe.model_validate(
        {
            "name": "cited",
            "seeds": [0, 1],
            "model": {"path": "package://trimpi/models/tiny-vlm"},
            "data": {"builder": "datasets_builders.clevr.builder:build"},
            "stages": {"sft": {}},
            "evaluation": {"settings": ["no_policy", "referral"]},
        }
    )
    write_text(folder / "recipe.yaml", dump_recipe(recipe))
    models: list[tuple[int, list[str], float]] = [
        (0, [], 0.0),
        (0, ["sft"], 1.0),
        (1, ["sft"], 1.0),
    ]
    for seed, chain, walk in models:
        model = folder / "models" / f"{seed}-{len(chain)}"
        write_json(model / "config.json", {"seed": seed})
        output = eval_folder(folder, seed, tuple(chain))
        generator = Scripted(pretend(Skill(walk), data, None, seed))
        evaluate_model(model, recipe, data, None, output, grade, seed, generator=generator)
    write_report(folder)
    return folder


def summary_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report" / "summary.json").read_text()))


def test_the_report_has_scores_by_model(run: Path) -> None:
    found = summary_of(run)["referral"]
    assert list(found) == ["base", "main"]
    assert found["main"]["mean"] == 10 and found["main"]["rows"] == 32
    assert found["main"]["histogram"] == [0] * 10 + [32]
    assert found["main"]["low"] < 10 == found["main"]["high"]
    assert found["base"]["mean"] < 7
    page = (run / "report" / "report.md").read_text()
    line = next(row for row in page.splitlines() if row.startswith("| main | 10.00"))
    assert "| 100.0% | 100.0% | 100.0% | 32 | 0 | 0 |" in line and "judged by exact" in page
    assert line.rstrip(" |").endswith("| 32")
    html = (run / "report" / "report.html").read_text()
    assert "<h2>Referral</h2>" in html and "rows by score from 0 to 10: 0, 0" in html


def test_a_run_without_referral_has_no_section(run: Path, tmp_path: Path) -> None:
    bare = tmp_path / "run"
    write_text(bare / "recipe.yaml", (run / "recipe.yaml").read_text())
    write_report(bare)
    assert summary_of(bare)["referral"] == {}
    assert "Referral" not in (bare / "report" / "report.md").read_text()


def test_unscored_and_half_judged_models_are_told(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "run"
    write_text(other / "recipe.yaml", (run / "recipe.yaml").read_text())
    scored = {"value": None, "low": None, "high": None, "scored": 0, "unscored": 3}
    summary = {
        "judge": "endpoint", "complete": False, "rows": 3, "score": scored, "unscored": 3,
        "unreadable": 3, "no_reasoning": 0, "histogram": [0] * 11, "parts": {},
        "by_policy": {"a": scored}, "notes": {"the judge's answer ends in 'a <b> | c'": 3},
    }  # fmt: skip
    write_json(eval_folder(other, 0, ()) / "referral" / "summary.json", summary)
    write_report(other)
    page = (other / "report" / "report.md").read_text()
    assert "| base (not judged to the end) | – [–, –] | 3 | 3 | 3 |" in page
    assert "unscored: the judge's answer ends in 'a &lt;b> \\| c' (3)" in page


def test_the_evaluation_does_not_depend_on_the_judge() -> None:
    from types import SimpleNamespace

    from trimpi.identities import evaluation_identity

    def identity(**evaluation: Any) -> Any:
        raw = {"name": "r", "model": {"path": "m"}, "data": {"folder": "d"}}
        recipe = Recipe.model_validate(raw | {"evaluation": evaluation})
        task = SimpleNamespace(recipe=recipe, model_digest="m", data_digest="d", skills_digest=None)
        return evaluation_identity(task, 0, ())  # type: ignore[arg-type]

    plain = identity(settings=["no_policy"])
    judged = identity(settings=["no_policy", "referral"], referral={"limit": 3})
    assert judged == plain and "referral" not in plain["evaluation"]


# ---- benchmarks/judges.py

SCRIPT = runpy.run_path(str(ROOT / "benchmarks" / "judges.py"))


def script(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    SCRIPT["main"]([str(argument) for argument in arguments])
    return capsys.readouterr().out


def test_the_recorded_agreement_is_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    pages = (ROOT / "docs" / "results" / "referral.md").read_text()
    lines = {"": "| first, exact judge as it is | 60 | ", "_2": "exact judge as it is** | 32 | "}
    for name, line in lines.items():
        rows, answers = (DATA / f"referral_{kind}{name}.jsonl" for kind in ("rows", "answers"))
        said = script(capsys, "agree", rows, answers)
        numbers = next(row for row in said.splitlines() if row.startswith(("| 60 |", "| 32 |")))
        told = next(row for row in pages.splitlines() if line in row)
        cells = [cell.strip(" *+") for cell in told.split("|")[2:-1]]
        assert [float(c) for c in cells] == [float(c) for c in numbers.split("|")[1:-1]]
        assert " 0 unreadable" in said


def test_prompts_of_rows_and_of_a_setting(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = script(capsys, "prompts", DATA / "referral_rows.jsonl")
    first = json.loads(out.splitlines()[0])
    assert first["id"] == "r01" and first["prompt"].rstrip().endswith("Score: N")
    folder = eval_folder(run, 0, ()) / "no_policy"
    rows = script(capsys, "prompts", folder, "--data", run / "data").splitlines()
    assert len(rows) == 16 and "Condition 1" in json.loads(rows[0])["prompt"]
    with pytest.raises(SystemExit, match="give its --data"):
        script(capsys, "prompts", folder)


def test_agreement_counts_prose_and_refuses_doubles(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, answers = DATA / "referral_rows.jsonl", tmp_path / "answers.jsonl"
    given = [("r01", "Fine.\nScore: 10"), ("r02", "I say 3"), ("r03", "Score: 2")]

    def write(pairs: list[tuple[str, str]]) -> None:
        made = ({"id": i, "judge": "m", "answer": a} for i, a in pairs)
        answers.write_text("".join(json.dumps(row) + "\n" for row in made))

    write(given)
    said = script(capsys, "agree", rows, answers)
    assert "60 rows, 3 answered, 1 unreadable" in said and "\n| 2 |" in said
    write([*given, given[0]])
    with pytest.raises(SystemExit, match="'r01' is answered twice"):
        script(capsys, "agree", rows, answers)
    write([("r99", "Score: 1")])
    with pytest.raises(SystemExit, match="no row 'r99'"):
        script(capsys, "agree", rows, answers)


@pytest.mark.parametrize("kind", SCRIPT["DAMAGES"])
def test_damage_changes_what_it_says(kind: str) -> None:
    import random

    text = (
        "<think> Condition 1: is there a small object? No: go to Condition 1.2.\nCondition 1.2: is"
        " there a metal object? Yes: the response is Case 3. </think> \\boxed{Case 3}"
    )
    made = SCRIPT["damage"](kind, text, random.Random(0))
    assert made != text and made.endswith("</think> \\boxed{Case 3}")
    assert made == SCRIPT["damage"](kind, text, random.Random(0))


def test_no_completions_to_judge(tmp_path: Path, run: Path) -> None:
    from trimpi.sample import DataFolder

    recipe = Recipe.model_validate(
        {"name": "r", "model": {"path": "m"}, "data": {"folder": "d"},
         "evaluation": {"settings": ["no_policy", "referral"]}}
    )  # fmt: skip
    with pytest.raises(UserError, match="not the folder of an evaluated setting"):
        refer(tmp_path, recipe, DataFolder(run / "data"))
