"""A memory estimate per device from a model's configuration; no weights are loaded.

Weights, gradients and Adam's two moments are counted exactly from the parameter count. Activations
follow Korthikanti et al. 2022 (arXiv 2205.05198, section 4.1): about 17 hidden vectors per token
and layer with fused attention, and 1 per layer plus one whole layer under gradient checkpointing;
logits are counted in the model's type, in float32 and with their gradient. The allocator's
fragmentation, the vision tower's activations and CUDA's own 1 GiB are left out, so leave a margin
of a fifth.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.recipe import DistillConfig, ModelConfig, RlConfig, TrainingConfig

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
WEIGHT_BYTES = {"nf4": 0.56, "int8": 1.0}
"""Quantized weights with their scales."""
ACTIVATIONS_PER_LAYER = 17
"""Hidden vectors kept per token and layer for the backward pass, with fused attention."""


@dataclass(frozen=True)
class ModelSize:
    """What an estimate needs to know of a model. `lora_inputs` is the sum over the language
    model's linear layers of their input and output widths: parameters of adapters of rank 1."""

    parameters: int
    vision_parameters: int
    lora_inputs: int
    layers: int
    hidden: int
    vocabulary: int
    cache_per_token: int
    """Keys and values of one token, all layers, in numbers."""
    context: int | None
    """Longest sequence in tokens."""
    dtype: str
    """The stored precision."""


def read_size(model: Path) -> ModelSize:
    """Sizes of a model from its folder's config.json; its layers are made without memory.

    Raises:
        UserError: transformers knows no such model, or cannot make it from this configuration.
    """
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    try:
        settings = AutoConfig.from_pretrained(str(model), trust_remote_code=False)
        with torch.device("meta"):
            network = AutoModelForImageTextToText.from_config(settings)
    except Exception as error:  # a faulty configuration shows as any kind of error
        line = " ".join(str(error).split())[:300]
        raise UserError(f"{model}/config.json: makes no vision-language model ({line})") from None
    text = settings.get_text_config()
    heads = text.num_attention_heads
    head_width = getattr(text, "head_dim", None) or text.hidden_size // heads
    groups = getattr(text, "num_key_value_heads", None) or heads
    vision = {
        name: parameter.numel()
        for name, parameter in network.named_parameters()
        if "vision" in name or "visual" in name
    }
    linear = [
        module.in_features + module.out_features
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
        and "vis" not in name
        and not name.endswith("lm_head")
    ]
    stored = getattr(settings, "dtype", None) or getattr(text, "dtype", None) or "float32"
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        vision_parameters=sum(vision.values()),
        lora_inputs=sum(linear),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=text.vocab_size,
        cache_per_token=2 * text.num_hidden_layers * groups * head_width,
        context=getattr(text, "max_position_embeddings", None),
        dtype=str(stored).removeprefix("torch."),
    )


def estimate(
    size: ModelSize,
    model: ModelConfig,
    config: TrainingConfig,
    training_tokens: int,
    generation_tokens: int,
    devices: int,
) -> dict[str, float]:
    """GiB per device by part, and their `total`.

    Args:
        size: the model.
        model: its precision and quantization.
        config: the stage.
        training_tokens: longest sequence in a forward and backward pass.
        generation_tokens: longest sequence in generation, 0 for a stage that generates none.
        devices: processes; they share weights, gradients and moments only under `trainer.fsdp`.
    """
    width = BYTES.get(_dtype(size, model, config), 4)
    shards = devices if config.trainer.get("fsdp") else 1
    if config.lora is None:
        trained = size.parameters - (size.vision_parameters if config.freeze_vision else 0)
        state = width
    else:
        trained, state = size.lora_inputs * config.lora.r, 4
    stored = size.parameters * WEIGHT_BYTES.get(model.quantization, width)
    tokens = training_tokens * config.micro_batch_size
    narrow = 2 if config.bf16 else width  # what autocast keeps
    layer = ACTIVATIONS_PER_LAYER * size.hidden * narrow
    if config.gradient_checkpointing:
        kept = size.layers * size.hidden * narrow + layer
    else:
        kept = size.layers * layer
    parts: dict[str, Any] = {
        "weights": stored / shards,
        "gradients": trained * state / shards,
        "moments": 2 * trained * state / shards,
        "activations": tokens * (kept + size.vocabulary * (2 * narrow + 4)),
    }
    if isinstance(config, RlConfig):
        if config.beta and config.lora is None:
            parts["reference"] = size.parameters * width / shards
        elif config.beta and config.kl_reference == "base":
            parts["reference"] = stored
        if not config.trainer.get("use_vllm"):
            sequences = config.rollouts / devices
            parts["cache"] = sequences * generation_tokens * size.cache_per_token * narrow
            # Training and generation alternate: the larger of both counts.
            parts["activations"] = max(parts["activations"] - parts["cache"], 0)
    if isinstance(config, DistillConfig):
        # It generates before it trains: whichever takes more counts.
        cache = config.generation_batch_size * generation_tokens * size.cache_per_token * narrow
        if cache > parts["gradients"] + parts["moments"] + parts["activations"]:
            parts = {"weights": parts["weights"], "cache": cache}
    found = {name: value / GIB for name, value in parts.items() if value}
    return {**found, "total": sum(found.values())}


def _dtype(size: ModelSize, model: ModelConfig, config: TrainingConfig) -> str:
    """`auto` trains all weights in float32 and keeps a frozen base as it is stored."""
    if model.dtype != "auto":
        return model.dtype
    return "float32" if config.lora is None else size.dtype
