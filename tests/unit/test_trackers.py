"""Trackers: names in a recipe, run names and folders, and the same numbers as in the log."""

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from trimpi.checks import check_recipe
from trimpi.console import print_findings
from trimpi.errors import UserError
from trimpi.findings import Findings
from trimpi.grading import exact_answer
from trimpi.launch import run_job
from trimpi.recipe import ModelConfig, Recipe, SftConfig
from trimpi.recipe_file import load_recipe
from trimpi.runs import read_metrics
from trimpi.sample import DataFolder
from trimpi.trackers import (
    Tracking,
    board_folder,
    evaluation_scalars,
    log_evaluation,
    missing_trackers,
    tracked,
    tracker_settings,
    tracking_of,
)

RECIPE = "name: mine\nmodel: {path: package://trimpi/models/tiny-vlm}\ndata: {folder: d}\n"


def recipe(tmp_path: Path, line: str = "", sets: list[str] | None = None) -> Recipe:
    file = tmp_path / "r.yaml"
    file.write_text(RECIPE + line)
    return load_recipe(file, sets or [])


class Writer:
    """TensorBoard's SummaryWriter."""

    made: list["Writer"]

    def __init__(self, log_dir: str, purge_step: int | None = None) -> None:
        self.folder, self.purge = Path(log_dir), purge_step
        self.scalars: list[tuple[str, float, int]] = []
        self.closed = False
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def add_text(self, *args: Any) -> None:
        pass

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Modules in the place of tensorboardX, wandb and trackio, and what they were told."""
    Writer.made = []
    seen = SimpleNamespace(wandb=[], trackio=[], writers=Writer.made, finished=[])

    def module(name: str, **content: Any) -> ModuleType:
        made = ModuleType(name)
        made.__spec__ = importlib.util.spec_from_loader(name, None)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # type: ignore[arg-type]
    module("tensorboardX", SummaryWriter=Writer)

    def init(**arguments: Any) -> None:
        names = ("WANDB_RUN_ID", "WANDB_RESUME", "WANDB_DIR", "WANDB_PROJECT")
        seen.wandb.append(arguments | {name: os.environ.get(name) for name in names})
        wandb.run = SimpleNamespace(_label=lambda **k: None, id="x", name="y", summary={})

    def finish(exit_code: int = 0) -> None:
        seen.finished.append(exit_code)
        wandb.run = None

    class Config(dict[str, Any]):
        def update(self, *args: Any, **kwargs: Any) -> None:
            pass

    wandb = module("wandb", run=None, init=init, finish=finish, config=Config(),
                   log=lambda row: seen.wandb.append(row), watch=lambda *a, **k: None)  # fmt: skip
    for name in ("wandb.sdk", "wandb.sdk.lib"):
        module(name)
    module("wandb.sdk.lib.config_util", ConfigError=ValueError)

    def begin(**arguments: Any) -> None:
        seen.trackio.append(arguments)
        seen.open = True

    def end() -> None:
        if not seen.open:
            raise RuntimeError("Call trackio.init() before trackio.finish().")
        seen.trackio.append("end")
        seen.open = False

    seen.open = False
    space = SimpleNamespace(current_space_id=SimpleNamespace(get=lambda: None))
    module("trackio", config=Config(), __version__="0.30.0", init=begin, finish=end,
           log=lambda row: seen.trackio.append(row), context_vars=space)  # fmt: skip
    for name in list(os.environ):
        if name.startswith(("WANDB_", "TRACKIO_", "TENSORBOARD_")):
            monkeypatch.delenv(name)
    return seen


def test_one_name_or_a_list_also_from_the_command_line(tmp_path: Path) -> None:
    assert recipe(tmp_path).report_to == ()
    assert recipe(tmp_path, "report_to: tensorboard\n").report_to == ("tensorboard",)
    assert recipe(tmp_path, "report_to: [wandb, trackio]\n").report_to == ("wandb", "trackio")
    assert recipe(tmp_path, sets=["report_to=tensorboard"]).report_to == ("tensorboard",)
    assert recipe(tmp_path, "report_to: wandb\n", ["report_to=none"]).report_to == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("report_to: tensorbord\n", "unknown value 'tensorbord'; did you mean 'tensorboard'"),
        ("report_to: [wandb, wandb]\n", "a tracker appears twice"),
        ("stages: {sft: {trainer: {report_to: wandb}}}\n", "use the recipe's 'report_to'"),
        ("stages: {rl: {trainer: {run_name: x}}}\n", "the recipe's name, the stage and the seed"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        recipe(tmp_path, line)
    assert said in str(error.value) and len(str(error.value).splitlines()) == 1


def test_a_missing_package_is_named_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = missing_trackers(recipe(tmp_path, "report_to: [tensorboard, wandb]\n"))
    assert [line.partition(";")[0] for line in found] == [
        "report_to: tensorboard is not installed",
        "report_to: wandb is not installed",
    ]
    assert "pip install wandb (or 'trimpi[trackers]'" in found[1]
    assert missing_trackers(recipe(tmp_path)) == []


def test_a_dry_run_shows_the_extra_in_brackets(capsys: pytest.CaptureFixture[str]) -> None:
    found = Findings(unchecked=["pip install 'trimpi[vllm]'"], notes=["a [note]"])
    print_findings(Console(soft_wrap=True), found)
    said = capsys.readouterr().out
    assert "not checked: pip install 'trimpi[vllm]'" in said and "note: a [note]" in said


def test_names_are_those_of_recipe_stage_and_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tracking_of(recipe(tmp_path, "report_to: [tensorboard, trackio]\n"), "cpt+sft", 3)
    assert found == Tracking(("tensorboard", "trackio"), "mine", "mine-cpt+sft-seed-3")
    assert Tracking.from_json(json.loads(json.dumps(found.as_json()))) == found
    assert tracking_of(recipe(tmp_path), "sft", 0) is None and Tracking.from_json(None) is None
    assert tracker_settings(None) == {"report_to": "none"}
    for name in ("TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.delenv(name, raising=False)
    assert tracker_settings(found) == {
        "report_to": ["trackio"], "run_name": "mine-cpt+sft-seed-3", "project": "mine"
    }  # fmt: skip
    assert board_folder(found, tmp_path / "s") == tmp_path / "s" / "logs"
    monkeypatch.setenv("TRACKIO_PROJECT", "theirs")
    monkeypatch.setenv("TRACKIO_SPACE_ID", "me/space")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "all"))
    asked = tracker_settings(found)
    assert (asked["project"], asked["trackio_space_id"]) == ("theirs", "me/space")
    assert board_folder(found, tmp_path / "s") == tmp_path / "all" / "mine-cpt+sft-seed-3"


def test_wandb_goes_on_with_its_run_and_keeps_what_the_user_set(
    tmp_path: Path, fakes: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = sys.modules["wandb"]
    tracking = Tracking(("wandb",), "mine", "mine-sft-seed-0")
    for _ in range(2):
        with tracked(tracking, tmp_path):
            wandb.init()
        assert "WANDB_RUN_ID" not in os.environ
    first, second = fakes.wandb
    assert first["WANDB_RUN_ID"] == second["WANDB_RUN_ID"] and first["WANDB_RESUME"] == "allow"
    assert first["WANDB_PROJECT"] == "mine" and first["WANDB_DIR"] == str(tmp_path / "logs")
    monkeypatch.setenv("WANDB_PROJECT", "theirs")
    with pytest.raises(ValueError), tracked(tracking, tmp_path / "other"):
        wandb.init()
        raise ValueError
    assert fakes.wandb[2]["WANDB_PROJECT"] == "theirs" == os.environ["WANDB_PROJECT"]
    assert fakes.wandb[2]["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]
    assert fakes.finished == [0, 0, 1]


@pytest.fixture
def job(qwen: Path, data: DataFolder, tmp_path: Path) -> dict[str, Any]:
    """An SFT stage of two updates that reports to all three."""
    config = SftConfig(
        max_steps=2, lr=1e-3, batch_size=2, micro_batch_size=2, save_steps=1, limit=4
    )
    names = ("tensorboard", "trackio", "wandb")
    return {
        "stage": config.model_dump(mode="json"),
        "model": str(qwen),
        "model_config": ModelConfig(path=str(qwen)).model_dump(mode="json"),
        "data": str(data.root),
        "output": str(tmp_path / "sft"),
        "seed": 0,
        "grader": f"{exact_answer.__module__}:{exact_answer.__name__}",
        "base": None,
        "replay": None,
        "tracking": Tracking(names, "mine", "mine-sft-seed-0").as_json(),
    }


def test_trackers_see_what_the_log_holds(
    job: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    run_job(job)
    rows = read_metrics(tmp_path / "sft")
    expected = {
        (f"train/{name}", value, row["step"])
        for row in rows
        for name, value in row.items()
        if name != "step" and value is not None
    }
    assert len(rows) == 2 and any("tokens_per_second" in name for name, _, _ in expected)
    (writer,) = fakes.writers
    assert expected <= set(writer.scalars) and writer.closed
    assert writer.folder == tmp_path / "sft" / "logs" and writer.purge is None
    begun, *logged = fakes.trackio
    assert (begun["project"], begun["name"], begun["space_id"]) == ("mine", "mine-sft-seed-0", None)
    assert logged[-1] == "end"
    logged = [row for row in logged if row != "end"]
    for told in (logged, fakes.wandb[1:]):
        values = {
            (name, value, row["train/global_step"]) for row in told for name, value in row.items()
            if isinstance(value, int | float)
        }  # fmt: skip
        assert expected <= values
    assert fakes.wandb[0]["name"] == "mine-sft-seed-0" and fakes.finished == [0]


def test_a_stage_that_goes_on_takes_back_the_steps_that_it_makes_again(
    job: dict[str, Any], fakes: SimpleNamespace, tmp_path: Path
) -> None:
    from trimpi.stages.monitor import MetricsLog

    def stop(self: Any, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MetricsLog, "on_step_end", stop, raising=False)
        run_job(job)
    run_job(job)
    first, second = fakes.writers
    assert (first.purge, second.purge) == (None, 2) and first.folder == second.folder
    starts = [row for row in fakes.wandb if "WANDB_RUN_ID" in row]
    assert len({row["WANDB_RUN_ID"] for row in starts}) == 1 and fakes.finished == [1, 0]


def test_an_evaluations_numbers_are_a_run_of_their_own(
    tmp_path: Path, fakes: SimpleNamespace
) -> None:
    measured = {"rows": 3, "accuracy": {"value": 0.5, "low": 0.1}, "setting": "no_policy"}
    summary = {"settings": {"no_policy": measured | {"policy_in_prompt": False}}}
    expected = {"eval/no_policy/rows": 3.0, "eval/no_policy/accuracy": 0.5}
    assert evaluation_scalars(summary) == expected
    names = ("tensorboard", "trackio", "wandb")
    log_evaluation(Tracking(names, "mine", "mine-eval-sft-seed-0"), tmp_path, summary)
    (writer,) = fakes.writers
    assert dict(row[:2] for row in writer.scalars) == expected
    assert fakes.trackio[0]["name"] == "mine-eval-sft-seed-0"
    assert fakes.trackio[1] == fakes.wandb[1] == expected and fakes.finished == [0]
    log_evaluation(None, tmp_path, summary)
    assert len(fakes.writers) == 1


@pytest.mark.skipif(
    importlib.util.find_spec("tensorboard") is None, reason="tensorboard is not installed"
)
def test_tensorboard_reads_what_was_written(job: dict[str, Any], tmp_path: Path) -> None:
    job["tracking"]["report_to"] = ["tensorboard"]
    run_job(job)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "sft" / "logs")).Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    logged = {row["step"]: row["loss"] for row in read_metrics(tmp_path / "sft")}
    assert losses == pytest.approx(logged) and len(losses) == 2
    assert not list((tmp_path / "sft").glob("checkpoints/runs"))


def test_packages_that_are_missing_stop_a_run_and_are_noted_by_a_dry_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = recipe(tmp_path, "report_to: wandb\n", ["model.attn_implementation=flash_attention_2"])
    found = importlib.util.find_spec
    absent = ("wandb", "flash_attn", "kernels")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name in absent else found(name, *a)
    )
    for dry in (False, True):
        findings = check_recipe(asked, tmp_path / "run", estimates=dry)
        lines = findings.unchecked if dry else findings.problems
        for key in ("report_to: wandb is not installed", "model.attn_implementation: flash_"):
            assert sum(line.startswith(key) for line in lines) == 1
