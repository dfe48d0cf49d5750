"""The end of a stage: merge, save, reload, compare, and only then mark the stage as done."""

import gc
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor

from trimpi.adapter import WORN, logits_of, merge_adapter, verify_reload
from trimpi.model import (
    default_device,
    load_config,
    load_model,
    model_digest,
    read_lineage,
    save_model,
    skeleton,
    whole_folder,
)
from trimpi.model_source import locate
from trimpi.quantization import is_quantized
from trimpi.recipe import ModelConfig, StageConfig
from trimpi.runs import STAGE, versions, write_json
from trimpi.shard_merge import factors_of, merge_shards, weight_files
from trimpi.stages.inputs import StageInputs
from trimpi.stages.monitor import gradient_report
from trimpi.stages.throughput import throughput_means


def finish_stage(
    config: StageConfig,
    inputs: StageInputs,
    model: Any,
    processor: Any,
    batch: Mapping[str, Tensor],
    record: Mapping[str, Any],
    started: float,
) -> Path:
    """Leave a complete model folder and `stage.json`; the checkpoints are removed after that.

    Args:
        config: the stage.
        inputs: what the stage got.
        model: the trained model, unwrapped, with its adapter if it has one.
        processor: saved beside the weights.
        batch: model inputs on which the saved model is compared with the trained one.
        record: further entries of `stage.json`.
        started: `time.time()` of the stage's start.

    Returns:
        The model folder, `inputs.output / "model"`.

    Raises:
        UserError: the reloaded model is not the trained one.
    """
    folder = inputs.output / "model"
    lineage = read_lineage(inputs.model)
    source = model_digest(inputs.model) if inputs.model.is_dir() else None
    lineage["steps"].append(
        {
            "stage": config.kind,
            "input": source,
            # Not the whole card: it lists every file of the data.
            "data": {key: inputs.data.card.get(key) for key in ("builder", "args", "digest")},
            "seed": inputs.seed,
            "config": config.model_dump(mode="json"),
        }
    )
    # TRL puts a forward of its own on the instance, which is no part of the model.
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    base.__dict__.pop("forward", None)
    if isinstance(model, PeftModel) and is_quantized(model):
        verified = _merge_into_dense(model, inputs, processor, batch, folder, lineage)
    else:
        verified = _save_trained(model, inputs, processor, batch, folder, lineage)
    if verified.get("kept", 1.0) < WORN:
        print(
            f"{config.kind}: {verified['kept']:.0%} of the adapter's effect is left after the "
            f"merge, {verified['dtype']} rounds the rest away; set model.dtype to float32"
        )
    write_json(
        inputs.output / STAGE,
        {
            "stage": config.kind,
            "config": config.model_dump(mode="json"),
            "model": {"path": str(inputs.model), "digest": source},
            "output_digest": model_digest(folder),
            "seed": inputs.seed,
            "gradients": gradient_report(inputs.output),
            "throughput": throughput_means(inputs.output),
            "verified": verified,
            **record,
            "seconds": round(time.time() - started, 1),
            "versions": versions(),
        },
    )
    shutil.rmtree(inputs.output / "checkpoints", ignore_errors=True)
    return folder


def stored_dtype(model: Path, config: ModelConfig) -> torch.dtype | None:
    """Precision of the saved weights: the recipe's, or that of the model that came in."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return getattr(load_config(model, config), "dtype", None)


def free_memory() -> None:
    """Give back what is no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _save_trained(
    model: Any,
    inputs: StageInputs,
    processor: Any,
    batch: Mapping[str, Tensor],
    folder: Path,
    lineage: Mapping[str, Any],
) -> dict[str, Any]:
    """Save a dense model, its adapter merged, and compare what is loaded from it."""
    adapted = isinstance(model, PeftModel)
    expected, unadapted = logits_of(model, batch), None
    if adapted:
        with model.disable_adapter():
            unadapted = logits_of(model, batch)
    plain = merge_adapter(model) if adapted else model
    save_model(plain, processor, folder, lineage, stored_dtype(inputs.model, inputs.model_config))
    plain.to("cpu")  # room for the second copy
    free_memory()
    config = inputs.model_config
    verified = verify_reload(expected, lambda: load_model(folder, config), batch, unadapted)
    return {"kind": "merge" if adapted else "reload", **verified}


def _merge_into_dense(
    model: PeftModel,
    inputs: StageInputs,
    processor: Any,
    batch: Mapping[str, Tensor],
    folder: Path,
    lineage: Mapping[str, Any],
) -> dict[str, Any]:
    """Fold the adapter of a quantized base into the dense one, on disk; then compare.

    Merging into quantized weights would round the adapter away. Of the quantized model, base +
    adapter and the merged model, one is in memory at a time.
    """
    quantized, factors = logits_of(model, batch), factors_of(model)
    adapter = inputs.output / "adapter"
    model.save_pretrained(str(adapter))
    plain: Any = model.get_base_model()
    release(model)
    dense = inputs.model_config.model_copy(
        update={"quantization": "none", "compute_dtype": "auto", "double_quant": True}
    )
    source = inputs.model
    if not source.is_dir():
        source = locate(dense.model_copy(update={"path": str(inputs.model)}))
    settings = load_config(inputs.model, dense)
    dtype = stored_dtype(inputs.model, dense)
    with whole_folder(folder, processor, lineage) as temporary:
        merge_shards(source, skeleton(settings), factors, temporary, dtype)
        for part in (settings, *(getattr(settings, name) for name in settings.sub_configs)):
            part.dtype = dtype
        settings.save_pretrained(temporary)
        plain.generation_config.save_pretrained(temporary)
    device = _device_for(source)
    if device.type == "cpu" and dense.attn_implementation == "flash_attention_2":
        dense = dense.model_copy(update={"attn_implementation": "sdpa"})
    base = load_model(inputs.model, dense, device=device)
    wrapped = PeftModel.from_pretrained(base, adapter, torch_device=str(base.device))
    expected = logits_of(wrapped, batch)
    with wrapped.disable_adapter():
        unadapted = logits_of(wrapped, batch)
    release(wrapped)
    verified = verify_reload(
        expected, lambda: load_model(folder, dense, device=device), batch, unadapted, quantized
    )
    told = "the adapter was merged into the base in full precision, shard by shard"
    return {"kind": "merge", "base": told, **verified}


def release(model: Any) -> None:
    """Let go of a model's tensors, though callers hold the model itself."""
    for module in model.modules():
        module._parameters.clear()
        module._buffers.clear()
    free_memory()


def _device_for(folder: Path) -> torch.device:
    """Where a dense copy of a model fits: it may be larger than the device it is quantized for."""
    device = default_device()
    if device.type == "cuda":
        needed = 1.2 * sum(file.stat().st_size for file in weight_files(folder))
        if torch.cuda.mem_get_info(device)[0] < needed:
            return torch.device("cpu")
    return device
