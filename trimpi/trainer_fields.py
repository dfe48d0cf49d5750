"""The `trainer:` mapping of a stage against the fields of the config class that receives it."""

import dataclasses
import importlib.util
from collections.abc import Mapping
from typing import Any

from trimpi.recipe import ModelConfig, RlConfig, RolloutConfig, TrainingConfig
from trimpi.recipe_rules import did_you_mean

CONFIGS = {
    "cpt": "trl:SFTConfig",
    "sft": "trl:SFTConfig",
    "distill": "trl:SFTConfig",
    "on_policy_distill": "trl:GRPOConfig",
    "rl": "trl:GRPOConfig",
}


def known_fields(kind: str) -> list[str]:
    """Names that the config class of a kind of stage takes; imports TRL, which takes seconds."""
    from trimpi.resolve import resolve

    config = resolve(CONFIGS[kind], "stage")
    return [field.name for field in dataclasses.fields(config) if field.init]


def trainer_problems(stages: Mapping[str, TrainingConfig]) -> list[str]:
    """One line for each key of a `trainer:` mapping that the config class does not know."""
    problems = []
    for name, stage in stages.items():
        if not stage.trainer:
            continue
        known = known_fields(stage.kind)
        for key in stage.trainer:
            if key not in known:
                near = did_you_mean(key, known)
                hint = near if near.startswith("did") else f"see the fields of {_short(stage)}"
                problems.append(f"stages.{name}.trainer.{key}: unknown key; {hint}")
    return problems


def engine_missing(config: RolloutConfig, key: str) -> str | None:
    """What to say where the stage at `key` asks for vLLM and it is not installed here."""
    if not config.trainer.get("use_vllm") or importlib.util.find_spec("vllm") is not None:
        return None
    return (
        f"{key}.trainer.use_vllm: vllm is not installed; pip install 'trimpi[vllm]' (it needs a "
        "GPU), or drop the key: transformers generates then"
    )


def rl_conflicts(config: RolloutConfig, model: ModelConfig, key: str) -> list[str]:
    """One line for each key of `trainer:` that cannot go with the stage at `key`."""
    problems = []
    if isinstance(config, RlConfig) and config.kl_reference == "base":
        if config.trainer.get("sync_ref_model"):
            problems.append(
                f"{key}.trainer.sync_ref_model: moves the reference away from the base; drop it, "
                "or kl_reference"
            )
        sharding = [name for name in ("fsdp", "deepspeed") if config.trainer.get(name)]
        problems += [
            f"{key}.trainer.{name}: does not shard the reference that kl_reference base needs "
            "under LoRA; drop either, or train all parameters"
            for name in sharding
            if config.lora is not None
        ]
    if config.trainer.get("use_vllm"):
        aware = isinstance(config, RlConfig) and config.policy_fraction > 0
        if aware and config.trainer.get("off_policy_mask_threshold") is not None:
            problems.append(
                f"{key}.trainer.off_policy_mask_threshold: compares with the sampler's "
                "log-probabilities, which are conditioned on the policy for policy-aware rows; "
                "drop it or set policy_fraction to 0"
            )
        if model.quantization != "none":
            problems.append(
                f"{key}.trainer.use_vllm: TRL would merge the adapter into quantized weights "
                "and hand vLLM their packed bytes; set model.quantization to none, or drop use_vllm"
            )
    return problems


def _short(stage: Any) -> str:
    return CONFIGS[stage.kind].partition(":")[2]
