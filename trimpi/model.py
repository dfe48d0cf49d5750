"""Models: load a vision-language model, count, freeze and save it."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from trimpi.adapter import lora_config, merge_adapter, verify_reload
from trimpi.errors import UserError
from trimpi.model_folder import LINEAGE, check_model_folder, is_hub_id, locate, read_lineage
from trimpi.processor import hub_arguments, load_processor, visual_token_ids
from trimpi.quantization import (
    bitsandbytes_config,
    check_quantization,
    default_device,
    keep_weights_as_loaded,
)
from trimpi.recipe import LoraConfig, ModelConfig, Recipe
from trimpi.runs import model_digest, write_json
from trimpi.shard_merge import check_mergeable, weight_files

__all__ = [
    "check_adapter",
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
    "skeleton",
    "verify_reload",
    "visual_token_ids",
    "whole_folder",
]


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


def skeleton(settings: Any) -> Any:
    """The model of a configuration (`load_config`) on the meta device: all modules, no weights."""
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(settings)


def load_model(
    path: str | Path,
    config: ModelConfig,
    train: bool = False,
    device: torch.device | None = None,
) -> Any:
    """Load weights onto a device, in evaluation mode.

    Args:
        path: model folder, hub id or `package://...`; wins over `config.path`.
        config: precision, attention and quantization.
        train: all weights will be updated. `dtype: auto` then means float32 instead of the stored
            precision, because an update of 1e-6 is below the resolution of bfloat16.
        device: None is the GPU of this process if there is one, else the CPU.

    Raises:
        UserError: the folder is not whole, is no image-text-to-text model, or the attention
            implementation or quantization asked for is not available here.
    """
    check_quantization(config, train)
    settings = load_config(path, config)
    device = default_device() if device is None else device
    name, quantized = locate(path), config.quantization != "none"
    dtype = "float32" if train and config.dtype == "auto" else config.dtype
    arguments: dict[str, Any] = {"dtype": dtype, "attn_implementation": config.attn_implementation}
    if quantized:
        arguments["quantization_config"] = bitsandbytes_config(config, skeleton(settings))
        arguments["device_map"] = {"": device}
    try:
        model: Any = AutoModelForImageTextToText.from_pretrained(
            name, **arguments, **hub_arguments(config)
        )
    except (OSError, ValueError, ImportError) as error:
        line = " ".join(str(error).split())[:400]
        raise UserError(f"{name}: the model does not load ({line})") from None
    if quantized:
        keep_weights_as_loaded(model)
    return (model if quantized else model.to(device)).eval()


def check_adapter(path: str | Path, config: ModelConfig, lora: LoraConfig | None) -> None:
    """Whether an adapter finds its layers in a model and can be merged; loads no weights.

    Raises:
        UserError: names that are no linear layers of the model, or layers of a quantized model
            that its files store in another form.
    """
    if lora is None:
        return
    network = skeleton(load_config(path, config))
    target = lora_config(network, lora).target_modules
    folder = Path(locate(path))
    if config.quantization != "none" and folder.is_dir() and weight_files(folder)[0].is_file():
        check_mergeable(folder, network, target)


def check_adapters(recipe: Recipe, model: Path) -> None:
    """`check_adapter` for all stages, before the first of them is trained.

    Raises:
        UserError: one line a stage that names what is wrong.
    """
    problems = []
    for name, stage in recipe.trained.items():
        try:
            check_adapter(model, recipe.model, stage.lora)
        except UserError as error:
            problems.append(f"stages.{name}.{error}")
    if problems:
        raise UserError.join(problems)


def context_limit(config: Any) -> int | None:
    """Longest sequence in tokens that the language model's positions allow; None if unbounded."""
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None


def count_parameters(model: Any, trainable: bool = False) -> int:
    """Number of parameters, shared ones once; `trainable` counts only those with a gradient."""
    return sum(
        p.numel() * (2 if type(p).__name__ == "Params4bit" else 1)  # a byte holds two
        for p in model.parameters()
        if p.requires_grad or not trainable
    )


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
    kept = model.dtype
    with whole_folder(folder, processor, lineage) as temporary:
        if dtype is not None and dtype != kept:
            model.to(dtype)
        model.save_pretrained(temporary)
        if dtype is not None and dtype != kept:
            model.to(kept)
    return folder


@contextmanager
def whole_folder(folder: Path, processor: Any, lineage: Mapping[str, Any]) -> Iterator[Path]:
    """A temporary folder for weights and configuration; whole at the end, it becomes `folder`."""
    temporary = folder.with_name(f".{folder.name}.part")
    if temporary.exists():
        shutil.rmtree(temporary)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        processor.save_pretrained(temporary)
        write_json(temporary / LINEAGE, dict(lineage))
    except Exception:
        shutil.rmtree(temporary, ignore_errors=True)  # on a full disk its space is needed
        raise
    if folder.exists():
        shutil.rmtree(folder)
    temporary.rename(folder)
    check_model_folder(folder)
