"""Context distillation: the model learns, without the policy, what it answers with the policy.

    rows -> own completions, policy in context -> (grader) -> SFT behind prompts without the policy

Askell et al. 2021 (arXiv 2112.00861, section 2.3) and Snell et al. 2022 (arXiv 2209.15189) train
on all completions (`filter: none`); `filter: grader` keeps the right ones. No row needs a
rationale. The model that answers is the one that enters the stage, its weights as they are. With
`loss: forward_kl` its whole distributions are learned and not its tokens alone (`baking`).
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from accelerate import PartialState

from trimpi.batch import Encoded, completion_ids, encode_example
from trimpi.budget import TokenBudget, check_budgets, token_budget
from trimpi.errors import UserError
from trimpi.generate import Generator, TransformersGenerator
from trimpi.model import (
    check_quantization,
    context_limit,
    load_config,
    load_model,
    load_processor,
)
from trimpi.prompt import build_messages
from trimpi.recipe import DistillConfig
from trimpi.runs import STAGE
from trimpi.sample import DataFolder, Sample
from trimpi.schedule import plan_schedule
from trimpi.stages.baking import baking_trainer
from trimpi.stages.finish import free_memory
from trimpi.stages.inputs import StageInputs
from trimpi.stages.own_answers import KEPT, Own, counts, generate_chunks, in_words, judge
from trimpi.stages.supervised import (
    SHOWN,
    SupervisedTrainer,
    run_supervised,
    training_arguments,
)


def run(config: DistillConfig, inputs: StageInputs) -> Path:
    """Generate, filter, train; leaves a complete model folder and `completions.jsonl`.

    A stage that was interrupted goes on with the completions that are there.

    Returns:
        `inputs.output / "model"`.

    Raises:
        UserError: rows without a policy or beyond the context, a grader that fails, unknown
            trainer keys, wrong sizes, or no completion left to train on.
    """
    if (inputs.output / STAGE).is_file():
        return inputs.output / "model"
    check_quantization(inputs.model_config, train=config.lora is None)
    samples = inputs.data.read(config.split)[: config.limit]
    arguments = training_arguments(config, inputs)  # starts the process group, checks keys
    plan_schedule(config, len(samples), arguments.world_size, config.kind)
    processor = load_processor(inputs.model, inputs.model_config)
    limit = context_limit(load_config(inputs.model, inputs.model_config))
    check_rows(config, inputs.data, samples, processor, limit)
    state = PartialState()

    @cache
    def generator() -> Generator:
        model = load_model(inputs.model, inputs.model_config)
        return TransformersGenerator(model, processor, config.generation_batch_size, progress=False)

    if state.is_main_process:
        print(f"{config.kind}: {len(samples)} rows x {config.rollouts} completions to generate")
    generate_chunks(
        config,
        samples,
        inputs.data,
        inputs.output,
        generator,
        inputs.seed,
        state.process_index,
        state.num_processes,
        watched=sys.stderr.isatty() and state.is_main_process,
    )
    generator.cache_clear()
    free_memory()
    state.wait_for_everyone()
    if state.is_main_process:
        judge(config, samples, inputs.output, inputs.grader, processor.tokenizer)
    state.wait_for_everyone()
    found = judge(config, samples, inputs.output, inputs.grader, processor.tokenizer)
    counted = counts(found, len(samples))
    if state.is_main_process:
        print(f"{config.kind}: {in_words(counted)}")
    kept = {f"{own.sample.id} #{own.rollout}": own for own in found if own.verdict == KEPT}
    if not kept:
        raise UserError(
            f"{config.kind}: nothing is left to train on: {in_words(counted)}. Raise rollouts or "
            "max_new_tokens, train a stage before this one, or set filter to none, and run again "
            "with --overwrite"
        )
    make: Callable[..., SupervisedTrainer] = SupervisedTrainer
    if config.loss == "forward_kl":
        shown = [
            build_messages(own.sample, inputs.data.policy_of(own.sample), config.target)
            for own in kept.values()
        ]
        make = partial(baking_trainer, config, inputs, shown)
    return run_supervised(
        config,
        inputs,
        partial(encode, config, kept),
        made=[replace(own.sample, id=name) for name, own in kept.items()],
        more={"own_answers": counted},
        make_trainer=make,
    )


def check_rows(
    config: DistillConfig,
    data: DataFolder,
    samples: list[Sample],
    processor: Any,
    limit: int | None,
) -> None:
    """Refuse rows without a policy, and rows whose prompt with it leaves no room for an answer.

    Raises:
        UserError: all faulty rows.
    """
    problems, budgets = [], []
    for sample in samples:
        where = f"{config.split}: row {sample.id!r}"
        policy = data.policy_of(sample)
        if policy is None:
            problems.append(f"{where}: has no policy to distill; name one, or drop the row")
            continue
        try:
            budget = token_budget(processor, sample, policy, config.target, config.max_new_tokens)
        except UserError as error:
            problems.append(f"{where}: {error}")
            continue
        budgets.append((where, budget))
    if problems:
        more = len(problems) - SHOWN
        raise UserError.join(problems[:SHOWN] + ([f"... and {more} more rows"] if more > 0 else []))
    check_budgets(budgets, limit)


def encode(
    config: DistillConfig,
    kept: Mapping[str, Own],
    processor: Any,
    sample: Sample,
    visual: frozenset[int],
) -> tuple[Encoded, TokenBudget]:
    """The training sequence of one own completion: it alone in the loss, no policy before it.

    Args:
        config: the stage.
        kept: completions by the id of the row that is made of each.
        processor: of the model.
        sample: such a row.
        visual: not needed, as nothing of the prompt is in the loss.
    """
    text = kept[sample.id].text.strip()
    row = encode_example(processor, build_messages(sample, None, config.target), text, "completion")
    room = len(completion_ids(processor, text))
    return row, token_budget(processor, sample, None, config.target, room)
