"""SFT end to end: what the model is shown and trained on, the merged adapter, resuming."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from trimpi.batch import IGNORED
from trimpi.errors import UserError
from trimpi.generate import TransformersGenerator
from trimpi.grading import exact_answer
from trimpi.model import load_model, load_processor, model_digest, read_lineage
from trimpi.prompt import build_messages
from trimpi.recipe import CptConfig, LoraConfig, ModelConfig, SftConfig
from trimpi.runs import read_metrics
from trimpi.sample import DataFolder
from trimpi.stages import cpt, sft
from trimpi.stages.checkpoints import mark_whole, resume_point
from trimpi.stages.inputs import StageInputs
from trimpi.stages.supervised import SupervisedTrainer
from trimpi.stages.throughput import RATES


@pytest.fixture
def inputs(qwen: Path, qwen_config: ModelConfig, data: DataFolder, tmp_path: Path) -> StageInputs:
    return StageInputs(qwen, qwen_config, data, tmp_path / "sft", 0, exact_answer)


def settings(**more: Any) -> SftConfig:
    return SftConfig(**{"epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2, **more})


def moved(inputs: StageInputs, **changes: Any) -> StageInputs:
    return StageInputs(**{**vars(inputs), **changes})


def spy_on_batches(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    seen: list[dict[str, torch.Tensor]] = []
    compute = SupervisedTrainer.compute_loss

    def spy(self: Any, model: Any, batch: Any, *rest: Any, **more: Any) -> Any:
        seen.append({key: batch[key].clone() for key in ("input_ids", "labels")})
        return compute(self, model, batch, *rest, **more)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    return seen


@pytest.mark.parametrize(
    ("more", "policy", "written"),
    [
        ({}, False, "<think> Condition 1: is there a red object? {word}. The response is Case {n}. "
                    "</think> \\boxed{{Case {n}}}<|im_end|>"),
        ({"target": "answer", "split": "train"}, False, "\\boxed{{Case {n}}}<|im_end|>"),
        ({"target": "answer", "show_policy": True}, True, "\\boxed{{Case {n}}}<|im_end|>"),
    ],
)  # fmt: skip
def test_the_completion_alone_is_in_the_loss(
    inputs: StageInputs,
    monkeypatch: pytest.MonkeyPatch,
    more: dict[str, Any],
    policy: bool,
    written: str,
) -> None:
    seen = spy_on_batches(monkeypatch)
    sft.run(settings(**more), inputs)
    tokenizer = load_processor(inputs.model, inputs.model_config).tokenizer
    allowed = {written.format(word="Yes", n=1), written.format(word="No", n=2)}
    found = set()
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            found.add(tokenizer.decode(labels[labels != IGNORED]))
            assert ("is there an object like" in tokenizer.decode(ids)) == policy
    assert found == allowed


def test_an_adapter_is_merged_and_only_the_language_model_changes(inputs: StageInputs) -> None:
    folder = sft.run(settings(epochs=4), inputs)
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["verified"]["kind"] == "merge"
    assert stage["verified"]["max_abs"] <= stage["verified"]["limit"]
    assert stage["gradients"] == {"steps": 2, "tensors": 28, "without_gradient": []}
    assert stage["parameters"]["trainable"] < 0.2 * stage["parameters"]["total"]
    before = load_model(inputs.model, inputs.model_config).state_dict()
    after = load_model(folder, inputs.model_config).state_dict()
    assert set(before) == set(after)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert len(changed) == 14
    assert all(".language_model.layers." in name for name in changed)


def test_a_small_model_learns_the_policy_by_heart(inputs: StageInputs) -> None:
    """The whole path: train, merge, save, load, generate, and the answers are right."""
    config = settings(epochs=60, lr=3e-3, batch_size=8, micro_batch_size=8, lora=None)
    folder = sft.run(config.model_copy(update={"target": "answer"}), inputs)
    samples = inputs.data.read("train_cot")
    model = load_model(folder, inputs.model_config)
    generator = TransformersGenerator(model, load_processor(folder, inputs.model_config))
    prompts = [build_messages(sample, None, "answer") for sample in samples]
    answers = generator(prompts, max_new_tokens=16)
    assert [a.text for a in answers] == [f"\\boxed{{{s.answer}}}" for s in samples]
    assert not any(answer.truncated for answer in answers)


def test_stages_chain_and_lineage_grows(inputs: StageInputs, tmp_path: Path) -> None:
    first = cpt.run(
        CptConfig(epochs=1, batch_size=8, micro_batch_size=8),
        moved(inputs, output=tmp_path / "cpt"),
    )
    second = sft.run(settings(), moved(inputs, model=first))
    third = sft.run(settings(lora=None), moved(inputs, model=second, output=tmp_path / "again"))
    lineage = read_lineage(third)
    assert [step["stage"] for step in lineage["steps"]] == ["cpt", "sft", "sft"]
    assert lineage["steps"][1]["input"] == model_digest(first)
    assert lineage["base_digest"] == model_digest(inputs.model)


def numbers(output: Path) -> list[dict[str, Any]]:
    """The log without its times."""
    return [{k: v for k, v in row.items() if k not in RATES} for row in read_metrics(output)]


class Killed(BaseException):
    """Stands for a kill at a chosen moment."""


def killed_after(monkeypatch: pytest.MonkeyPatch, passes: int) -> None:
    step, count = SupervisedTrainer.training_step, [0]

    def training_step(self: Any, *rest: Any, **more: Any) -> Any:
        if count[0] == passes:
            raise Killed
        count[0] += 1
        return step(self, *rest, **more)

    monkeypatch.setattr(SupervisedTrainer, "training_step", training_step)


@pytest.mark.parametrize("lora", [None, LoraConfig(dropout=0.1)])
def test_a_killed_stage_goes_on_as_if_nothing_had_happened(
    inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora: LoraConfig | None
) -> None:
    """Killed in the third epoch, in the middle of an update: same losses, same final weights."""
    config = settings(epochs=4, save_steps=1, lora=lora)
    whole = moved(inputs, output=tmp_path / "whole")
    reference = model_digest(sft.run(config, whole))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 11)
        sft.run(config, inputs)
    assert not (inputs.output / "stage.json").exists()
    # The newest checkpoint is damaged as a kill would damage it; the one before is taken.
    newest = inputs.output / "checkpoints" / "checkpoint-5"
    (newest / "optimizer.pt").write_bytes(b"")
    assert model_digest(sft.run(config, inputs)) == reference
    assert numbers(inputs.output) == numbers(whole.output)
    assert json.loads((inputs.output / "stage.json").read_text())["resumed_from"] == "checkpoint-4"


def test_only_whole_checkpoints_are_resumed(tmp_path: Path) -> None:
    for step, whole in ((9, True), (10, True), (11, False), (12, True)):
        folder = tmp_path / "checkpoints" / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"1234")
        if whole:
            mark_whole(folder)
    (tmp_path / "checkpoints" / "checkpoint-12" / "model.safetensors").write_bytes(b"12")
    log = [{"step": step, "loss": 1.0} for step in range(1, 13)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
    assert resume_point(tmp_path) == tmp_path / "checkpoints" / "checkpoint-10"
    assert [row["step"] for row in read_metrics(tmp_path)] == list(range(1, 11))
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["checkpoint-10", "checkpoint-9"]
    assert resume_point(tmp_path / "nothing") is None


def test_a_sigkill_leaves_nothing_that_passes_for_whole(inputs: StageInputs) -> None:
    """Killed in its sixth update, the stage goes on from the fourth to the very same weights."""
    config = settings(epochs=4, save_steps=2)
    whole = moved(inputs, output=inputs.output.with_name("whole"))
    reference = model_digest(sft.run(config, whole))
    assert len(read_metrics(whole.output)) > 6
    code = f"""
