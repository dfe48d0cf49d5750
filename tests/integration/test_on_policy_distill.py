"""Distillation from the model that sees the policy, on the student's rollouts and on its own."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.integration.test_distill import ends
from tests.integration.test_sft import Killed, moved
from tests.rl_cases import by_length, rl_inputs
from trimpi.batch import IGNORED, collate, encode_example
from trimpi.errors import UserError
from trimpi.model import (
    check_model_folder,
    load_model,
    load_processor,
    model_digest,
    read_lineage,
)
from trimpi.prompt import build_messages
from trimpi.recipe import DistillConfig, ModelConfig, OnPolicyDistillConfig
from trimpi.runs import read_json, read_metrics
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages import distill, on_policy_distill
from trimpi.stages.baking import BakingTrainer
from trimpi.stages.distilling_rollouts import DistillingRolloutTrainer
from trimpi.stages.inputs import StageInputs
from trimpi.stages.rl_arguments import plan_batches

__all__ = ["ends"]
"""A fixture of the tests of plain distillation, used here too."""


@pytest.fixture
def inputs(qwen: Path, data: DataFolder, tmp_path: Path) -> StageInputs:
    return rl_inputs(qwen, data, tmp_path / "stage")


def settings(**more: Any) -> OnPolicyDistillConfig:
    small = {
        "prompts_per_step": 4,
        "micro_batch_size": 2,
        "max_new_tokens": 5,
        "lr": 1e-3,
        "lora": None,
        "lr_scheduler": "constant",
    }
    return OnPolicyDistillConfig(**{**small, **more})


def made(config: OnPolicyDistillConfig, inputs: StageInputs) -> DistillingRolloutTrainer:
    """The stage's trainer as `run` builds it."""
    samples = inputs.data.read(config.split)
    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config, train=True)
    plan = plan_batches(config, len(samples), 1)
    return on_policy_distill.build_trainer(config, inputs, samples, plan, model, processor)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
def test_families_with_pictures_in_policy_and_request(
    family: str, tiny_model: Callable[[str], Path], data: DataFolder, tmp_path: Path
) -> None:
    inputs = rl_inputs(tiny_model(family), data, tmp_path / "stage")
    config = settings(max_steps=2, lora={"r": 4} if family == "smolvlm" else None)
    check_model_folder(on_policy_distill.run(config, inputs))
    stage = read_json(inputs.output / "stage.json")
    teacher = stage["selftest"]["teacher"]
    assert teacher["same_prompt"] < 1e-5 < 1e-2 < teacher["with_policy"]
    assert stage["gradients"]["without_gradient"] == [] and stage["steps"] == 2
    own = family == "smolvlm"
    assert stage["teacher"] == {
        "of": "start",
        "kind": "the same weights, adapter off" if own else "a frozen copy",
        "path": str(inputs.model),
        "digest": model_digest(inputs.model),
    }
    assert [s["stage"] for s in read_lineage(inputs.output / "model")["steps"]] == [
        "on_policy_distill"
    ]
    first, second = read_metrics(inputs.output)
    assert first["loss"] == pytest.approx(first["distill/divergence"], rel=1e-3)
    assert "kl" not in first
    assert second["distill/divergence"] != first["distill/divergence"]
    for name in ("accuracy", "length", "truncated"):
        assert isinstance(first[f"rollout/free/{name}"], float)
    assert not [name for name in first if "no_signal" in name or "aware" in name]


