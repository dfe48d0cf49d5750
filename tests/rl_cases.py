"""Small RL stages for tests: a trainer on a tiny model, and completions that are given."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from trimpi.grading import Grader
from trimpi.model import load_model, load_processor
from trimpi.recipe import ModelConfig, RlConfig
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages.inputs import StageInputs
from trimpi.stages.policy_rollout import PolicyRolloutTrainer
from trimpi.stages.rl import build_trainer
from trimpi.stages.rl_arguments import plan_batches


def by_length(sample: Sample, completion: Completion) -> Score:
    """A grader whose rewards differ within a group of random completions."""
    return Score((len(completion.text) + len(sample.id)) % 5 / 5)


def rl_config(**more: Any) -> RlConfig:
    """Two prompts of four completions; small enough for a second a step."""
    small = {
        "prompts_per_step": 2,
        "group_size": 4,
        "micro_batch_size": 4,
        "max_new_tokens": 6,
        "lr": 1e-3,
        "max_steps": 2,
        "lr_scheduler": "constant",
        "preflight_prompts": 0,
    }
    return RlConfig(**{**small, **more})


def rl_inputs(
    model: Path, data: DataFolder, output: Path, grader: Grader = by_length
) -> StageInputs:
    """Inputs of a stage with seed 0."""
    return StageInputs(model, ModelConfig(path=str(model)), data, output, 0, grader)


def make_trainer(config: RlConfig, inputs: StageInputs) -> PolicyRolloutTrainer:
    """The stage's trainer as `run` builds it, one process."""
    samples = inputs.data.read(config.split)[: config.limit]
    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config, train=True)
    plan = plan_batches(config, len(samples), 1)
    return build_trainer(config, inputs, samples, plan, model, processor)


def rollout_rows(trainer: Any, prompts: int = 2) -> list[dict[str, Any]]:
    """The rows of one rollout batch: each prompt as often as a group is large."""
    size = trainer.num_generations
    return [dict(trainer.train_dataset[i]) for i in range(prompts) for _ in range(size)]


def given(trainer: Any, completions: list[list[int]]) -> None:
    """Let the sampler return these completions (by row) whatever it is asked."""
    marks = trainer.aware_rows(len(completions)) if hasattr(trainer, "layout") else []
    halves = [[c for c, mark in zip(completions, marks, strict=True) if mark is wanted]
              for wanted in (False, True)] if any(marks) else [completions]  # fmt: skip
    if getattr(trainer, "shares", False):
        halves = [[completion for half in halves for completion in half]]
    calls = iter(halves)
    trainer._generate_single_turn = lambda *args, **kwargs: (next(calls), None)


def gradients(trainer: Any, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Gradients of the first update's loss on these rows, all micro batches of the rollout."""
    model = trainer.model.train()
    model.zero_grad()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps
    torch.manual_seed(0)
    for _ in range(trainer.args.steps_per_generation):
        batch = trainer._prepare_inputs(rows)
        trainer._step += 1
        trainer.compute_loss(model, batch).backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@contextmanager
def recorded(trainer: Any, name: str) -> Iterator[list[tuple[Any, ...]]]:
    """Arguments of the calls of a method, which still does its work."""
    calls: list[tuple[Any, ...]] = []
    method: Callable[..., Any] = getattr(trainer, name)

    def observed(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return method(*args, **kwargs)

    setattr(trainer, name, observed)
    try:
        yield calls
    finally:
        setattr(trainer, name, method)
