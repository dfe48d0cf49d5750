"""The end of a stage: merge, save, reload, compare, and only then mark the stage as done."""

import gc
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import peft
import torch
from peft import PeftModel
from torch import Tensor

from trimpi.adapter import WORN, logits_of, merge_adapter, verify_reload
from trimpi.model import load_config, load_model, model_digest, read_lineage, save_model
from trimpi.recipe import ModelConfig, StageConfig
from trimpi.runs import STAGE, versions, write_json
from trimpi.stages.inputs import StageInputs
from trimpi.stages.monitor import gradient_report


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
    verified: dict[str, Any] = {"kind": "reload"}
    dense = inputs.model_config.model_copy(update={"quantization": "none"})
    if isinstance(model, PeftModel):
        verified["kind"] = "merge"
        if inputs.model_config.quantization != "none":
            model = _on_dense_base(model, inputs, dense)
            verified["base"] = "the adapter was merged into the base in full precision"
    # TRL puts a forward of its own on the instance, which is no part of the model.
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    base.__dict__.pop("forward", None)
    expected, unadapted = logits_of(model, batch), None
    if isinstance(model, PeftModel):
        with model.disable_adapter():
            unadapted = logits_of(model, batch)
    plain = merge_adapter(model) if isinstance(model, PeftModel) else model
    save_model(plain, processor, folder, lineage, stored_dtype(inputs.model, inputs.model_config))
    plain.to("cpu")  # room for the second copy
    free_memory()
    verified |= verify_reload(expected, lambda: load_model(folder, dense), batch, unadapted)
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


def _on_dense_base(model: PeftModel, inputs: StageInputs, dense: ModelConfig) -> PeftModel:
    """The adapter on the base in full precision: merging into quantized weights loses digits."""
    folder = inputs.output / "adapter"
    model.save_pretrained(str(folder))
    base = load_model(inputs.model, dense)
    return peft.PeftModel.from_pretrained(base, folder, torch_device=str(base.device))
