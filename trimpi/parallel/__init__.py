"""Ways to spread a stage over processes: configurations of `accelerate launch` beside this file.

`parallel: fsdp2` of a recipe takes `fsdp2.yaml`; `launcher` takes any command in its place.
"""

import importlib.util
import sys
from pathlib import Path

from trimpi.recipe import ModelConfig, Recipe, RlConfig, TrainingConfig

SHARDED = {"fsdp2": "FSDP2", "zero3": "ZeRO-3"}
"""Ways that leave no process with the whole model."""
DEEPSPEED = ("zero2", "zero3")
START = "trimpi.parallel.start"


def configuration(way: str) -> Path:
    """The file that `accelerate launch --config_file` takes."""
    return Path(__file__).with_name(f"{way}.yaml")


def launch_command(way: str, devices: int) -> list[str]:
    """The command that starts a stage's processes, up to `-m module`."""
    command = [sys.executable, "-m", START, "accelerate"]
    command += ["--config_file", str(configuration(way)), "--num_processes", str(devices)]
    return [*command, "--main_process_port", "0"]  # any free one: seeds may train side by side


def plain_command(devices: int) -> list[str]:
    """The same for a recipe that names neither `parallel` nor `launcher`."""
    command = [sys.executable, "-m", START, "torchrun", "--standalone"]
    return [*command, "--nproc-per-node", str(devices)]


def as_shared(recipe: Recipe, stage: TrainingConfig) -> TrainingConfig:
    """The stage as estimates of memory read it: one whose weights are shared out says so."""
    if recipe.parallel not in SHARDED:
        return stage
    return stage.model_copy(update={"trainer": {**stage.trainer, "fsdp": True}})


def package_missing(recipe: Recipe) -> str | None:
    """What to say where the package behind `parallel` is not installed here."""
    if recipe.parallel not in DEEPSPEED or importlib.util.find_spec("deepspeed") is not None:
        return None
    return (
        f"parallel: {recipe.parallel} needs deepspeed, which is not installed; "
        "pip install 'trimpi[deepspeed]', or take fsdp2"
    )


def parallel_problems(recipe: Recipe) -> list[str]:
    """One line for each thing of a recipe that cannot go with its `parallel`; loads no weights."""
    way = recipe.parallel
    if way is None:
        # The trainer's own switch shares weights out as `parallel: fsdp2` does.
        asked = any(stage.trainer.get("fsdp") for stage in recipe.trained.values())
        return _sharding_problems("trainer.fsdp", recipe.model) if asked else []
    missing = package_missing(recipe)
    problems = [] if missing is None else [missing]
    if way in SHARDED:
        problems += _sharding_problems(SHARDED[way], recipe.model)
        for name, stage in recipe.trained.items():
            if not isinstance(stage, RlConfig):
                continue
            if stage.kl_reference == "base" and stage.lora is not None and stage.beta:
                problems.append(
                    f"stages.{name}.kl_reference: base under LoRA needs a second model, which "
                    f"{SHARDED[way]} does not shard; drop either, or take parallel: ddp"
                )
    for name, stage in recipe.trained.items():
        problems += [
            f"stages.{name}.trainer.{key}: parallel: {way} decides how a stage is spread; drop one"
            for key in ("fsdp", "fsdp_config", "deepspeed")
            if stage.trainer.get(key)
        ]
    return problems


def _sharding_problems(title: str, model: ModelConfig) -> list[str]:
    if model.quantization == "none":
        return []
    return [
        f"model.quantization: {title} cannot shard the packed bytes of {model.quantization}; take "
        "parallel: ddp (or zero2), which leaves every process its own quantized base, or set "
        "quantization to none"
    ]
