"""Quantized loading with bitsandbytes: what stays dense, what to compute in, what training needs.

A quantized base is frozen; stages train adapters on it (QLoRA, arXiv 2305.14314).
"""

from typing import Any

import torch

from trimpi.adapter import linear_names
from trimpi.errors import UserError
from trimpi.recipe import ModelConfig


def check_quantization(config: ModelConfig, train: bool = False) -> None:
    """Refuse a quantization that cannot work, before any weights are read.

    Raises:
        UserError: bitsandbytes is missing, does not load or does not know the device, or
            full-parameter training is asked for.
    """
    if config.quantization == "none":
        return
    here = f"model.quantization: {config.quantization}"
    try:
        import bitsandbytes
    except ImportError:
        raise UserError(f"{here} needs bitsandbytes; pip install 'trimpi[quantized]'") from None
    except Exception as error:  # a library that does not fit the driver fails in its own ways
        line = " ".join(str(error).split())[:200]
        raise UserError(f"{here}: bitsandbytes does not load here ({line})") from None
    device = default_device().type
    supported = getattr(bitsandbytes, "supported_torch_devices", {"cuda"})
    if device not in supported:
        raise UserError(f"{here}: bitsandbytes has no kernels for {device}; set it to none")
    if train:
        raise UserError(f"{here} freezes the weights; give the stage a 'lora', or set it to none")


def default_device() -> torch.device:
    """The GPU of this process if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


def dense_modules(network: Any) -> list[str]:
    """The largest modules without a layer of the language model: vision tower, projector, head.

    They lose most by quantization and are small beside the language model. Full names, since
    transformers compares from the beginning of a name: `visual` would spare nothing.

    Args:
        network: the model, its weights may be on the meta device.
    """
    decoder = network.get_decoder()
    inner = next(name for name, module in network.named_modules() if module is decoder)
    found = []
    for name in linear_names(network, "outside"):
        parts = name.split(".")
        heads = [".".join(parts[: depth + 1]) for depth in range(len(parts))]
        found.append(next(h for h in heads if h != inner and not inner.startswith(h + ".")))
    return sorted(set(found))


def bitsandbytes_config(config: ModelConfig, network: Any) -> Any:
    """The settings of transformers for `config.quantization`, which is not none."""
    from transformers import BitsAndBytesConfig

    dense = dense_modules(network)
    if config.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=dense)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=config.double_quant,
        bnb_4bit_compute_dtype=compute_dtype(config),
        llm_int8_skip_modules=dense,
    )


def compute_dtype(config: ModelConfig) -> torch.dtype:
    """What layers in nf4 multiply in on this device."""
    if config.compute_dtype != "auto":
        return getattr(torch, config.compute_dtype)
    if torch.cuda.is_available() and not torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.float16
    return torch.bfloat16


def is_quantized(model: Any) -> bool:
    """Whether bitsandbytes holds the weights of the model."""
    return any(getattr(model, f"is_loaded_in_{bits}bit", False) for bits in (4, 8))


def keep_weights_as_loaded(model: Any) -> None:
    """Stop bitsandbytes from re-packing 4-bit weights on CPUs with AVX-512 BF16.

    It does so in the first pass without gradients (every rollout is one). The packed layer has no
    backward pass: training would go on, with no gradient through any layer below it.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def prepare_quantized(model: Any) -> None:
    """Freeze a quantized model and hold its dense 16-bit parts in float32; else do nothing.

    peft's `prepare_model_for_kbit_training`, without its own gradient checkpointing: that is the
    trainer's.
    """
    if is_quantized(model):
        from peft import prepare_model_for_kbit_training

        prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def adapters_in_float32(model: Any) -> None:
    """Give the trainable weights of a quantized model float32 again, which TRL makes bfloat16.

    A step of 1e-6 on a weight of 0.01 is below the resolution of bfloat16 and would be lost.
    """
    if is_quantized(model):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
