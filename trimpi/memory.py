"""A memory estimate per device from a model's configuration; no weights are loaded.

Weights, gradients and the optimizer's moments are counted exactly from the parameter count. What a
layer keeps for the backward pass is counted from its widths: with fused attention about 9 hidden
and 4 MLP vectors a token (after Korthikanti et al. 2022, arXiv 2205.05198, section 4.1, for gated
layers), and under gradient checkpointing one hidden vector a layer and one whole layer.

Logits are never whole: TRL's output head works in tiles of 4096 tokens and 32768 words, with the
gradients of hidden states, and of the head where it is trained, summed in float32 beside it.
Rollouts hold keys and values of their completions and, once each, of their prompts; with
`generation: plain` of all sequences. A prefill holds one layer's vectors. The allocator's
fragmentation and CUDA's own memory are left out: leave a tenth and 1 GiB.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.recipe import (
    DistillConfig,
    ModelConfig,
    OnPolicyDistillConfig,
    RlConfig,
    RolloutConfig,
    TrainingConfig,
)

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
WEIGHT_BYTES = {"nf4": 0.5 + 4 / 64, "int8": 1.0}
"""Quantized weights with their scales, one in float32 for 64 weights; see `_quantized`."""
KEPT_HIDDEN, KEPT_MLP = 9, 4
"""Vectors of the hidden and of the MLP's width that a layer keeps per token for its backward."""
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""Tile of logits of TRL's fused output head (trl 1.16, `ChunkedLogProbFunction`)."""
CHOICE_BYTES = 24
"""A logit, its score, and the distribution and its sums in double precision (`row_draws.drawn`)."""
VLLM_SHARE = 0.3
"""Share of the device that TRL lets a colocated vLLM take where a recipe does not say."""
TILE_COPIES = 7
"""Copies of a tile in its backward pass without Triton (`_backward_tile`, measured)."""