def test_the_loss_is_that_of_a_plain_pass_and_the_teacher_is_left_alone(
    inputs: StageInputs,
) -> None:
    """Both prompts encoded apart, both models run apart, the formula over whole logits."""
    config = settings(prompts_per_step=4, micro_batch_size=4)
    trainer = made(config, inputs)
    before = {n: p.clone() for n, p in trainer.teacher._copied.named_parameters()}
    rows = [dict(trainer.train_dataset[i]) for i in range(4)]
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 1
    torch.manual_seed(0)
    batch = trainer._prepare_inputs(rows)
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    processor, total, tokens = trainer.processing_class, 0.0, 0
    model = load_model(inputs.model, inputs.model_config)
    for place, ids, mask in zip(
        batch["place"].tolist(), batch["completion_ids"], batch["completion_mask"], strict=True
    ):
        sample, written = inputs.data.read("train")[place], ids[mask.bool()]
        logps = []
        for policy in (None, inputs.data.policy_of(sample)):
            prompt = encode_example(processor, build_messages(sample, policy), "", "completion")
            end = prompt.labels.index(next(x for x in prompt.labels if x != IGNORED))
            cut = type(prompt)(
                prompt.input_ids[:end] + written.tolist(),
                [IGNORED] * (end + len(written)),
                {n: v[:end] + [0] * len(written) for n, v in prompt.types.items()},
                prompt.pictures,
            )
            with torch.no_grad():
                one = collate(processor, [cut])
                one.pop("labels")
                logps.append(model(**one).logits[0, end - 1 : -1].log_softmax(-1))
        student, teacher = logps
        total += float((student.exp() * (student - teacher)).sum())
        tokens += len(written)
    assert float(loss.detach()) == pytest.approx(total / tokens, rel=1e-3)
    assert any(bool(p.grad.any()) for p in trainer.model.parameters() if p.grad is not None)
    for name, parameter in trainer.teacher._copied.named_parameters():
        assert parameter.grad is None and torch.equal(parameter, before[name])


def test_with_the_adapter_off_it_is_the_frozen_copy(inputs: StageInputs, tmp_path: Path) -> None:
    """The same completions, though one trainer has a second model and the other has none."""
    found, batch = [], None
    for name, lora in (("full", None), ("lora", {"r": 4, "dropout": 0.5})):
        stage = moved(inputs, output=tmp_path / name)
        trainer = made(settings(lora=lora, divergence="jsd", kl_clip=0.05), stage)
        trainer.model.train()
        if batch is None:
            rows = [dict(trainer.train_dataset[i]) for i in range(4)]
            batch = trainer._prepare_inputs(rows)
        trainer.current_gradient_accumulation_steps = 1
        shown = [trainer.shown(place) for place in batch["place"].tolist()]
        values, _ = trainer.divergence(trainer.model, batch, shown)
        found.append((values.detach(), float(trainer.compute_loss(trainer.model, batch).detach())))
    (full, loss), (lora_values, same) = found
    assert torch.allclose(full, lora_values, atol=1e-5) and float(full.max()) > 0.05
    assert loss == pytest.approx(same, rel=1e-4)


class Stopping:
    """A grader that interrupts the stage at a call."""

    def __init__(self, at: int | None = None) -> None:
        self.calls, self.at = 0, at

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        if self.calls == self.at:
            raise KeyboardInterrupt
        self.calls += 1
        return by_length(sample, completion)


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["full", "lora"])
def test_a_resume_in_a_later_epoch_continues_to_the_bit(
    inputs: StageInputs, tmp_path: Path, lora: Any
) -> None:
    """Two rollout batches an epoch of two updates each; cut in the second epoch."""
    config = settings(lora=lora, epochs=2.0, updates_per_rollout=2, save_steps=2, top_k=20)
    whole = moved(inputs, output=tmp_path / "whole")
    expected = on_policy_distill.run(config, whole)
    with pytest.raises(KeyboardInterrupt):  # four completions are those of the self-test
        on_policy_distill.run(config, moved(inputs, grader=Stopping(at=4 + 4 * 3)))
    found = on_policy_distill.run(config, inputs)
    record = read_json(inputs.output / "stage.json")
    assert record["resumed_from"] == "checkpoint-6" and record["steps"] == 8
    assert model_digest(found) == model_digest(expected)
    rows = [
        [(row["step"], row["loss"], row["distill/divergence"]) for row in read_metrics(folder)]
        for folder in (whole.output, inputs.output)
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 8


def test_it_learns_what_the_teacher_says(inputs: StageInputs) -> None:
    config = settings(epochs=8.0, lr=3e-3, prompts_per_step=8, micro_batch_size=8)
    on_policy_distill.run(config, inputs)
    found = [row["distill/divergence"] for row in read_metrics(inputs.output)]
    assert sum(found[-2:]) / 2 < 0.85 * max(found[:3]), found


def test_another_teacher_is_found_out(inputs: StageInputs, monkeypatch: pytest.MonkeyPatch) -> None:
    make = on_policy_distill.frozen_copy

    def other(trainer: Any, path: str, how: ModelConfig) -> Any:
        copied = make(trainer, path, how)
        with torch.no_grad():
            copied.get_output_embeddings().weight.mul_(1.5)
        return copied

    monkeypatch.setattr(on_policy_distill, "frozen_copy", other)
    with pytest.raises(UserError, match="given the same prompt, teacher and student differ by"):
        on_policy_distill.run(settings(), inputs)
    assert not read_metrics(inputs.output)


def test_rows_that_cannot_be_used_are_refused(inputs: StageInputs) -> None:
    with pytest.raises(UserError, match="exceed the context") as told:
        on_policy_distill.run(settings(max_new_tokens=10**6), inputs)
    assert len(str(told.value).splitlines()) == 8
    file = inputs.data.root / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["policy"] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="row 'train-3': has no policy; name one, or drop the row"):
        on_policy_distill.run(settings(), inputs)
    with pytest.raises(UserError, match=r"on_policy_distill\.trainer\.nonsense: unknown"):
        inputs = moved(inputs, data=DataFolder(inputs.data.root))
        rows[3]["policy"] = "lumen"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        on_policy_distill.run(settings(trainer={"nonsense": 1}), inputs)


