"""The whole model at the end of a stage that was spread over processes.

Under FSDP2 and ZeRO-3 no process holds it. Its weights are gathered on the first process, which
puts them into the model that entered the stage, with an adapter where the stage trained one; the
result is compared with what the shards themselves answer before it is handed on.
"""

from collections.abc import Mapping
from typing import Any

import peft
import torch
from accelerate.utils import DistributedType
from torch import Tensor

from trimpi.adapter import logits_of
from trimpi.errors import UserError
from trimpi.model import load_model, lora_config
from trimpi.recipe import TrainingConfig
from trimpi.stages.inputs import StageInputs


def is_sharded(accelerator: Any) -> bool:
    """Whether no process holds the whole model."""
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        return int(accelerator.state.deepspeed_plugin.zero_stage) == 3
    return bool(accelerator.distributed_type == DistributedType.FSDP)


def whole_model(
    trainer: Any, config: TrainingConfig, inputs: StageInputs, batch: Mapping[str, Tensor]
) -> Any:
    """The trained model, unwrapped; on the first process all of it, None elsewhere if sharded.

    All processes call this together.

    Args:
        trainer: after training; lets go of its shards.
        config: the stage.
        inputs: what the stage got.
        batch: model inputs on which the gathered model is compared with the shards.

    Raises:
        UserError: the gathered model is not the one that was trained.
    """
    accelerator = trainer.accelerator
    if not is_sharded(accelerator):
        return accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    sharded = trainer.model_wrapped
    expected = logits_of(sharded, batch)
    gathered = accelerator.get_state_dict(sharded)
    trainer.model = trainer.model_wrapped = None
    trainer.optimizer = trainer.callback_handler.optimizer = trainer.callback_handler.model = None
    if not accelerator.is_main_process:
        return None
    _end_zero_3()
    # One device may not hold what several did.
    how = inputs.model_config
    if how.attn_implementation == "flash_attention_2":  # which has no kernels there
        how = how.model_copy(update={"attn_implementation": "sdpa"})
    model = load_model(inputs.model, how, config.lora is None, torch.device("cpu"))
    if config.lora is not None:
        model = peft.get_peft_model(model, lora_config(model, config.lora))
    gathered = {name: tensor.to("cpu", torch.float32) for name, tensor in gathered.items()}
    missing, unknown = model.load_state_dict(gathered, strict=False)
    # A weight that two layers share is gathered under one name.
    places = {parameter.data_ptr() for n, parameter in model.named_parameters() if n in gathered}
    own = dict(model.named_parameters(remove_duplicate=False))
    lost = [name for name in missing if name in own and own[name].data_ptr() not in places]
    if lost or unknown:
        raise UserError(
            f"{config.kind}: the weights of the processes do not make up the model ("
            f"{len(lost)} missing, {len(unknown)} unknown, such as {[*lost, *unknown][0]}); the "
            "checkpoints are kept"
        )
    found = logits_of(model, batch)
    difference, spread = (found - expected).abs(), max(float(expected.std()), 1e-6)
    exact = accelerator.mixed_precision == "no" and model.dtype == torch.float32
    apart = float(difference.max() if exact else difference.mean())
    if not apart <= (allowed := (0.001 if exact else 0.05) * spread):
        raise UserError(
            f"{config.kind}: the gathered model is not the trained one: logits differ by "
            f"{apart:.3g}, allowed is {allowed:.3g}; the checkpoints are kept"
        )
    return model


def _end_zero_3() -> None:
    """Models that are loaded from here on are whole, on this process alone."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
