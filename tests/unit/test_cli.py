"""The command line: exit codes, one line per fault on standard error, no traceback."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from trimpi.cli import app
from trimpi.data_checks import rows_of
from trimpi.errors import UserError
from trimpi.recipe_file import load_recipe
from trimpi.row_checks import check_rows
from trimpi.sample import DataFolder

ROOT = Path(__file__).resolve().parents[2]


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def recipe(tmp_path: Path, qwen: Path, data: DataFolder) -> Path:
    """A recipe of three short stages on a tiny random model."""
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"""
name: small
output: {tmp_path}/run
model: {{path: {qwen}}}
data: {{folder: {data.root}}}
stages:
  cpt: {{batch_size: 4, micro_batch_size: 2, epochs: 2}}
  sft: {{batch_size: 4, lora: {{r: 2}}}}
  rl: {{prompts_per_step: 2, group_size: 4, micro_batch_size: 4, max_new_tokens: 8}}
evaluation: {{settings: [no_policy, in_context], max_new_tokens: 8}}
"""
    )
    return file


def faults(*words: Any) -> list[str]:
    result = call(*words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return result.stderr.splitlines()


def test_a_dry_run_says_sizes_tokens_and_memory(recipe: Path, tmp_path: Path) -> None:
    result = call("run", recipe, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "data: test 8, train 8, train_cot 8" in result.stdout
    assert "cpt: 8 rows x 2 epochs = 4 updates of 4 rows (2 per pass x 2 passes x 1 device)" in (
        result.stdout
    )
    assert "= 8 rollout batches of 2 prompts x 4 completions (2 with the policy" in result.stdout
    assert result.stdout.count(" per device (weights") == 3
    assert "share of its prompt that is saved" in result.stdout
    assert "nothing wrong found; no weights were loaded" in result.stdout
    assert not (tmp_path / "run").exists()


def test_a_run_folder_that_cannot_be_made_is_told_first(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for more in ([], ["--dry-run"]):
        found = faults("run", recipe, "--output", tmp_path / "file" / "run", *more)
        cure = "is a file, not a folder; choose another --output"
        assert found == [f"error: {tmp_path}/file/run: {tmp_path}/file {cure}"]


def test_a_dry_run_loads_no_weights(recipe: Path, qwen: Path, tmp_path: Path) -> None:
    """Weights of the right length and no meaning pass: only header and sizes were read."""
    import shutil

    copy = shutil.copytree(qwen, tmp_path / "copy")
    weights = copy / "model.safetensors"
    content = weights.read_bytes()
    head = 8 + int.from_bytes(content[:8], "little")
    weights.write_bytes(content[:head] + b"\xff" * (len(content) - head))
    assert call("run", recipe, "--dry-run", "--set", f"model.path={copy}").exit_code == 0


def test_a_dry_run_looks_whether_data_that_are_built_are_those_asked_for(
    recipe: Path, tmp_path: Path
) -> None:
    replaced = ("data:", "model:")
    lines = [line for line in recipe.read_text().splitlines() if not line.startswith(replaced)]
    lines.append("data: {builder: 'datasets_builders.gta.builder:build'}")
    lines.append("model: {path: 'package://trimpi/models/tiny-vlm-tools', max_pixels: 6144}")
    lines.append("grader: datasets_builders.gta.grader:grade")
    recipe.write_text("\n".join(lines).replace("rl: {", "rl: {split: train_cot, "))
    assert call("data", "build", recipe).exit_code == 0
    assert call("run", recipe, "--dry-run").exit_code == 0
    source = ("--set", "data.args.source=/nonexistent")
    built = f"{tmp_path}/run/data: built with other arguments than data asks for; choose another"
    nowhere = "data.args: /nonexistent: no such folder"
    for words in (("--dry-run",), ()):
        first, second = faults("run", recipe, *words, *source)
        assert built in first and nowhere in second
    (line,) = faults("run", recipe, "--dry-run", "--overwrite", *source)
    assert nowhere in line
    other = ("--dry-run", "--set", "data.seed=1")
    assert built in faults("run", recipe, *other)[0]
    (tmp_path / "run" / "data.json").unlink()
    assert "data.json is gone" in faults("run", recipe, "--dry-run")[0]


def test_a_dry_run_reports_all_faults(recipe: Path, data: DataFolder, tmp_path: Path) -> None:
    lines = faults(
        *("run", recipe, "--dry-run"),
        *("--set", "grader=trimpi.grading:exact_anser"),
        *("--set", "evaluation.split=tset"),
        *("--set", "stages.sft.split=train"),
        *("--set", "stages.rl.limit=1"),
        *("--set", "stages.cpt.trainer.optimm=x"),
        *("--set", f"model.path={tmp_path}/none"),
    )
    text = "\n".join(lines)
    assert all(line.startswith("error: ") for line in lines)
    assert "grader: 'trimpi.grading' has no 'exact_anser'; did you mean 'exact_answer'?" in text
    assert "evaluation.split: the data have no split 'tset'; did you mean 'test'?" in text
    assert f"{data.root}/train.jsonl:1: stage sft needs a rationale in every row" in text
    assert "stages.rl: 1 rows are fewer than prompts_per_step 2" in text
    assert "stages.cpt.trainer.optimm: unknown key; did you mean 'optim'?" in text
    assert f"model.path: no model folder {tmp_path}/none" in text


def test_a_dry_run_asks_the_grader_what_it_lacks(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grader = "grader=datasets_builders.gta.grader:bertscore"
    monkeypatch.delenv("TRIMPI_BERTSCORE_MODEL", raising=False)
    for words in (("--dry-run",), ()):
        [line] = faults("run", recipe, *words, "--set", grader)
        assert line.startswith("error: grader: BERTScore needs a model; set TRIMPI_BERTSCORE_MODEL")
    monkeypatch.setenv("TRIMPI_BERTSCORE_MODEL", str(tmp_path))
    [line] = faults("run", recipe, "--dry-run", "--set", grader)
    assert line.startswith(f"error: TRIMPI_BERTSCORE_MODEL: {tmp_path} holds no config.json; give")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train.jsonl", "", "stages.rl.split: split 'train' is empty"),
        ("train.jsonl", "{", "train.jsonl:1: not JSON"),
        ("images/train/000003.png", "not a picture", "train.jsonl:4: image"),
        (
            "images/train/000003.png",
            None,
            "train.jsonl:4: file 'images/train/000003.png' not found",
        ),
        ("images/test/000003.png", "not a picture", "test.jsonl:4: image"),
        ("policies/lumen.json", None, "train.jsonl:1: unknown policy 'lumen'"),
        ("card.json", None, "no card.json, so not a whole data set"),
    ],
)
def test_faulty_data_stop_before_any_model_is_loaded(
    recipe: Path, data: DataFolder, file: str, content: str | None, message: str
) -> None:
    if content is None:
        (data.root / file).unlink()
    else:
        (data.root / file).write_text(content)
    assert message in "\n".join(faults("run", recipe, "--dry-run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": "lumn"}, "train.jsonl:1: unknown policy 'lumn'; did you mean 'lumen'?"),
        ({"answer": "Case 7"}, "train.jsonl:1: answer 'Case 7' is not among the 2 cases"),
        ({"images": ["../x.png"]}, "train.jsonl:1: path '../x.png' leaves its folder"),
        ({"imges": []}, "train.jsonl:1: unknown field 'imges'; did you mean 'images'?"),
    ],
)
def test_faulty_rows(recipe: Path, data: DataFolder, change: dict[str, Any], message: str) -> None:
    policy = data.root / "policies" / "lumen.json"
    record = json.loads(policy.read_text())
    record["metadata"]["cases"] = ["Case 1", "Case 2"]
    policy.write_text(json.dumps(record))
    rows = (data.root / "train.jsonl").read_text().splitlines()
    rows[0] = json.dumps({**json.loads(rows[0]), **change})
    (data.root / "train.jsonl").write_text("\n".join(rows) + "\n")
    (line,) = faults("run", recipe, "--dry-run")
    assert message in line


def test_a_row_that_a_sample_of_rows_would_miss(
    recipe: Path, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run looks at the lengths of all rows, of stages and evaluation, once data exist."""
    monkeypatch.setattr("trimpi.recipe_estimate.LOOKED_AT", 1)
    rows = [json.loads(line) for line in (data.root / "test.jsonl").read_text().splitlines()]
    rows[5]["query"] = "word " * 9000
    (data.root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = faults("run", recipe, "--dry-run")
    assert found and all("row 'test-5'" in line and "exceed the context" in line for line in found)


def test_data_changed_after_they_were_built_stop_a_run(recipe: Path, data: DataFolder) -> None:
    rows = [json.loads(line) for line in (data.root / "test.jsonl").read_text().splitlines()]
    policy = data.root / "policies" / "lumen.json"
    record = json.loads(policy.read_text())
    record["metadata"]["cases"] = ["Case 1", "Case 2"]
    policy.write_text(json.dumps(record))
    rows[3]["answer"] = "Case 99"
    (data.root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=r"test\.jsonl:4: answer 'Case 99' is not among"):
        check_rows(load_recipe(recipe), data)


def test_a_missing_split_of_rationales_says_what_it_holds() -> None:
    with pytest.raises(UserError) as caught:
        rows_of({"test": 1, "train": 3}, "train_cot", "stages.sft.split")
    assert str(caught.value) == (
        "stages.sft.split: the data have no split 'train_cot' (of rows with rationales); "
        "did you mean 'train'?"
    )


def test_an_output_that_is_a_file(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for words in (("run", recipe, "--dry-run"), ("show", recipe, "sft"), ("data", "build", recipe)):
        (line,) = faults(*words, "--output", tmp_path / "file")
        assert line.endswith("file: is a file; choose another --output")


def test_a_folder_whose_name_looks_like_markup(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "x[" / "b]y"
    result = call("run", recipe, "--dry-run", "--output", folder)
    assert result.exit_code == 0, result.output
    assert str(folder) in result.stdout


def test_options_that_do_not_apply(recipe: Path, tmp_path: Path) -> None:
    assert "use --set data.seed=N" in faults("data", "build", recipe, "--seed", "5")[0]
    builder = "datasets_builders.clevr.builder:build"
    words = ("data", "build", builder, "--overwrite", "--output", tmp_path / "x")
    assert "goes with a recipe" in faults(*words)[0]


def test_rows_longer_than_the_context(recipe: Path, qwen: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(qwen, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["text_config"]["max_position_embeddings"] = 60
    (copy / "config.json").write_text(json.dumps(config))
    text = "\n".join(faults("run", recipe, "--dry-run", "--set", f"model.path={copy}"))
    assert "stages.cpt: a row of split 'train_cot' takes" in text
    assert "the model's context is 60" in text


@pytest.mark.parametrize("file", ["chat_template.jinja", "processor_config.json"])
def test_a_model_folder_without_processor_or_template(
    recipe: Path, qwen: Path, tmp_path: Path, file: str
) -> None:
    import shutil

    copy = shutil.copytree(qwen, tmp_path / "copy")
    (copy / file).unlink()
    missing = "chat template" if "chat" in file else "processor"
    words = ("run", recipe, "--set", f"model.path={copy}")
    assert f"no {missing}" in "\n".join(faults(*words, "--dry-run"))
    assert f"no {missing}" in "\n".join(faults(*words))


@pytest.fixture
def fake_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for `trimpi.report`: a report that says which run it is of."""
    report = tmp_path / "run" / "report" / "report.html"

    def write_report(run: Path) -> Path:
        report.parent.mkdir(parents=True, exist_ok=True)
        (report.parent / "summary.json").write_text(json.dumps({"of": str(run)}))
        return report

    def print_table(summary: Any, console: Any) -> None:
        console.print(f"table of {summary['of']}")

    fake = SimpleNamespace(write_report=write_report, print_table=print_table)
    monkeypatch.setitem(sys.modules, "trimpi.report", fake)
    return report


def test_a_run_prints_its_results(
    recipe: Path, fake_report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_recipe(recipe: Any, run: Path, **options: Any) -> Path:
        assert options["jobs"] == 2 and options["overwrite"] is False
        return Path(sys.modules["trimpi.report"].write_report(run))

    monkeypatch.setattr("trimpi.pipeline.run_recipe", run_recipe)
    result = call("run", recipe, "--jobs", 2)
    assert result.exit_code == 0, result.output
    run = fake_report.parents[1]
    assert result.stdout.endswith(f"table of {run}\nreport: {fake_report}\n")


def test_the_schema_is_printed_as_json() -> None:
    assert json.loads(call("recipe", "schema").stdout)["title"] == "Recipe"


def test_a_builder_can_be_called_alone(tmp_path: Path) -> None:
    words = ("data", "build", "datasets_builders.clevr.builder:build")
    sets = ["depth=2", "policies=1", "train=4", "train_cot=null", "test=1", "override=null",
            "profile=tiny", "workers=1"]  # fmt: skip
    sets = [word for value in sets for word in ("--set", value)]
    assert faults(*words, *sets) == [
        "error: --output: a builder needs the folder to write; give --output DIR"
    ]
    folder = tmp_path / "data"
    (line,) = faults(*words, *sets, "--output", folder, "--set", "dept=2")
    assert "data.args: dept: unknown argument of the clevr builder; did you mean 'depth'?" in line
    assert not folder.exists()
    assert call(*words, *sets, "--output", folder).exit_code == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]

    shown = call("data", "show", folder, "--model", "words")
    assert shown.exit_code == 0, shown.output
    assert "contact sheet:" in shown.stdout and (tmp_path / "data-sheet.png").is_file()

    assert "rules that rows exercise" in shown.stdout and "2 of 3" in shown.stdout

    checked = call("data", "check", folder)
    assert checked.exit_code == 0  # one picture takes one of the two branches
    (warning,) = [x for x in checked.stderr.splitlines() if x.startswith("warning: ")]
    assert ": rule 1." in warning and warning.endswith("): no test row exercises it")
    image = next((folder / "images").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:-20])
    checked = call("data", "check", folder)
    assert checked.exit_code == 1 and image.name in checked.stderr


def test_sources_that_are_neither_recipe_nor_builder(tmp_path: Path) -> None:
    assert "neither a recipe (.yaml) nor a builder" in faults("data", "build", "something")[0]
    assert "no module 'no_such_package'" in "\n".join(
        faults("data", "build", "no_such_package.a:b", "--output", tmp_path / "x")
    )
    assert "no card.json" in faults("data", "check", tmp_path)[0]
    assert "not a run folder" in faults("report", tmp_path)[0]


def test_the_report_is_written_again(fake_report: Path) -> None:
    run = fake_report.parents[1]
    run.mkdir()
    (run / "run.json").write_text("{}")
    assert call("report", run).stdout == f"table of {run}\nreport: {fake_report}\n"


def test_the_doctor_finds_wrong_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    from trimpi import doctor

    needs = ["torch>=2", "trl>=99,<100", "not-there-at-all", 'vllm>=99; extra == "x"',
             'not-for-this>=1; python_version < "3"']  # fmt: skip
    (fault,) = doctor.requirement_faults("no-such-package")
    assert fault.endswith("could not be checked; pip install -e .")
    monkeypatch.setattr("importlib.metadata.requires", lambda package: needs)
    faults = doctor.requirement_faults()
    assert len(faults) == 2
    assert faults[0].startswith("trl ") and faults[0].endswith("pip install 'trl<100,>=99'")
    assert faults[1] == "not-there-at-all is not installed; pip install 'not-there-at-all'"


def test_ctrl_c_ends_cleanly(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("trimpi.pipeline.run_recipe", stop)
    # A shell starts background jobs with the signal ignored; a user's Ctrl-C is not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        result = call("run", recipe)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.exit_code == 130
    assert result.stderr == "stopped; the same command goes on from here\n"


def test_the_module_runs_as_a_program(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "trimpi.cli", "run", str(tmp_path / "none.yaml")],
        capture_output=True, text=True, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == f"error: {tmp_path}/none.yaml: no such recipe file; check the path\n"
