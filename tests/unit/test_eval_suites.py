"""`trimpi eval TARGET --suite`: models, recipes, options that do not apply, exit codes."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from tests.benchmark_fakes import mmlu_row, wild_row, write
from tests.evaluation_fakes import Scripted
from trimpi.cli import app
from trimpi.eval_suites import too_long
from trimpi.generate import Generated
from trimpi.identities import stage_identity
from trimpi.recipe_file import load_recipe
from trimpi.runs import STARTED, write_json


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def faults(*words: Any) -> list[str]:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return [line.removeprefix("error: ") for line in result.stderr.splitlines()]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write(tmp_path / "rows.jsonl", [mmlu_row(n, "math" if n else "law") for n in range(3)])


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a back end that says B."""

    def load(target: str) -> Scripted:
        return Scripted(lambda _: "The answer is (B).")

    module = ModuleType("fake_backend")
    module.load = load  # type: ignore[attr-defined]
    module.odd = lambda target: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fake_backend", module)
    return "fake_backend:load"


def test_a_named_back_end_and_its_table(rows: Path, tmp_path: Path, named: str) -> None:
    words = ("eval", "my-model", "--suite", f"mmlu_pro={rows}", "--shots", 0, "--backend", named)
    result = call(*words, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "law" in result.stdout and "100.0" in result.stdout
    assert "answers found by level: 'answer is (X)' 3" in result.stdout
    summary = json.loads((tmp_path / "out" / "mmlu_pro" / "summary.json").read_text())
    assert summary["settings"]["model"] == {"backend": named, "target": "my-model"}
    assert summary["accuracy"]["value"] == 1.0 and summary["rows"] == 3


def test_a_local_model_by_transformers(rows: Path, tmp_path: Path, qwen: Path) -> None:
    words = ("eval", qwen, "--suite", f"mmlu_pro={rows}", "--shots", 0, "--max-new-tokens", 2)
    result = call(*words, "--per-category", 1, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    made = (tmp_path / "out" / "mmlu_pro" / "completions.jsonl").read_text().splitlines()
    assert len(made) == 2 and all(json.loads(line)["tokens"] <= 2 for line in made)


def test_vllm_by_its_option(
    rows: Path, tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Fake:
        def __init__(self, folder: Path, **options: Any) -> None:
            made.append(folder)

        def __call__(self, prompts: Any, **_: Any) -> list[Generated]:
            return [Generated("answer is B", 3, False) for _ in prompts]

    monkeypatch.setattr("trimpi.vllm_generator.VllmGenerator", Fake)
    words = ("eval", qwen, "--suite", f"mmlu_pro={rows}", "--shots", 0, "--backend", "vllm")
    assert call(*words, "--output", tmp_path / "out").exit_code == 0
    assert made == [qwen]


def test_seeds_of_an_arm(
    rows: Path, tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: small\noutput: {tmp_path}/run\nseeds: [3, 4]\nmodel: {{path: {qwen}}}\n"
        f"data: {{folder: {tmp_path}}}\nstages: {{sft: {{}}}}\n"
    )
    loaded: list[Path] = []

    def transformers(model: Path, *_: Any) -> Scripted:
        loaded.append(model)
        return Scripted(lambda _: "The answer is (B).")

    monkeypatch.setattr("trimpi.generate.TransformersGenerator", transformers)
    monkeypatch.setattr("trimpi.model.load_model", lambda folder, config: folder)
    words = ("eval", recipe, "--suite", f"mmlu_pro={rows}", "--shots", 0)
    lines = faults(*words, "--arm", "main")
    assert lines == [
        f"{tmp_path}/run/seed-{s}/sft: not trained yet; `trimpi run` the recipe first"
        for s in (3, 4)
    ]
    assert "unknown arm" in faults(*words, "--arm", "mian")[0]
    assert call(*words).exit_code == 0
    for seed in (3, 4):
        stage = tmp_path / "run" / f"seed-{seed}" / "sft"
        stage.mkdir(parents=True)
        (stage / "model").symlink_to(qwen)
        write_json(stage / "done.json", {})
    assert call(*words, "--arm", "main").exit_code == 0
    found = sorted((tmp_path / "run").glob("seed-*/benchmarks/*/mmlu_pro/summary.json"))
    assert [str(f.relative_to(tmp_path / "run").parents[1]) for f in found] == [
        "seed-3/benchmarks/base",
        "seed-3/benchmarks/sft",
        "seed-4/benchmarks/sft",
    ]
    assert len(loaded) == 3


def test_rows_of_all_suites_are_checked_before_a_model_is_loaded(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.model.load_model", lambda *_: pytest.fail("loaded"))
    bad = write(tmp_path / "m.jsonl", [mmlu_row(1, answer="Z")])
    wild = write(tmp_path / "w.jsonl", [wild_row(subcategory=None)])
    words = ("eval", qwen, "--suite", f"mmlu_pro={bad}", "--suite", f"wildguard_harm={wild}")
    lines = faults(*words, "--shots", 0, "--output", tmp_path / "out")
    assert [line.split(":")[0] for line in lines] == ["mmlu_pro", "wildguard_harm"]
    assert not (tmp_path / "out" / "mmlu_pro").exists()


def test_a_model_that_is_not_there_hides_no_fault_of_rows(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.benchmarks.source._hub", lambda *_: pytest.fail("downloaded"))
    bad = write(tmp_path / "m.jsonl", [mmlu_row(1, answer="Z")])
    wild = write(tmp_path / "w.jsonl", [wild_row(subcategory=None)])
    gone, out = tmp_path / "gone", tmp_path / "out"
    words = ("--suite", f"mmlu_pro={bad}", "--shots", 0, "--output", out)
    lines = faults("eval", gone, *words, "--suite", "wildguard_harm")
    assert lines[0].startswith(f"{gone}: no such model folder")
    assert [line.split(":")[0] for line in lines[1:]] == ["mmlu_pro"]
    words = ("--suite", f"wildguard_answers={wild}", "--judge", gone, "--output", out)
    lines = faults("eval", qwen, *words)
    assert [line.split(":")[0] for line in lines] == [str(gone), "wildguard_answers"]


def test_a_judge_without_room_is_told_before_a_model_is_loaded(
    tmp_path: Path, qwen: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.model.load_model", lambda *_: pytest.fail("loaded"))
    wild = write(tmp_path / "w.jsonl", [wild_row()])
    words = ("eval", "m", "--backend", named, "--suite", f"wildguard_answers={wild}")
    words += ("--judge", qwen, "--output", tmp_path / "out", "--max-new-tokens", 10**6)
    (line,) = faults(*words)
    assert line.startswith("wildguard_answers: judge: row ")
    # its own 128 behind an answer of so many
    assert "tokens and 1000128 new ones exceed the model's context of " in line
    assert not (tmp_path / "out" / "wildguard_answers").exists()


def test_prompts_beyond_the_context_are_told_before_a_model_is_loaded(
    rows: Path, tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.model.load_model", lambda *_: pytest.fail("loaded"))
    words = ("eval", qwen, "--suite", f"mmlu_pro={rows}", "--shots", 0, "--output", tmp_path / "o")
    lines = faults(*words, "--max-new-tokens", 10**7)
    assert len(lines) == 3 and not (tmp_path / "o" / "mmlu_pro").exists()
    assert lines[0].startswith("mmlu_pro: row '0': a prompt of ")
    assert "tokens and 10000000 new ones exceed the model's context of " in lines[0]
    assert too_long({"a": 5, "b": 6}, 4, 9) == [
        "row 'b': a prompt of 6 tokens and 4 new ones exceed the model's context of 9; "
        "lower --shots or --max-new-tokens"
    ]
    assert too_long({str(n): 9 for n in range(23)}, 1, 9)[-1] == "and 3 more rows like these"


def test_a_recipe_of_other_settings_than_the_trained_arm(
    rows: Path, tmp_path: Path, qwen: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: small\noutput: {tmp_path}/run\nmodel: {{path: {qwen}}}\n"
        f"data: {{folder: {tmp_path}}}\nstages: {{sft: {{}}}}\n"
    )
    stage = tmp_path / "run" / "seed-0" / "sft"
    write_json(stage / "done.json", {})
    (loaded,) = load_recipe(recipe).stages.values()
    write_json(stage / STARTED, {"stages": [stage_identity(loaded)]})
    words = ("eval", recipe, "--suite", f"mmlu_pro={rows}", "--shots", 0, "--arm", "main")
    (line,) = faults(*words, "--set", "stages.sft.epochs=9")
    assert line == (
        f"{stage}: trained with other settings (stages.0.epochs: 5.0 -> 9.0); give the recipe of "
        "the run"
    )
    assert "no such model folder" in faults(*words)[0]


def test_a_judge_is_not_loaded_as_the_recipe_says(
    tmp_path: Path, qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"name: small\noutput: {tmp_path}/run\nmodel: {{path: {qwen}, dtype: bfloat16}}\n"
        f"data: {{folder: {tmp_path}}}\nstages: {{sft: {{}}}}\n"
    )
    monkeypatch.setattr("trimpi.model.load_model", lambda folder, config: folder)
    monkeypatch.setattr(
        "trimpi.generate.TransformersGenerator",
        lambda *_: Scripted(lambda _: "a: yes\nb: no\nc: no"),
    )
    wild = write(tmp_path / "w.jsonl", [wild_row()])
    words = ("eval", recipe, "--suite", f"wildguard_answers={wild}", "--judge", qwen)
    result = call(*words, "--max-new-tokens", 8)
    assert result.exit_code == 0, result.output
    (file,) = (tmp_path / "run").rglob("wildguard_answers/started.json")
    started = json.loads(file.read_text())
    assert started["model"]["loading"]["dtype"] == "bfloat16"
    assert started["judge"]["loading"]["dtype"] == "auto"


def test_options_that_do_not_apply(
    rows: Path, tmp_path: Path, qwen: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.eval_suites.find_spec", lambda _: None)
    suite = ("--suite", f"mmlu_pro={rows}")
    assert faults("eval", "r.yaml", "--shots", 0, "--mode", "x") == [
        "--shots, --mode: goes with --suite; name a benchmark, or drop it"
    ]
    assert "--arm and --set go with a recipe" in faults("eval", qwen, *suite, "--arm", "x")[0]
    assert "--regrade: benchmarks are scored again" in faults("eval", qwen, *suite, "--regrade")[0]
    options = ("--mode", "x", "--extraction", "y", "--judge", "j", "--harness", "--backend", "z")
    assert faults("eval", qwen, *suite, *options) == [
        "--backend z: unknown; known here: transformers, vllm, endpoint, or give module:function",
        "--mode x: must be cot or direct",
        "--extraction y: must be chain or strict",
        "--judge: no suite here is judged; leave it out",
        "--harness: lm-eval is missing; pip install 'trimpi[harness]'",
    ]
    assert faults("eval", qwen, "--suite", "wildguard_answers", "--harness")[:2] == [
        "--suite wildguard_answers: needs a judge; give --judge MODEL",
        "--harness: lm-eval has mmlu_pro alone of these suites; leave it out",
    ]
    odd = ("--backend", "fake_backend:odd", "--shots", 0)
    assert "made int, not a generator" in faults("eval", "m", *suite, *odd)[0]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("gone/folder/model", "gone/folder/model: no such model folder; check the path"),
        ("package://trimpi/models/none", "holds no folder 'models/none'"),
        ("recipe.yaml", "recipe.yaml"),
    ],
)
def test_targets_that_are_not_there(rows: Path, tmp_path: Path, target: str, message: str) -> None:
    words = ("eval", target, "--suite", f"mmlu_pro={rows}", "--output", tmp_path / "out")
    assert message in faults(*words)[0]


def test_a_run_folder_and_a_folder_in_use(rows: Path, tmp_path: Path, qwen: Path) -> None:
    write_json(tmp_path / "run" / "run.json", {})
    words = ("--suite", f"mmlu_pro={rows}", "--shots", 0, "--output", tmp_path / "out")
    (line,) = faults("eval", tmp_path / "run", *words)
    assert line.endswith("run: is a run folder; give its recipe with --arm")
    import fcntl

    (tmp_path / "out").mkdir(exist_ok=True)
    with (tmp_path / "out" / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        (line,) = faults("eval", qwen, *words)
    assert "another evaluation works in this folder" in line


def test_the_harness_number_is_in_the_table(
    rows: Path, tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def harness(source: Any, options: Any, answer: Any) -> dict[str, Any]:
        asked = [("t/0", [{"role": "user", "content": [{"type": "text", "text": "x"}]}])]
        (text,) = answer(asked)
        outputs = [{"id": "0", "text": text, "lm_eval": 1.0, "ours": 1.0}]
        return {"version": "0", "rows": 1, "accuracy": 1.0, "ours": 1.0, "outputs": outputs}

    monkeypatch.setattr("trimpi.eval_suites.run_harness", harness)
    monkeypatch.setattr("trimpi.eval_suites.find_spec", lambda _: SimpleNamespace())
    words = ("eval", "m", "--suite", f"mmlu_pro={rows}", "--shots", 0, "--backend", named)
    result = call(*words, "--harness", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "the same outputs by our strict level: 100.0" in result.stdout
    summary = json.loads((tmp_path / "out" / "mmlu_pro" / "summary.json").read_text())
    assert summary["harness"] == {"version": "0", "rows": 1, "accuracy": 1.0, "ours": 1.0}
    assert (tmp_path / "out" / "mmlu_pro" / "harness" / "scores.jsonl").is_file()
