"""Stages on a quantized base: they learn, hand on a dense model, and hold one model at a time."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests import tiny_models
from tests.adapters import learned_adapter
from tests.rl_cases import by_length, rl_config
from trimpi.batch import collate, encode_text
from trimpi.model import load_model, load_processor, read_lineage
from trimpi.quantization import prepare_quantized
from trimpi.recipe import CptConfig, LoraConfig, ModelConfig, SftConfig
from trimpi.runs import read_json, read_metrics
from trimpi.sample import DataFolder
from trimpi.shard_merge import merge_shards, weight_files
from trimpi.stages import cpt, finish, rl, sft
from trimpi.stages.inputs import StageInputs

pytest.importorskip("bitsandbytes", reason="the extra 'quantized' is not installed")

kinds = pytest.mark.parametrize("kind", ["nf4", "int8"])
SHAPE: dict[str, Any] = {"lr": 3e-3, "batch_size": 4, "micro_batch_size": 2}


@pytest.fixture
def inputs(qwen: Path, data: DataFolder, tmp_path: Path) -> Callable[..., StageInputs]:
    def make(kind: str, **changes: Any) -> StageInputs:
        config = ModelConfig(path=str(qwen), quantization=kind)
        return replace(StageInputs(qwen, config, data, tmp_path / "s", 0, by_length), **changes)

    return make


def changed_tensors(inputs: StageInputs, folder: Path) -> set[str]:
    dense = ModelConfig(path=str(folder))
    before, after = (load_model(f, dense).state_dict() for f in (inputs.model, folder))
    assert set(before) == set(after)
    return {name for name in before if not torch.equal(before[name], after[name])}


def check_hand_off(inputs: StageInputs, folder: Path) -> dict[str, Any]:
    """The merged model is base + adapter within the stated limit; what quantizing moved is told."""
    stage = json.loads((inputs.output / "stage.json").read_text())
    verified = stage["verified"]
    assert verified["kind"] == "merge" and "full precision, shard by shard" in verified["base"]
    assert verified["max_abs"] <= verified["limit"] == pytest.approx(1e-3 * verified["spread"])
    assert verified["learned"] > 0 and verified["kept"] == pytest.approx(1, abs=1e-3)
    apart = verified["against_quantized"]
    # Far above the rounding of the merge: this is the base's own quantization.
    assert 10 * verified["mean_abs"] < apart["mean_abs"] < verified["spread"]
    assert 0 <= apart["same_token"] <= 1
    assert stage["gradients"]["without_gradient"] == [] and stage["gradients"]["tensors"] == 28
    changed = changed_tensors(inputs, folder)
    assert len(changed) == 14 and all(".language_model.layers." in name for name in changed)
    saved = read_json(folder / "config.json")
    assert isinstance(saved, dict) and "quantization_config" not in saved
    return dict(stage)


@kinds
def test_cpt_then_sft(inputs: Callable[..., StageInputs], tmp_path: Path, kind: str) -> None:
    first = inputs(kind)
    folder = cpt.run(CptConfig(epochs=2, lora=LoraConfig(), **SHAPE), first)
    check_hand_off(first, folder)
    second = inputs(kind, model=folder, output=tmp_path / "sft")
    final = sft.run(SftConfig(epochs=4, **SHAPE), second)
    check_hand_off(second, final)
    for stage in (first, second):
        losses = [row["loss"] for row in read_metrics(stage.output)]
        assert losses[-1] < losses[0] - 0.3


@kinds
def test_rl_pulls_towards_the_same_weights_with_the_adapter_off(
    inputs: Callable[..., StageInputs], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """No second model: weights are loaded once before training, and one at a time after it."""
    given = inputs(kind)
    loaded: list[Any] = []
    alive: list[int] = []
    read = transformers.PreTrainedModel.from_pretrained.__func__  # type: ignore[attr-defined]

    def counted(cls: Any, *args: Any, **kwargs: Any) -> Any:
        alive.append(sum(any(True for _ in model.parameters()) for model in loaded))
        loaded.append(read(cls, *args, **kwargs))
        return loaded[-1]

    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", classmethod(counted))
    in_training: list[tuple[int, Any]] = []
    step = rl.ShapedRolloutTrainer.training_step

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        in_training.append((len(loaded), self.ref_model))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(rl.ShapedRolloutTrainer, "training_step", training_step)
    config = rl_config(lora=LoraConfig(r=4), beta=0.05, max_steps=3, lr=3e-3)
    folder = rl.run(config, given)
    assert in_training and set(in_training) == {(1, None)}
    # Then the dense base and the merged model, each after the one before it has let go.
    assert alive == [0, 0, 0]
    stage = check_hand_off(given, folder)
    assert stage["kl_reference"]["kind"] == "the same weights, adapter off"
    kl = [row["kl"] for row in read_metrics(given.output)]
    assert kl[0] == pytest.approx(0, abs=1e-6) and kl[-1] > 1e-5


def test_checkpointing_changes_no_number(
    inputs: Callable[..., StageInputs], tmp_path: Path
) -> None:
    """Gradients reach the adapters through checkpointed layers of a frozen base."""
    found = []
    for checkpointing in (False, True):
        given = inputs("nf4", output=tmp_path / str(checkpointing))
        config = SftConfig(max_steps=2, gradient_checkpointing=checkpointing, **SHAPE)
        sft.run(config, given)
        found.append([r[key] for r in read_metrics(given.output) for key in ("loss", "grad_norm")])
    assert found[0] == pytest.approx(found[1]) and min(found[0]) > 0


def test_a_hand_off_in_a_fresh_process(
    data: DataFolder, tmp_path: Path, run_python: Callable[[str], str]
) -> None:
    """Peaks that the kernel measures: of the merge alone, and with both dense models compared."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of a process can be reset on Linux alone")
    base = tmp_path / "base"
    tiny_models.wide_qwen(base)
    done = run_python(
        f"""
import sys
import trimpi.model, trimpi.evaluate.runner
print([m for m in ('bitsandbytes', 'peft') if m in sys.modules])
from tests.integration.test_quantized import hand_off_peak
hand_off_peak({str(base)!r}, {str(data.root)!r}, {str(tmp_path)!r})"""
    ).splitlines()
    # peft imports bitsandbytes, which warns of what it could not download; evaluation needs none.
    assert done[0] == "[]"
    size, merge, whole = json.loads(done[-1])
    assert size > 64 * 2**20
    assert merge < 0.5 * size, f"{merge / 2**20:.0f} MiB for a model of {size / 2**20:.0f} MiB"
    assert whole < 1.5 * size, f"{whole / 2**20:.0f} MiB for a model of {size / 2**20:.0f} MiB"