@dataclass(frozen=True)
class ModelSize:
    """What an estimate needs to know of a model. `lora_inputs` is the sum over the language
    model's linear layers of their input and output widths: parameters of adapters of rank 1."""

    parameters: int
    vision_parameters: int
    lora_inputs: int
    quantizable: int
    """Parameters of the language model's linear layers."""
    layers: int
    hidden: int
    mlp: int
    """Width between the MLP's projections."""
    vocabulary: int
    cache_per_token: int
    """Keys and values of one token, all layers, in numbers."""
    vision_per_token: int
    """Vectors' entries that the vision tower keeps for one visual token of the prompt."""
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

    from trimpi.adapter import linear_names

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
    linear: list[Any] = [network.get_submodule(name) for name in linear_names(network, "language")]
    stored = getattr(settings, "dtype", None) or getattr(text, "dtype", None) or "float32"
    return ModelSize(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        vision_parameters=sum(vision.values()),
        lora_inputs=sum(module.in_features + module.out_features for module in linear),
        quantizable=sum(module.weight.numel() for module in linear),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        mlp=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
        cache_per_token=2 * text.num_hidden_layers * groups * head_width,
        vision_per_token=_vision_per_token(settings),
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
    image_tokens: int = 0,
    triton: bool = True,
    *,
    policies: int | None = None,
    card: float = 0.0,
) -> dict[str, float]:
    """GiB per device by part, and their `total`.

    Training and generation of RL alternate, so only the parts of the larger one are counted.

    Args:
        size: the model.
        model: its precision and quantization.
        config: the stage.
        training_tokens: longest sequence in a forward and backward pass.
        generation_tokens: longest sequence in generation, 0 for a stage that generates none.
        devices: processes; they share weights, gradients and moments only under `trainer.fsdp`.
        image_tokens: visual tokens of the longest training sequence.
        triton: False on a CPU, where TRL's output head makes float32 copies of its tile.
        policies: different policies among the rows; None counts one for each prompt.
        card: bytes of the device, of which vLLM takes its share; 0 leaves vLLM out.
    """
    width = BYTES.get(_dtype(size, model, config), 4)
    shards = devices if config.trainer.get("fsdp") else 1
    if config.lora is None:
        frozen = size.vision_parameters if config.freeze_vision else 0
        trained, state = size.parameters - frozen, width
    else:
        trained, state = size.lora_inputs * config.lora.r, 4
    narrow = 2 if config.bf16 else width  # what autocast keeps
    quantized = model.quantization != "none"
    parts: dict[str, float] = {
        "weights": (_quantized(size, model) if quantized else size.parameters * width) / shards,
        "gradients": trained * state / shards,
        "moments": trained * _moment_bytes(config.trainer, state) / shards,
    }
    if config.lora is None and narrow < width and not config.trainer.get("fsdp"):
        # Copies that autocast keeps for the backward pass; FSDP has a policy of its own instead.
        parts["autocast"] = size.parameters * narrow
    if isinstance(config, RlConfig) and config.beta and config.lora is None:
        parts["reference"] = size.parameters * 4 / shards  # TRL loads it in float32
    elif isinstance(config, RlConfig) and config.beta and config.kl_reference == "base":
        parts["reference"] = parts["weights"] * shards
    if _has_copy(config):
        stored = size.dtype if model.dtype == "auto" else model.dtype
        copied = _quantized(size, model) if quantized else size.parameters * BYTES.get(stored, 4)
        parts["teacher"] = copied / shards
    training = _training_parts(size, config, training_tokens, image_tokens, narrow)
    training["logits"] = _logits(size, config, training_tokens, narrow, triton)
    if _has_teacher(config):
        # Tiles of both models' logits in float32, and the teacher's pass over the whole prompt.
        tile = min(training_tokens * config.micro_batch_size, TILE_TOKENS)
        training["logits"] += 2 * 4 * tile * min(TILE_WORDS, size.vocabulary)
        whole = generation_tokens * config.micro_batch_size
        training["teacher's pass"] = whole * (3 * size.hidden + 2 * size.mlp) * narrow
    if isinstance(config, RolloutConfig):
        generating: dict[str, float] = {}
        if not config.trainer.get("use_vllm"):
            kept, read = _rollout_tokens(
                config, training_tokens, generation_tokens, devices, policies
            )
            rows = config.rollouts / devices
            generating = _generating_parts(size, kept, read, rows, narrow)
        elif config.trainer.get("vllm_mode", "colocate") == "colocate":
            engine = card * config.trainer.get("vllm_gpu_memory_utilization", VLLM_SHARE)
            if config.trainer.get("vllm_enable_sleep_mode"):
                generating = {"vllm": engine}
            else:
                parts["vllm"] = engine
        if sum(generating.values()) > sum(training.values()):
            training = generating
    if isinstance(config, DistillConfig):
        # It generates before it trains: whichever takes more counts.
        asked = config.generation_batch_size * generation_tokens
        generating = _generating_parts(size, asked, asked, config.generation_batch_size, narrow)
        if sum(generating.values()) > sum((parts | training).values()) - parts["weights"]:
            parts, training = {"weights": parts["weights"]}, generating
    found = {name: value / GIB for name, value in (parts | training).items() if value}
    return {**found, "total": sum(found.values())}


def this_device() -> dict[str, Any]:
    """What `estimate` is to know of the device of this process: `triton` and `card`."""
    import torch

    if not torch.cuda.is_available():
        return {"triton": False, "card": 0.0}
    return {"triton": True, "card": float(torch.cuda.get_device_properties(0).total_memory)}


def _has_teacher(config: TrainingConfig) -> bool:
    """Whether a model that sees the policy is asked for whole distributions."""
    baked = isinstance(config, DistillConfig) and config.loss == "forward_kl"
    return baked or isinstance(config, OnPolicyDistillConfig)


def _has_copy(config: TrainingConfig) -> bool:
    """Whether that teacher is a model of its own, and not the adapter off."""
    other = isinstance(config, OnPolicyDistillConfig) and config.teacher == "base"
    return _has_teacher(config) and (config.lora is None or other)


def size_text(gib: float) -> str:
    """A size in words."""
    return f"{gib:.1f} GiB" if gib >= 1 else f"{gib * 1024:.0f} MiB"


def _training_parts(
    size: ModelSize, config: TrainingConfig, length: int, image_tokens: int, narrow: int
) -> dict[str, float]:
    """Bytes that a forward and backward pass needs beside weights and their gradients."""
    tokens = length * config.micro_batch_size
    layer = (KEPT_HIDDEN * size.hidden + KEPT_MLP * size.mlp) * narrow
    tower: float = image_tokens * config.micro_batch_size * size.vision_per_token * narrow
    if config.gradient_checkpointing:
        kept = size.layers * size.hidden * narrow + layer
        tower /= KEPT_HIDDEN + KEPT_MLP  # one vector a layer of about as many
    else:
        kept = size.layers * layer
    adapted = config.lora is not None and config.lora.target_modules in ("vision", "all")
    if config.freeze_vision or (config.lora is not None and not adapted):
        tower = 0  # no gradient goes there
    return {"activations": tokens * kept, "vision": tower}


