"""The `trainer:` mapping of a stage against the fields of the config class that receives it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trimpi.recipe import ModelConfig, RlConfig, StageConfig
from trimpi.recipe_rules import did_you_mean

CONFIGS = {
    "cpt": "trl:SFTConfig",
    "sft": "trl:SFTConfig",
    "distill": "trl:SFTConfig",
    "rl": "trl:GRPOConfig",
}


def known_fields(kind: str) -> list[str]:
    """Names that the config class of a kind of stage takes; imports TRL, which takes seconds."""
    from trimpi.resolve import resolve

    config = resolve(CONFIGS[kind], "stage")
    return [field.name for field in dataclasses.fields(config) if field.init]


def trainer_problems(stages: Mapping[str, StageConfig]) -> list[str]:
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


def rl_conflicts(config: RlConfig, model: ModelConfig, key: str) -> list[str]:
    """One line for each key of `trainer:` that cannot go with the RL stage at `key`."""
    problems = []
    if config.trainer.get("use_vllm"):
        if config.policy_fraction and config.trainer.get("off_policy_mask_threshold") is not None:
            problems.append(
                f"{key}.trainer.off_policy_mask_threshold: compares with the sampler's "
                "log-probabilities, which are conditioned on the policy for policy-aware rows; "
                "drop it or set policy_fraction to 0"
            )
        if model.quantization != "none":
            problems.append(
                f"{key}.trainer.use_vllm: TRL cannot hand quantized weights to vLLM; set "
                "model.quantization to none"
            )
    return problems


def _short(stage: Any) -> str:
    return CONFIGS[stage.kind].partition(":")[2]
