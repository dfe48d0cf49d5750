"""The `trainer:` mapping of a stage against the fields of the config class that receives it."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from trimpi.recipe import StageConfig
from trimpi.recipe_rules import did_you_mean

CONFIGS = {
    "cpt": "trl:SFTConfig",
    "sft": "trl:SFTConfig",
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


def _short(stage: Any) -> str:
    return CONFIGS[stage.kind].partition(":")[2]