def hand_off_peak(base: str, data: str, output: str) -> None:
    """Print bytes of the model, and how far memory rose in its merge and in all."""
    config = ModelConfig(path=base, quantization="nf4")
    inputs = StageInputs(Path(base), config, DataFolder(Path(data)), Path(output), 0, by_length)
    processor = load_processor(base, config)
    prompt = [{"role": "user", "content": [{"type": "text", "text": "Which case applies?"}]}]
    batch = collate(processor, [encode_text(processor, prompt)])
    model = load_model(base, config)
    prepare_quantized(model)
    wrapped = learned_adapter(model, std=0.02)
    merging, peaks = [], []

    def merge(*arguments: Any) -> None:
        peaks.append(resident("VmHWM"))
        start_peak()  # what was let go before belongs to the whole alone
        before = resident("VmRSS")
        merge_shards(*arguments, shard_bytes=4 * 2**20)
        merging.append(resident("VmHWM") - before)

    finish.merge_shards = merge  # type: ignore[assignment]
    lineage = read_lineage(base)
    start_peak()
    before = resident("VmRSS")
    finish._merge_into_dense(wrapped, inputs, processor, batch, Path(output) / "model", lineage)
    size = sum(file.stat().st_size for file in weight_files(Path(base)))
    print(json.dumps([size, *merging, max(*peaks, resident("VmHWM")) - before]))


def start_peak() -> None:
    """Let `VmHWM` start anew from what is in memory now."""
    Path("/proc/self/clear_refs").write_text("5")


def resident(key: str) -> int:
    """Bytes of this process in memory, mapped files included, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024
