"""What the KL term of RL pulls towards: the model that enters the stage, or the recipe's base.

TRL makes a frozen copy from the folder that the model's configuration names, or under LoRA takes
the trained model with its adapter off. Neither is the base once a stage has come before, so for
`kl_reference: base` the copy is made from the base's folder, and LoRA gets a copy of its own.
"""

from pathlib import Path
from typing import Any

from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from trimpi.model import load_model, locate, model_digest
from trimpi.recipe import ModelConfig, RlConfig
from trimpi.stages.inputs import StageInputs


def reference_of(config: RlConfig, inputs: StageInputs) -> str:
    """Path of the reference model, as transformers takes it."""
    if config.kl_reference == "start":
        return locate(inputs.model)
    if inputs.base is None:
        raise ValueError("kl_reference 'base' needs the model that the recipe starts from")
    return locate(inputs.base)


def named_after_reference(model: Any, config: RlConfig, inputs: StageInputs) -> Any:
    """The model, its configuration naming the folder that TRL is to load the reference from.

    Whoever makes the trainer gives the configuration its own name back after that.
    """
    if config.beta and config.lora is None:
        model.config._name_or_path = reference_of(config, inputs)
    return model


def add_reference(trainer: Any, path: str, how: ModelConfig) -> None:
    """Give a trainer under LoRA a frozen model of its own as reference, as TRL prepares its own.

    It takes the memory of the weights once more, in the precision (or quantization) of the base.
    """
    reference = load_model(path, how)
    reference.requires_grad_(False)
    if trainer.args.disable_dropout:
        disable_dropout_in_model(reference)
    add_fused_lm_head(
        reference,
        temperature=trainer.temperature,
        cast_lm_head_to_fp32=trainer.args.cast_lm_head_to_fp32,
    )
    trainer.ref_model = trainer.accelerator.prepare_model(reference, evaluation_mode=True)


def kl_reference(config: RlConfig, inputs: StageInputs, trainer: Any) -> dict[str, Any]:
    """What `stage.json` says of the reference, checked against the model that the trainer has."""
    if config.beta == 0:
        return {"kind": "none", "beta": 0.0}
    path, kind = reference_of(config, inputs), "the same weights, adapter off"
    if trainer.ref_model is not None:
        kind = "a frozen copy"
        copied = trainer.accelerator.unwrap_model(trainer.ref_model).config._name_or_path
        if copied != path:
            raise RuntimeError(f"the reference would be {copied}, not {path}")
    elif config.lora is None or config.kl_reference == "base":
        raise RuntimeError(f"the trainer has no reference model, and should have {path}")
    digest = model_digest(Path(path)) if Path(path).is_dir() else None
    named = {"kind": kind, "path": path, "digest": digest, "beta": config.beta}
    return named if config.kl_reference == "start" else {**named, "of": "base"}