def baking(**more: Any) -> DistillConfig:
    small = {"epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2, "lora": None,
             "max_new_tokens": 6, "loss": "forward_kl"}  # fmt: skip
    return DistillConfig(**{**small, **more})


def test_baking_learns_the_teachers_distribution(inputs: StageInputs, ends: None) -> None:
    distill.run(baking(epochs=6, lr=3e-3), inputs)
    stage, rows = read_json(inputs.output / "stage.json"), read_metrics(inputs.output)
    assert stage["config"]["loss"] == "forward_kl"
    assert rows[0]["loss"] == pytest.approx(rows[0]["distill/divergence"], rel=0.05)
    assert rows[-1]["distill/divergence"] < 0.7 * rows[0]["distill/divergence"]
    assert stage["tokens_trained"] == rows[-1]["num_tokens"] > 0
    assert stage["gradients"]["without_gradient"] == []


@pytest.mark.parametrize("lora", [None, {"r": 4}], ids=["full", "lora"])
def test_the_first_loss_of_baking_is_the_divergence_by_hand_and_a_resume_is_exact(
    inputs: StageInputs, tmp_path: Path, ends: None, monkeypatch: pytest.MonkeyPatch, lora: Any
) -> None:
    config = baking(lora=lora, epochs=2, save_steps=1, batch_size=8, micro_batch_size=2)
    whole = moved(inputs, output=tmp_path / "whole")
    expected = distill.run(config, whole)
    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config)
    said = [json.loads(x) for x in (whole.output / "completions.jsonl").read_text().splitlines()]
    total, tokens = 0.0, 0
    samples = {sample.id: sample for sample in inputs.data.read("train")}
    for row in said:
        if row["verdict"] != "kept":
            continue
        sample, logps = samples[row["id"]], []
        for policy in (None, inputs.data.policy_of(sample)):
            messages = build_messages(sample, policy)
            one = encode_example(processor, messages, row["text"].strip(), "completion")
            batch = collate(processor, [one])
            kept = batch.pop("labels")[0, 1:] != IGNORED
            with torch.no_grad():
                logps.append(model(**batch).logits[0, :-1][kept].log_softmax(-1))
        student, teacher = logps
        total += float((teacher.exp() * (teacher - student)).sum())
        tokens += len(student)
    rows = read_metrics(whole.output)
    assert rows[0]["loss"] == pytest.approx(total / tokens, rel=1e-3)

    loss, calls = BakingTrainer._loss, [0]

    def killed(self: Any, *rest: Any, **more: Any) -> Any:
        calls[0] += 1
        if calls[0] > 6:  # in the second update
            raise Killed
        return loss(self, *rest, **more)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(BakingTrainer, "_loss", killed)
        distill.run(config, inputs)
    assert model_digest(distill.run(config, inputs)) == model_digest(expected)
    assert read_json(inputs.output / "stage.json")["resumed_from"] == "checkpoint-1"


def test_a_quantized_base_is_its_own_teacher(inputs: StageInputs) -> None:
    pytest.importorskip("bitsandbytes")
    how = ModelConfig(path=str(inputs.model), quantization="nf4", dtype="float32",
                      compute_dtype="float32")  # fmt: skip
    stage = moved(inputs, model_config=how)
    on_policy_distill.run(settings(lora={"r": 4}, max_steps=1), stage)
    record = read_json(stage.output / "stage.json")
    assert record["selftest"]["teacher"]["same_prompt"] < 1e-3
    assert record["teacher"]["kind"] == "the same weights, adapter off"
