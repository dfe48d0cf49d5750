"""Running a recipe with stages that only leave traces: order, sharing, skipping, refusing."""

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import trimpi.evaluate  # noqa: F401  whole, before a module of it is replaced
from trimpi.errors import UserError
from trimpi.model import check_adapters
from trimpi.pipeline import evaluate_arm, measured, prefixes, run_recipe
from trimpi.recipe import Recipe
from trimpi.runs import read_json, write_json
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.seeds import run_seeds

ARMS = {"base_model": [], "short": ["sft"], "long": ["sft", "rl"], "other": ["cpt", "sft"]}


def model_folder(folder: Path) -> Path:
    """The smallest folder that passes for a whole model."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"vision_config": {}}')
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    for name in ("tokenizer.json", "processor_config.json", "chat_template.jinja"):
        (folder / name).write_text("{}")
    return folder


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages, evaluation and report that log what they are called with."""
    calls: list[str] = []

    def stage(kind: str) -> Callable[[Any, Any], Path]:
        def run(config: Any, inputs: Any) -> Path:
            history = read_json(inputs.model / "history.json") or []
            calls.append(f"{inputs.seed}:{'>'.join([*history, kind])}")
            if os.environ.get("FAIL_AT") == calls[-1]:
                (inputs.output / "checkpoints" / "checkpoint-1").mkdir(parents=True)
                raise KeyboardInterrupt
            shutil.copytree(inputs.model, inputs.output / "model", dirs_exist_ok=True)
            write_json(inputs.output / "model" / "history.json", [*history, kind])
            write_json(inputs.output / "stage.json", {"kind": config.kind})
            return inputs.output / "model"

        return run

    def evaluate(model: Path, recipe: Any, data: Any, skills: Any, out: Path, *rest: Any) -> Any:
        calls.append(f"{rest[1]}:eval {recipe.evaluation.target} {out.name}")
        value = 0.5 + 0.1 * rest[1]
        write_json(out / "no_policy" / "summary.json", {"accuracy": {"value": value}})
        return {"settings": {}}

    def report(run: Path) -> Path:
        calls.append("report")
        return run / "report" / "report.md"

    # `model_folder` has no layers.
    monkeypatch.setattr("trimpi.model.check_adapters", lambda *args: None)
    for name, content in {
        **{f"trimpi.stages.{kind}": {"run": stage(kind)} for kind in ("cpt", "sft", "rl")},
        "trimpi.evaluate.runner": {
            "evaluate_model": evaluate,
            "graded_otherwise": lambda folder, *rest: [],
        },
        "trimpi.context": {"check_context": lambda *args: None},
        "trimpi.report": {"write_report": report},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return calls


@pytest.fixture
def recipe(tmp_path: Path, data: DataFolder) -> Callable[..., Recipe]:
    """`recipe(**changes)`: three stages in four arms."""
    model = model_folder(tmp_path / "base")

    def make(**changes: Any) -> Recipe:
        raw = {
            "name": "r",
            "model": {"path": str(model)},
            "data": {"folder": str(data.root)},
            "stages": {"cpt": {}, "sft": {}, "rl": {}},
            "arms": ARMS,
            "evaluation": {"settings": ["no_policy"]},
        }
        return Recipe.model_validate({**raw, **changes})

    return make


def test_arms_share_what_they_have_in_common(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    assert prefixes(recipe()) == [("sft",), ("sft", "rl"), ("cpt",), ("cpt", "sft")]
    said: list[str] = []
    report = run_recipe(recipe(), tmp_path / "run", say=said.append)
    assert report == tmp_path / "run" / "report" / "report.md"
    assert log == [
        *("0:sft", "0:sft>rl", "0:cpt", "0:cpt>sft"),
        *("0:eval cot base", "0:eval cot sft", "0:eval cot sft+rl", "0:eval cot cpt+sft"),
        "report",
    ]
    record = read_json(tmp_path / "run" / "run.json")
    assert record["versions"]["trl"] and record["seconds"] > 0 and record["peak_memory_gib"] > 0
    assert (tmp_path / "run" / "recipe.yaml").is_file()


def test_running_again_redoes_nothing(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    run_recipe(recipe(), tmp_path / "run", say=[].append)
    log.clear()
    before = read_json(tmp_path / "run" / "run.json")["seconds"]
    said: list[str] = []
    stages = {"cpt": {"logging_steps": 7}, "sft": {"save_steps": 3}, "rl": {}}
    run_recipe(recipe(stages=stages), tmp_path / "run", say=said.append)
    assert log == ["report"]
    assert read_json(tmp_path / "run" / "run.json")["seconds"] > before  # the sum of both
    assert "sft+rl: done already, skipped" in said


def test_an_interrupted_run_goes_on_where_it_stopped(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAIL_AT", "0:sft>rl")
    with pytest.raises(KeyboardInterrupt):
        run_recipe(recipe(), tmp_path / "run", say=[].append)
    assert log == ["0:sft", "0:sft>rl"]
    spent = read_json(tmp_path / "run" / "run.json")["seconds"]
    assert spent > 0
    monkeypatch.delenv("FAIL_AT")
    log.clear()
    said: list[str] = []
    run_recipe(recipe(), tmp_path / "run", say=said.append)
    assert log[:3] == ["0:sft>rl", "0:cpt", "0:cpt>sft"]
    assert "sft+rl: resumes" in said
    assert read_json(tmp_path / "run" / "run.json")["seconds"] > spent


def test_an_evaluation_that_finds_no_space_is_one_line_and_goes_on(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(run / "completions.jsonl"))

    with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
        patch.setattr(sys.modules["trimpi.evaluate.runner"], "evaluate_model", full)
        run_recipe(recipe(arms={"a": ["sft"]}), run, say=[].append)
    line = str(caught.value)
    assert line.startswith(f"evaluate base: {run}/completions.jsonl: cannot be written, no space")
    assert line.endswith("; answers so far are kept, the same command goes on")
    assert not (run / "seed-0" / "eval" / "base" / "done.json").exists()
    log.clear()
    run_recipe(recipe(arms={"a": ["sft"]}), run, say=[].append)
    assert log == ["0:eval cot base", "0:eval cot sft", "report"]


def test_an_adapter_of_a_later_stage_is_looked_at_first(
    recipe: Callable[..., Recipe],
    log: list[str],
    qwen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trimpi.model.check_adapters", check_adapters)
    stages = {"cpt": {}, "sft": {}, "rl": {"lora": {"target_modules": ["qproj"]}}}
    with pytest.raises(UserError, match=r"^stages\.rl\.lora\.target_modules: .*qproj"):
        run_recipe(recipe(stages=stages, model={"path": str(qwen)}), tmp_path / "run")
    assert log == []


def test_a_stage_that_ended_before_its_marker_is_not_run_again(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_recipe(recipe(arms={"a": ["sft"]}), run, say=[].append)
    (run / "seed-0" / "sft" / "done.json").unlink()
    log.clear()
    run_recipe(recipe(arms={"a": ["sft"]}), run, say=[].append)
    assert log == ["report"]
    assert (run / "seed-0" / "sft" / "done.json").is_file()


def test_changed_settings_are_refused_before_anything_runs(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_recipe(recipe(), run, say=[].append)
    log.clear()
    changed = recipe(stages={"cpt": {}, "sft": {"lr": 0.5}, "rl": {}})
    with pytest.raises(UserError) as caught:
        run_recipe(changed, run, say=[].append)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6  # three stage folders hold the sft stage, and their evaluations
    assert lines[0].startswith(f"{run}/seed-0/sft: made with other settings (stages")
    assert log == []
    run_recipe(changed, run, say=[].append, overwrite=True)
    assert log[:3] == ["0:sft", "0:sft>rl", "0:cpt>sft"]
    assert (run / "seed-0" / "sft.old-1" / "stage.json").is_file()


def test_other_data_or_another_base_model_are_other_settings(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path, data: DataFolder
) -> None:
    run = tmp_path / "run"
    run_recipe(recipe(), run, say=[].append)
    base = tmp_path / "base" / "config.json"
    base.write_text('{"vision_config": {}, "x": 1}')
    with pytest.raises(UserError, match=r"model\.digest: "):
        run_recipe(recipe(), run, say=[].append)
    base.write_text('{"vision_config": {}}')
    (data.root / "card.json").write_text('{"builder": "tests:small_data", "seed": 1}')
    with pytest.raises(UserError, match=r"data: "):
        run_recipe(recipe(), run, say=[].append)


class Judge:
    """A grader whose scores depend on a model."""

    identity = "tests:judge, BERTScore F1 (roberta-base, layer 10), sha256 0123456789abcdef"

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        return Score(1.0)


def test_a_grader_with_another_model_is_another_setting(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.grading.exact_answer", Judge())
    run_recipe(recipe(), tmp_path / "run", say=[].append)
    run_recipe(recipe(), tmp_path / "run", say=[].append)
    monkeypatch.setattr(Judge, "identity", Judge.identity.replace("base, layer 10", "large, 17"))
    found = r"grader: \.\.\.roberta-base, layer 10\), sha\.\.\. -> \.\.\.roberta-large, 17\),"
    with pytest.raises(UserError, match=found):
        run_recipe(recipe(), tmp_path / "run", say=[].append)


def test_another_declaration_of_the_grader_is_another_setting(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    def declared(*options: str) -> Recipe:
        return recipe(grader={"type": "choice", "options": options})

    run_recipe(declared("Case 1", "Case 2"), tmp_path / "run", say=[].append)
    log.clear()
    run_recipe(declared("Case 1", "Case 2"), tmp_path / "run", say=[].append)
    assert log == ["report"]
    with pytest.raises(UserError, match=r"made with other settings \(grader: "):
        run_recipe(declared("Case 1", "Case 2", "Case 3"), tmp_path / "run", say=[].append)
    with pytest.raises(UserError, match=r"train.jsonl:2: grader choice: row 'train-1': answer"):
        run_recipe(declared("Case 1", "Case 3"), tmp_path / "run", say=[].append)


def test_an_edited_split_is_other_data(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path, data: DataFolder
) -> None:
    run = tmp_path / "run"
    run_recipe(recipe(), run, say=[].append)
    split = data.root / "test.jsonl"
    text = split.read_text(encoding="utf-8")
    split.write_text(text.replace('": ', '":  ', 1), encoding="utf-8")
    with pytest.raises(UserError, match=r"made with other settings \(data: "):
        run_recipe(recipe(), run, say=[].append)
    split.write_text(text, encoding="utf-8")
    run_recipe(recipe(), run, say=[].append)


def test_a_model_changed_after_its_stage_is_not_passed_on(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_recipe(recipe(), run, say=[].append)
    (run / "seed-0" / "sft" / "model" / "config.json").write_text('{"vision_config": {"a": 1}}')
    with pytest.raises(UserError, match="changed since the stage ended"):
        run_recipe(recipe(), run, say=[].append)


def test_a_base_model_without_processor_stops_the_run(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    (tmp_path / "base" / "processor_config.json").unlink()
    with pytest.raises(UserError, match="no processor"):
        run_recipe(recipe(), tmp_path / "run", say=[].append)
    assert log == []


def test_seeds_and_formats(recipe: Callable[..., Recipe], log: list[str], tmp_path: Path) -> None:
    evaluation = {"settings": ["no_policy"], "targets": {"short": "answer"}}
    several = recipe(seeds=[3, 1], arms={"short": ["sft"]}, evaluation=evaluation)
    assert measured(several, 3) == [(), ("sft",)] and measured(several, 1) == [("sft",)]
    run_recipe(several, tmp_path / "run", say=[].append)
    assert log == [
        *("3:sft", "3:eval cot base", "3:eval answer sft"),
        *("1:sft", "1:eval answer sft", "report"),
    ]


def test_one_arm_can_be_evaluated_alone(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(UserError, match="--arm lnog: unknown arm; did you mean 'long'"):
        evaluate_arm(recipe(), run, "lnog", say=[].append)
    with pytest.raises(UserError, match="not trained yet"):
        evaluate_arm(recipe(), run, "long", say=[].append)
    run_recipe(recipe(), run, say=[].append)
    log.clear()
    shorter = recipe(evaluation={"settings": ["no_policy"], "limit": 2})
    with pytest.raises(UserError, match=r"evaluation\.limit: None -> 2"):
        evaluate_arm(shorter, run, "long", say=[].append)
    evaluate_arm(shorter, run, "long", say=[].append, overwrite=True)
    assert log == ["0:eval cot sft+rl", "report"]
    other = recipe(stages={"cpt": {}, "sft": {"lr": 0.5}, "rl": {}})
    with pytest.raises(UserError, match=r"trained with other settings \(stages\.0\.lr"):
        evaluate_arm(other, run, "long", say=[].append, overwrite=True)


def test_two_runs_in_one_folder_are_refused(
    recipe: Callable[..., Recipe], log: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: list[str] = []

    def again(run: Path) -> Path:
        with pytest.raises(UserError, match="another run works in this folder"):
            run_recipe(recipe(), run, say=[].append)
        inner.append("refused")
        return run

    monkeypatch.setitem(sys.modules, "trimpi.report", SimpleNamespace(write_report=again))
    run_recipe(recipe(), tmp_path / "run", say=[].append)
    assert inner == ["refused"]


def build(out: Path, *, seed: int, rows: int = 2) -> DataFolder:
    """A builder for the tests below."""
    if rows < 1:
        raise UserError("rows: must be 1 or more")
    out.mkdir(parents=True)
    (out / "train.jsonl").write_text("")
    (out / "card.json").write_text(json.dumps({"seed": seed, "splits": {"train": rows}}))
    return DataFolder(out)


def test_data_are_built_once(recipe: Callable[..., Recipe], log: list[str], tmp_path: Path) -> None:
    run, said = tmp_path / "run", []
    name = f"{__name__}:build"
    built = {"builder": name, "args": {"rows": 3}}
    run_recipe(recipe(data=built), run, say=said.append)
    assert said[0] == "data: built in 0 s (train 3)"
    said.clear()
    run_recipe(recipe(data=built), run, say=said.append)
    assert said[0] == "data: there already (train 3)"
    for changed, message in (
        ({"builder": name, "args": {"rows": 4}}, "built with other arguments"),
        ({"builder": name, "args": {"rows": 3}, "seed": 1}, "built with other arguments"),
    ):
        with pytest.raises(UserError, match=message):
            run_recipe(recipe(data=changed), run, say=[].append)
    for args, message in (
        ({"rwos": 1}, "data.args.rwos: unknown argument; did you mean 'rows'?"),
        ({"rows": 0}, "data.args: rows: must be 1 or more"),
    ):
        with pytest.raises(UserError) as caught:
            bad = recipe(data={"builder": name, "args": args})
            run_recipe(bad, tmp_path / "fresh", say=[].append)
        assert str(caught.value) == message


def work(task: dict[int, str], seed: int, say: Callable[[str], None]) -> None:
    """What a seed does in the tests below: as `task` says."""
    deed = task.get(seed, "")
    say("starts")
    if deed == "prints":
        print("step 1", "of 2")
        print("step 2")
    if deed == "bad input":
        raise UserError("one\ntwo")
    if deed == "dies":
        os._exit(9)
    if deed == "hangs":
        time.sleep(60)
    say(f"ends after {os.environ['OMP_NUM_THREADS']} threads")


def test_seeds_run_in_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    said: list[str] = []
    run_seeds(work, {}, [4, 5, 6], 2, said.append)
    threads = max(1, (os.cpu_count() or 1) // 2)
    expected = [
        f"seed {s}: {t}" for s in (4, 5, 6) for t in ("starts", f"ends after {threads} threads")
    ]
    assert sorted(said) == sorted(expected)


def test_what_a_stage_prints_carries_its_seed() -> None:
    said: list[str] = []
    run_seeds(work, {7: "prints"}, [7, 8], 2, said.append)
    of_seven = [line for line in said if line.startswith("seed 7: ")]
    assert of_seven[:3] == ["seed 7: starts", "seed 7: step 1 of 2", "seed 7: step 2"]


def test_a_failing_seed_ends_the_others() -> None:
    start = time.monotonic()
    with pytest.raises(UserError) as caught:
        run_seeds(work, {1: "hangs", 2: "bad input"}, [1, 2], 2, [].append)
    assert str(caught.value) == "seed 2: one\nseed 2: two"
    with pytest.raises(UserError, match="seed 1: its process ended with code 9"):
        run_seeds(work, {1: "dies"}, [1, 2], 2, [].append)
    assert time.monotonic() - start < 30
