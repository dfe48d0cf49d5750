"""Does a recipe fit on a device? Memory and steps of each stage, and what would make it fit.

The numbers come from configuration, tokenizer and data alone (`trimpi.checks`, `trimpi.memory`);
no weights are loaded, and the device need not be here.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from trimpi.checks import check_recipe
from trimpi.errors import UserError, did_you_mean
from trimpi.findings import Findings, StagePlan
from trimpi.memory import GIB, ModelSize, estimate, read_size, size_text
from trimpi.model_source import locate
from trimpi.parallel import as_shared
from trimpi.recipe import LoraConfig, ModelConfig, Recipe, RlConfig, RolloutConfig, TrainingConfig

CARDS = {
    "t4": 15, "v100-16gb": 16, "v100-32gb": 32, "p100": 16, "l4": 22.5, "a10": 22.5, "a10g": 22.5,
    "rtx3090": 24, "rtx4090": 24, "rtx5090": 31.8, "a6000": 48, "l40s": 45, "a100-40gb": 40,
    "a100-80gb": 80, "h100": 80, "h200": 141, "b200": 180, "mi300x": 192,
}  # fmt: skip
"""Memory of cards in GiB, as their drivers report it."""
UNITS = {"gb": 1e9, "gib": GIB, "g": 1e9, "mb": 1e6, "mib": 2**20}
QUANTIZED = "model.quantization"
SHARE, OWN = 0.9, 1.0
"""Of a card, CUDA and the libraries take about 1 GiB, and fragments a tenth of the rest."""


@dataclass(frozen=True)
class Option:
    """A change to a stage that saves memory, and what the stage takes with it, in GiB."""

    name: str
    total: float


@dataclass(frozen=True)
class Verdict:
    """A stage on a device; sizes in GiB. `options` are single changes, `together` adds them up."""

    plan: StagePlan
    memory: Mapping[str, float]
    usable: float
    options: list[Option] = field(default_factory=list)
    together: Option | None = None
    """The first changes in order that fit only together; None where a single one does."""

    @property
    def fits(self) -> bool:
        """Whether the stage as it is fits."""
        return self.memory["total"] <= self.usable


def gpu_memory(text: str) -> float:
    """Bytes of a device: `24GB` (decimal), `80GiB`, or a card of `CARDS`.

    Raises:
        UserError: neither a size nor a known card.
    """
    name = re.sub(r"[\s_]", "", text.lower())
    if name in CARDS:
        return CARDS[name] * GIB
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([a-z]+)", name)
    if match and match[2] in UNITS and float(match[1]) > 0:
        return float(match[1]) * UNITS[match[2]]
    if re.fullmatch(r"[\d.]+", name):
        raise UserError(f"--gpu {text}: give the unit as well, such as {text}GB")
    raise UserError(
        f"--gpu {text}: neither a size such as 24GB or 80GiB nor a known card; "
        f"{did_you_mean(name, CARDS)}"
    )


def plan_recipe(recipe: Recipe, run: Path, memory: float) -> tuple[Findings, list[Verdict]]:
    """Each stage of a recipe on devices of `memory` bytes.

    Args:
        recipe: local paths absolute.
        run: the run folder, whose data are looked at where they are built already.
        memory: of one device, in bytes.

    Raises:
        UserError: problems of the recipe, or a model or data that cannot be looked at from here.
    """
    found = check_recipe(recipe, run)
    found.stop_if_faulty()
    if not found.stages:
        raise UserError("stages: there are none, so nothing is trained; `trimpi run` evaluates")
    if not all(plan.training_tokens for plan in found.stages):
        raise UserError.join(found.unchecked)
    size = read_size(locate(recipe.model, weights=False))
    usable = max(memory / GIB - OWN, 0) * SHARE
    return found, [_verdict(recipe, plan, size, usable, memory) for plan in found.stages]


def _verdict(
    recipe: Recipe, plan: StagePlan, size: ModelSize, usable: float, card: float
) -> Verdict:
    # A GPU trains in bfloat16 unless the recipe says otherwise.
    config = recipe.trained[plan.name]
    if config.bf16 is None:
        config = config.model_copy(update={"bf16": True})

    def needed(setup: Setup) -> dict[str, float]:
        return estimate(
            size,
            setup.model,
            setup.config,
            plan.training_tokens,
            plan.generation_tokens,
            setup.devices,
            plan.image_tokens,
            policies=plan.policies,
            card=card,
        )

    start = Setup(recipe.model, as_shared(recipe, config), recipe.devices)
    memory = needed(start)
    if memory["total"] <= usable:
        return Verdict(plan, memory, usable)
    options = [Option(name, needed(setup)["total"]) for name, setup in _changes(start)]
    if any(option.total <= usable for option in options):
        return Verdict(plan, memory, usable, options)
    fits = (_together(start, needed, usable, left_out) for left_out in ("", QUANTIZED))
    return Verdict(plan, memory, usable, options, next((o for o in fits if o is not None), None))


def _together(
    start: "Setup",
    needed: Callable[["Setup"], dict[str, float]],
    usable: float,
    left_out: str,
) -> Option | None:
    """The first changes in order, without those to one key, that are enough; None if all are not.

    A quantized base cannot be shared out, so that one of the two is to be left out.
    """
    setup, names = start, [left_out]
    while True:
        step = next((c for c in _changes(setup) if c[0].split(":")[0] not in names), None)
        if step is None:
            return None
        names.append(step[0].split(":")[0])
        setup = step[1]
        total = needed(setup)["total"]
        if total <= usable:
            return Option(_described(start, setup), total)


@dataclass(frozen=True)
class Setup:
    """What can be changed for a stage."""

    model: ModelConfig
    config: TrainingConfig
    devices: int


def _changes(now: Setup) -> Iterator[tuple[str, Setup]]:
    """Single changes that save memory, those that cost least of the result first."""
    config = now.config

    def stage(name: str, **update: object) -> tuple[str, Setup]:
        return name, Setup(now.model, config.model_copy(update=update), now.devices)

    if not config.gradient_checkpointing:
        yield stage("gradient_checkpointing: true", gradient_checkpointing=True)
    if config.micro_batch_size > 1:
        yield stage("micro_batch_size: 1", micro_batch_size=1)
    if isinstance(config, RlConfig) and config.beta and config.lora is None:
        yield stage("beta: 0", beta=0.0)
    optimizer = str(config.trainer.get("optim", "adamw_torch"))
    if "8bit" not in optimizer:
        trainer = {**config.trainer, "optim": "adamw_8bit"}
        yield stage("trainer.optim: adamw_8bit", trainer=trainer)
    if config.lora is None:
        yield stage("lora: {r: 8}", lora=LoraConfig())
    if now.model.quantization == "none":
        model = now.model.model_copy(update={"quantization": "nf4"})
        adapted = config.model_copy(update={"lora": config.lora or LoraConfig()})
        yield f"{QUANTIZED}: nf4", Setup(model, adapted, now.devices)
    if isinstance(config, RolloutConfig) and not config.trainer.get("use_vllm"):
        fewer = max(1, config.prompts_per_step // 4)
        if fewer < config.prompts_per_step:
            yield stage(f"prompts_per_step: {fewer}", prompts_per_step=fewer)
    if _colocated(config) and not config.trainer.get("vllm_enable_sleep_mode"):
        trainer = {**config.trainer, "vllm_enable_sleep_mode": True}
        yield stage("trainer.vllm_enable_sleep_mode: true", trainer=trainer)
    more = now.devices * 4
    if config.trainer.get("fsdp"):
        yield f"devices: {more}", Setup(now.model, config, more)
    elif now.model.quantization == "none":  # packed bytes cannot be shared out
        sharded = config.model_copy(update={"trainer": {**config.trainer, "fsdp": True}})
        yield f"devices: {more}, parallel: fsdp2", Setup(now.model, sharded, more)
    elif isinstance(config, RolloutConfig):  # which share out the rollouts
        yield f"devices: {more}", Setup(now.model, config, more)


def _colocated(config: TrainingConfig) -> bool:
    """Whether vLLM takes its share of the same devices."""
    mode = config.trainer.get("vllm_mode", "colocate")
    return bool(config.trainer.get("use_vllm")) and mode == "colocate"


def _described(start: Setup, end: Setup) -> str:
    """The changed keys of a setup, in words."""
    names = []
    before, after = start.config, end.config
    for key in ("gradient_checkpointing", "micro_batch_size", "beta", "prompts_per_step"):
        value = getattr(after, key, None)
        if value != getattr(before, key, None):
            names.append(f"{key}: {str(value).lower() if isinstance(value, bool) else value}")
    if after.trainer.get("optim") != before.trainer.get("optim"):
        names.append(f"trainer.optim: {after.trainer['optim']}")
    if after.lora != before.lora:
        names.append("lora: {r: 8}")
    if end.model.quantization != start.model.quantization:
        names.append(f"{QUANTIZED}: {end.model.quantization}")
    if after.trainer.get("vllm_enable_sleep_mode") != before.trainer.get("vllm_enable_sleep_mode"):
        names.append("trainer.vllm_enable_sleep_mode: true")
    if end.devices != start.devices:
        names.append(f"devices: {end.devices}")
    if after.trainer.get("fsdp") != before.trainer.get("fsdp"):
        names.append("parallel: fsdp2")
    return ", ".join(names)


def print_plan(console: Console, verdicts: list[Verdict], recipe: Recipe) -> bool:
    """Print the verdicts; returns whether all stages fit."""
    for verdict in verdicts:
        plan, parts = verdict.plan, dict(verdict.memory)
        total = parts.pop("total")
        mark = "[green]fits[/]" if verdict.fits else "[red]does not fit[/]"
        console.print(
            f"[bold]{plan.name}[/]: {size_text(total)} of {size_text(verdict.usable)} usable, "
            f"{mark}: {', '.join(f'{name} {size_text(value)}' for name, value in parts.items())}",
            highlight=False,
        )
        batch = getattr(recipe.trained[plan.name], "batch_size", 0)
        generated = f", {plan.generation_tokens} in generation" if plan.generation_tokens else ""
        console.print(
            f"  {plan.schedule.updates} updates, about {plan.schedule.updates * batch} sequences "
            f"of up to {plan.training_tokens} tokens{generated}",
            highlight=False,
        )
        for option in verdict.options:
            mark = "[green]fits[/]" if option.total <= verdict.usable else "does not fit"
            line = f"  {option.name}: {size_text(option.total)}, {mark}"
            console.print(line, highlight=False)
        if verdict.together is not None:
            line = f"  together, {verdict.together.name}: {size_text(verdict.together.total)}"
            console.print(f"{line}, [green]fits[/]", highlight=False)
        elif verdict.options and not any(o.total <= verdict.usable for o in verdict.options):
            console.print("  nothing here makes it fit; take a smaller model", highlight=False)
    return all(verdict.fits for verdict in verdicts)