def _logits(
    size: ModelSize, config: TrainingConfig, length: int, narrow: int, triton: bool
) -> float:
    """Bytes of a tile of logits, and of the gradients of hidden states and head in float32."""
    tokens = length * config.micro_batch_size
    if triton:
        tile = min(tokens, TILE_TOKENS) * TILE_WORDS * narrow
    else:
        words = min(TILE_WORDS, size.vocabulary)  # the rest of the tile is never touched
        tile = min(tokens, TILE_TOKENS) * words * (narrow + 4 * TILE_COPIES)
    head = size.vocabulary * size.hidden * 4 if config.lora is None else 0
    return tile + tokens * size.hidden * 4 + head


def _rollout_tokens(
    config: RolloutConfig, training: int, generation: int, devices: int, policies: int | None
) -> tuple[float, float]:
    """Tokens of a device's rollouts whose keys and values are kept, and that are read at once."""
    # In distillation the teacher alone sees the policy.
    longest = generation if isinstance(config, RlConfig) else training
    rows = config.rollouts / devices
    if isinstance(config, RlConfig) and config.generation == "plain":
        return rows * longest, rows * longest
    prompts = config.prompts_per_step / devices
    free = training - config.max_new_tokens
    policy = longest - training
    views = 2 if policy else 1
    known = prompts if policies is None else min(policies, prompts)
    kept = rows * config.max_new_tokens + views * prompts * free + known * policy
    return kept, config.micro_batch_size * (free + policy)


def _generating_parts(
    size: ModelSize, kept: float, read: float, rows: float, narrow: int
) -> dict[str, float]:
    """Bytes of keys and values of so many tokens, of one layer of a prefill of so many, and of the
    choice of a token for so many rows. The keys of a layer are there twice while they grow."""
    twice = 1 + 0.5 / size.layers
    return {
        "cache": kept * size.cache_per_token * narrow * twice,
        "prefill": read * (3 * size.hidden + 2 * size.mlp) * narrow,
        "choice": rows * size.vocabulary * CHOICE_BYTES,
    }


def _quantized(size: ModelSize, model: ModelConfig) -> float:
    """Bytes of a quantized model; what stays dense is held in float32 in training."""
    scale = WEIGHT_BYTES[model.quantization]
    if model.quantization == "nf4" and model.double_quant:
        scale = 0.5 + (1 + 4 / 256) / 64  # a byte for 64 weights, a float32 for 256 of these
    return size.quantizable * scale + (size.parameters - size.quantizable) * 4


def _moment_bytes(trainer: Mapping[str, Any], state: int) -> float:
    """Bytes of optimizer state for each trained parameter."""
    name = str(trainer.get("optim", "adamw_torch"))
    if "adafactor" in name:
        return 0.01  # a row and a column of each matrix
    if "sgd" in name:
        return 0
    moments = 1 if "lion" in name else 2
    return moments * (1.03 if "8bit" in name else state)


def _vision_per_token(settings: Any) -> int:
    """Entries kept by the vision tower for one visual token: patches x layers x widths."""
    vision = getattr(settings, "vision_config", None)

    def first(*names: str, default: int = 0) -> int:
        found = (getattr(part, name, None) for part in (vision, settings) for name in names)
        return next((int(value) for value in found if value), default)

    # Where families name the width of the tower otherwise, the settings' own are not it.
    hidden = int(getattr(vision, "embed_dim", None) or getattr(vision, "hidden_size", None) or 0)
    layers = first("num_hidden_layers", "depth")
    mlp = int(getattr(vision, "intermediate_size", None) or 4 * hidden)
    patches = first("spatial_merge_size", "scale_factor", default=2) ** 2
    return patches * layers * (KEPT_HIDDEN * hidden + KEPT_MLP * mlp)


def _dtype(size: ModelSize, model: ModelConfig, config: TrainingConfig) -> str:
    """`auto` trains all weights in float32 and keeps a frozen base as it is stored."""
    if model.dtype != "auto":
        return model.dtype
    return "float32" if config.lora is None else size.dtype