import time
from pathlib import Path
from tests.integration.test_sft import settings
from trimpi.grading import exact_answer
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder
from trimpi.stages import sft
from trimpi.stages.supervised import SupervisedTrainer
from trimpi.stages.inputs import StageInputs
model = Path({str(inputs.model)!r})
data, output = DataFolder(Path({str(inputs.data.root)!r})), Path({str(inputs.output)!r})
inputs = StageInputs(model, ModelConfig(path=str(model)), data, output, 0, exact_answer)
compute = SupervisedTrainer.compute_loss
def stop_at_six(self, *arguments, **more):
    if self.state.global_step == 5:
        time.sleep(600)
    return compute(self, *arguments, **more)
SupervisedTrainer.compute_loss = stop_at_six
sft.run(settings(epochs=4, save_steps=2), inputs)
"""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    deadline = time.monotonic() + 120
    while len(read_metrics(inputs.output)) < 5 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (inputs.output / "stage.json").exists()
    assert not (inputs.output / "model").exists()
    reached = resume_point(inputs.output)
    assert reached is not None and reached.name == "checkpoint-4"
    assert model_digest(sft.run(config, inputs)) == reference
    assert numbers(inputs.output) == numbers(whole.output)
    assert json.loads((inputs.output / "stage.json").read_text())["resumed_from"] == "checkpoint-4"


def test_a_saved_model_that_is_not_the_trained_one_stops_the_stage(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights damaged on their way to disk: refused, no stage.json, and the next run repairs it."""
    from safetensors.torch import load_file, save_file

    from trimpi.stages import finish

    save = finish.save_model

    def damaged(*arguments: Any) -> Path:
        folder = save(*arguments)
        tensors = load_file(folder / "model.safetensors")
        tensors = {k: torch.randn_like(t) if "o_proj" in k else t for k, t in tensors.items()}
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    config = settings(epochs=2, max_steps=3, save_steps=1)
    reference = model_digest(sft.run(config, moved(inputs, output=inputs.output / "reference")))
    with monkeypatch.context() as patch, pytest.raises(UserError, match="not the trained one"):
        patch.setattr(finish, "save_model", damaged)
        sft.run(config, inputs)
    assert not (inputs.output / "stage.json").exists()
    assert model_digest(sft.run(config, inputs)) == reference
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["resumed_from"] == "checkpoint-3" and stage["steps"] == 3


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_killed_after_the_last_update_where_an_engine_loads(
    lora: Any, inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As DeepSpeed's: the checkpoint's weights are handed on, not those that entered."""
    from trimpi.stages import checkpoints, finish

    def kill(*arguments: Any) -> None:
        raise Killed

    config = settings(max_steps=2, save_steps=1, lora=lora)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(finish, "save_model", kill)
        sft.run(config, inputs)
    plain = moved(inputs, output=inputs.output.with_name("plain"))
    shutil.copytree(inputs.output, plain.output)
    reference = model_digest(sft.run(config, plain))
    log = read_metrics(inputs.output)
    monkeypatch.setattr(checkpoints, "loads_by_engine", lambda trainer: True)
    assert model_digest(sft.run(config, inputs)) == reference != model_digest(inputs.model)
    assert read_metrics(inputs.output) == log


def test_quantization_without_bitsandbytes_is_refused_before_anything_is_loaded(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setattr("trimpi.stages.supervised.load_processor", lambda *_: pytest.fail("loaded"))
    config = inputs.model_config.model_copy(update={"quantization": "nf4"})
    with pytest.raises(UserError, match=r"model\.quantization: nf4 needs bitsandbytes"):
        sft.run(settings(), moved(inputs, model_config=config))


def test_a_bad_picture_is_named_with_its_row(inputs: StageInputs) -> None:
    (inputs.data.root / "images" / "train_cot" / "000003.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"train_cot: row 'train_cot-3': .*000003\.png: not a read"):
        sft.run(settings(), inputs)
