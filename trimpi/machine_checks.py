"""What a recipe asks of a machine: packages, devices and servers.

A dry run may be on another machine than the training: there, what is missing is a note.
"""

import importlib.util

from trimpi.errors import UserError
from trimpi.findings import Findings
from trimpi.parallel import package_missing, parallel_problems
from trimpi.quiet import quiet
from trimpi.recipe import Recipe, RolloutConfig
from trimpi.resolve import resolve_callable
from trimpi.trackers import missing_trackers
from trimpi.trainer_fields import engine_missing
from trimpi.vllm_server import server_problems


def check_machine(recipe: Recipe, dry: bool, found: Findings) -> None:
    """Note what is missing here: as a problem, and in a dry run as not to be seen."""
    _check_quantization(recipe, dry, found)
    _check_attention(recipe, dry, found)
    _check_parallel(recipe, dry, found)
    _check_engine(recipe, dry, found)
    (found.unchecked if dry else found.problems).extend(missing_trackers(recipe))


def _check_parallel(recipe: Recipe, dry: bool, found: Findings) -> None:
    """As for quantization: on the machine of a dry run, a missing package is a note."""
    missing = package_missing(recipe) if dry else None
    found.unchecked += [missing] if missing else []
    found.problems += [p for p in parallel_problems(recipe) if p != missing]


def _check_quantization(recipe: Recipe, dry: bool, found: Findings) -> None:
    """A dry run may be on another machine than the training: there, a missing package is a note."""
    kind = recipe.model.quantization
    if kind == "none":
        return
    for name, stage in recipe.trained.items():
        if stage.lora is None:
            found.problems.append(
                f"stages.{name}.lora: model.quantization {kind} freezes the weights; give the "
                "stage a lora, or set quantization to none"
            )
    quiet()  # bitsandbytes speaks when it is imported
    check = resolve_callable("trimpi.quantization:check_quantization", "model.quantization")
    try:
        check(recipe.model)
    except UserError as error:
        (found.unchecked if dry else found.problems).append(str(error))


def _check_attention(recipe: Recipe, dry: bool, found: Findings) -> None:
    """The same of the package behind `flash_attention_2`."""
    packages = ("flash_attn", "kernels")  # transformers takes either
    asked = recipe.model.attn_implementation
    if asked == "flash_attention_2" and not any(map(importlib.util.find_spec, packages)):
        (found.unchecked if dry else found.problems).append(
            "model.attn_implementation: flash_attention_2 needs the package flash-attn and a GPU; "
            "pip install flash-attn, or take sdpa"
        )


def _check_engine(recipe: Recipe, dry: bool, found: Findings) -> None:
    """The same of vLLM and its server, which a run waits for when the stage begins."""
    for name, stage in recipe.stages.items():
        if not isinstance(stage, RolloutConfig):
            continue
        key = f"stages.{name}"
        if fault := engine_missing(stage, key):
            (found.unchecked if dry else found.problems).append(fault)
        if dry:
            say = found.notes.append
            found.unchecked += server_problems(stage, recipe.model, key, wait=0, say=say)
