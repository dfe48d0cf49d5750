"""Failures of training in one line: memory that runs out, losses that are not finite."""

import errno
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import PreTrainedModel

from tests.rl_cases import rl_config, rl_inputs
from trimpi.errors import UserError
from trimpi.launch import run_job, run_stage
from trimpi.recipe import LoraConfig, ModelConfig, Recipe, RlConfig, SftConfig
from trimpi.sample import DataFolder
from trimpi.schedule import plan_schedule
from trimpi.stages import rl, sft
from trimpi.stages.checkpoints import UNFINISHED
from trimpi.stages.failures import (
    check_loss,
    is_out_of_memory,
    memory_faults_named,
    what_to_lower,
)
from trimpi.stages.inputs import StageInputs
from trimpi.stages.policy_rollout import PolicyRolloutTrainer
from trimpi.stages.supervised import SupervisedTrainer

CPU = "[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you tried"


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError(CPU), True),
        (RuntimeError("MPS backend out of memory"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_which_errors_are_of_memory(error: Exception, is_one: bool) -> None:
    assert is_out_of_memory(error) == is_one


def test_the_real_error_of_a_cpu_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


def test_only_what_can_still_be_lowered_is_named() -> None:
    model = ModelConfig(path="x")
    full = what_to_lower(RlConfig(micro_batch_size=4), model)
    for key in ("micro_batch_size (4)", "gradient_checkpointing: true", "max_new_tokens (512)",
                "beta: 0", "a lora", "quantization: nf4 with a lora", "max_pixels"):  # fmt: skip
        assert key in full
    low = SftConfig(gradient_checkpointing=True, lora=LoraConfig())
    quantized = ModelConfig(path="x", quantization="nf4", max_pixels=1000)
    assert what_to_lower(low, quantized) == "shorten the policy, or take more devices"


@pytest.fixture
def inputs(qwen: Path, data: DataFolder, tmp_path: Path) -> StageInputs:
    return rl_inputs(qwen, data, tmp_path / "out")


def job_of(config: Any, inputs: StageInputs) -> dict[str, Any]:
    return {
        "stage": config.model_dump(mode="json"),
        "model": str(inputs.model),
        "model_config": inputs.model_config.model_dump(mode="json"),
        "data": str(inputs.data.root),
        "output": str(inputs.output),
        "seed": 0,
        "grader": "trimpi.grading:exact_answer",
        "base": None,
        "replay": None,
    }


@pytest.mark.parametrize("kind", ["sft", "rl"])
def test_memory_that_runs_out_in_a_stage(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    trainer = SupervisedTrainer if kind == "sft" else PolicyRolloutTrainer
    step = trainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 1:
            raise RuntimeError(CPU)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", training_step)
    supervised = SftConfig(batch_size=4, micro_batch_size=2, save_steps=1, max_steps=3)
    config = supervised if kind == "sft" else rl_config(save_steps=1)
    with pytest.raises(UserError) as caught:
        run_job(job_of(config, inputs))
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert line.startswith(f"{kind}: out of memory after step 1; lower micro_batch_size (")
    assert "; estimated " in line and "per device: " in line and "activations " in line
    assert line.endswith("; checkpoint-1 is kept")
    if kind == "rl":
        assert "lower max_new_tokens (6) or prompts_per_step" in line and "reference " in line


@pytest.mark.parametrize("place", ["checkpoint", "log", "model"])
def test_a_disk_that_fills_up_in_a_stage(
    inputs: StageInputs,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    place: str,
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    save = SupervisedTrainer._save_rng_state

    def full_at_two(self: Any, *args: Any) -> None:
        full() if self.state.global_step == 2 else save(self, *args)

    config = SftConfig(batch_size=4, micro_batch_size=2, save_steps=1, max_steps=3)
    inputs.output.mkdir()
    log = inputs.output / "metrics.jsonl"
    with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
        if place == "checkpoint":
            patch.setattr(SupervisedTrainer, "_save_rng_state", full_at_two)
        elif place == "log":
            log.symlink_to("/dev/full")
        else:
            patch.setattr(PreTrainedModel, "save_pretrained", full)
            config = config.model_copy(update={"save_steps": None, "max_steps": 1})
        run_job(job_of(config, inputs))
    line = str(caught.value)
    where = log if place == "log" else inputs.output
    assert line.startswith(f"sft: {where}: cannot be written, no space is left on its disk (")
    assert len(line.splitlines()) == 1 and line.endswith("the same command goes on")
    assert not (inputs.output / "stage.json").exists() and not (inputs.output / "model").exists()
    assert not (inputs.output / ".model.part").exists()
    if place == "log":
        assert "; there is no checkpoint yet, " in line
        return
    assert "; a checkpoint takes " in line and "; checkpoint-1 is kept, " in line
    if place == "model":
        return
    assert (inputs.output / "checkpoints" / UNFINISHED / "checkpoint-2").is_dir()  # half of it
    run_job(job_of(config, inputs))
    assert "checkpoint-2: not whole, its writing was cut off; removed" in capsys.readouterr().out
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["resumed_from"] == "checkpoint-1" and stage["steps"] == 3


def test_other_errors_pass_through(inputs: StageInputs) -> None:
    with (
        pytest.raises(RuntimeError, match="shapes"),
        memory_faults_named(SftConfig(), inputs),
    ):
        raise RuntimeError("shapes do not match")
    with (
        pytest.raises(UserError, match=r"before the end of the first step.*no checkpoint yet"),
        memory_faults_named(SftConfig(), inputs),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_processes_that_were_killed(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    raw = {
        "name": "r",
        "launcher": "sh -c 'kill -9 $$'",
        "model": {"path": str(qwen)},
        "data": {"folder": str(data.root)},
        "stages": {"sft": {}},
    }
    recipe = Recipe.model_validate(raw)
    with pytest.raises(UserError, match="were killed, most likely because memory ran out; lower"):
        run_stage(recipe, recipe.stages["sft"], qwen, data.root, tmp_path / "out", 0)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"policy_fraction": 1.0}, "1 leaves no policy-free row in a group; choose a share below"),
        ({"policy_fraction": 1.5}, "1.5 leaves no policy-free row in a group; choose a share"),
        ({"group_size": 5}, "policy_fraction 0.5 of group_size 5 is 2.5 completions; choose a"),
    ],
)
def test_groups_that_cannot_be_halved(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(line)):
        rl_config(micro_batch_size=1, **settings)


@pytest.mark.parametrize(
    ("devices", "line"),
    [
        (8, "a batch of 12 is not a multiple of micro_batch_size 1 x 8 devices; change one of"),
        (4, "12 completions on 4 devices are 3 each, not a multiple of 2, so devices would diff"),
    ],
)
def test_groups_that_do_not_divide_across_ranks(devices: int, line: str) -> None:
    config = rl_config(prompts_per_step=3, micro_batch_size=1)
    with pytest.raises(UserError, match=re.escape(f"stages.rl: {line}")):
        plan_schedule(config, 100, devices, "stages.rl")


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite(tmp_path: Path, value: str) -> None:
    check_loss(torch.tensor(3.0), "sft", 1, lambda: ["a"], tmp_path)
    rows = [f"train row 'r{n}'" for n in range(10)]
    with pytest.raises(UserError) as caught:
        check_loss(torch.tensor(float(value)), "sft", 7, lambda: rows, tmp_path)
    assert str(caught.value) == (
        f"sft: step 7: the loss is {value} on {', '.join(rows[:8])} and 2 more; lower lr, or look "
        "at these rows; there is no checkpoint yet"
    )


def test_supervised_stages_name_step_and_rows_and_keep_the_checkpoint(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trl import SFTTrainer

    method = SFTTrainer.compute_loss

    def bad(self: Any, *args: Any, **kwargs: Any) -> Any:
        loss = method(self, *args, **kwargs)
        return loss * torch.nan if self.state.global_step == 1 else loss

    config = SftConfig(batch_size=4, micro_batch_size=2, save_steps=1, max_steps=3, lr=1e-3)
    with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
        patch.setattr(SFTTrainer, "compute_loss", bad)
        sft.run(config, inputs)
    line = str(caught.value)
    assert line.startswith("sft: step 2: the loss is nan on train_cot row 'train_cot-")
    assert line.count("train_cot row") == 2 and line.endswith("; checkpoint-1 is kept")
    folder = sft.run(config, inputs)  # mended, it goes on
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["resumed_from"] == "checkpoint-1" and folder.is_dir()


def test_rl_names_step_and_rows(inputs: StageInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    from trl import GRPOTrainer

    method = GRPOTrainer._compute_loss

    def bad(self: Any, model: Any, batch: Any) -> Any:
        assert batch["place"].shape == batch["is_aware"].shape
        return method(self, model, batch) * torch.inf

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", bad)
    with pytest.raises(
        UserError, match=r"rl: step 1: the loss is (nan|-?inf) on train row 'train-"
    ):
        rl.run(rl_config(), inputs)
