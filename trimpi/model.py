"""Models: load a vision-language model, count, freeze and save it."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from trimpi.adapter import lora_config, merge_adapter, verify_reload
from trimpi.errors import UserError
from trimpi.model_folder import LINEAGE, check_model_folder, is_hub_id, locate, read_lineage
from trimpi.processor import hub_arguments, load_processor, visual_token_ids
from trimpi.recipe import ModelConfig
from trimpi.runs import model_digest, write_json

__all__ = [
    "check_model_folder",
    "check_quantization",
    "context_limit",
    "count_parameters",
    "default_device",
    "freeze_vision",
    "load_config",
    "load_model",
    "load_processor",
    "locate",
    "lora_config",
    "merge_adapter",
    "model_digest",
    "read_lineage",
    "save_model",
    "verify_reload",
    "visual_token_ids",
]


def default_device() -> torch.device:
    """The GPU of this process if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def load_config(path: str | Path, config: ModelConfig) -> Any:
    """The model's configuration, without its weights.

    Raises:
        UserError: the folder is not whole, or the hub has no such model.
    """
    check_model_folder(path)
    name = locate(path)
    try:
        return AutoConfig.from_pretrained(name, **hub_arguments(config))
    except Exception as error:  # a faulty configuration shows as any kind of error
        where = "the hub" if is_hub_id(path) else "this folder"
        line = " ".join(str(error).split())[:300]
        raise UserError(f"{name}: no model configuration from {where} ({line})") from None


def load_model(path: str | Path, config: ModelConfig, train: bool = False) -> Any:
    """Load weights onto the default device, in evaluation mode.

    Args:
        path: model folder, hub id or `package://...`; wins over `config.path`.
        config: precision, attention and quantization.
        train: all weights will be updated. `dtype: auto` then means float32 instead of the stored
            precision, because an update of 1e-6 is below the resolution of bfloat16.

    Raises:
        UserError: the folder is not whole, is no image-text-to-text model, or the attention
            implementation or quantization asked for is not available here.
    """
    check_quantization(config, train)
    load_config(path, config)
    name, quantized = locate(path), config.quantization != "none"
    dtype = "float32" if train and config.dtype == "auto" else config.dtype
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": config.attn_implementation}
    if quantized:
        arguments["quantization_config"] = _quantization(config)
        arguments["device_map"] = {"": default_device()}
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            name, **arguments, **hub_arguments(config)
        )
    except (OSError, ValueError, ImportError) as error:
        line = " ".join(str(error).split())[:400]
        raise UserError(f"{name}: the model does not load ({line})") from None
    return (model if quantized else model.to(default_device())).eval()


def check_quantization(config: ModelConfig, train: bool = False) -> None:
    """Refuse a quantization that cannot work, before any weights are read.

    Raises:
        UserError: bitsandbytes is missing or does not know the device, or full-parameter training
            is asked for.
    """
    if config.quantization == "none":
        return
    here = f"model.quantization: {config.quantization}"
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(f"{here} needs bitsandbytes; pip install 'trimpi[quantized]'") from None
    device = default_device().type
    supported = getattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    if device not in supported:
        raise UserError(f"{here}: bitsandbytes has no kernels for {device}; set it to none")
    if train:
        raise UserError(f"{here} freezes the weights; give the stage a 'lora', or set it to none")


def context_limit(config: Any) -> int | None:
    """Longest sequence in tokens that the language model's positions allow; None if unbounded."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def count_parameters(model: Any, trainable: bool = False) -> int:
    """Number of parameters, shared ones once; `trainable` counts only those with a gradient."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def freeze_vision(model: Any) -> int:
    """Stop gradients of the vision tower (a projector outside of it stays trainable).

    Returns:
        The number of frozen parameters.

    Raises:
        UserError: no vision tower is found.
    """
    tower = model.get_encoder(modality="image")
    if tower is model or tower is model.base_model:
        raise UserError(f"{type(model).__name__}: no vision tower found; drop freeze_vision")
    for parameter in tower.parameters():
        parameter.requires_grad_(False)
    return count_parameters(tower)


def save_model(
    model: Any,
    processor: Any,
    folder: Path,
    lineage: Mapping[str, Any],
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a complete model folder under a temporary name, then rename it into place.

    Args:
        model: a plain transformers model (adapters merged).
        processor: saved beside it with its chat template.
        folder: where it goes; an older folder there is replaced.
        lineage: what made it (`read_lineage`), saved as lineage.json.
        dtype: precision on disk; None keeps the model's own.
    """
    temporary = folder.with_name(f".{folder.name}.part")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    kept = model.dtype
    if dtype is not None and dtype != kept:
        model.to(dtype)
    model.save_pretrained(temporary)
    if dtype is not None and dtype != kept:
        model.to(kept)
    processor.save_pretrained(temporary)
    write_json(temporary / LINEAGE, dict(lineage))
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    check_model_folder(folder)
    return folder


def _quantization(config: ModelConfig) -> Any:
    from transformers import BitsAndBytesConfig

    # The vision tower and the output head lose most by quantization and are small; they stay dense.
    dense = ["lm_head", "visual", "vision_tower", "vision_model", "multi_modal_projector"]
    if config.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=dense)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=dense,
    )
