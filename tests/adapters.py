"""Adapters that have learned something: fresh ones change nothing of a model."""

from typing import Any

import peft
import torch

from trimpi.adapter import lora_config
from trimpi.recipe import LoraConfig


def learned_adapter(model: Any, config: LoraConfig | None = None, std: float = 0.1) -> Any:
    """The model under an adapter whose second factors, zero at first, are drawn with `std`."""
    wrapped = peft.get_peft_model(model, lora_config(model, config or LoraConfig()))
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=std)
    return wrapped
