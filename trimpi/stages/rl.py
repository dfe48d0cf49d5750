"""Stage 3, RL: GRPO, and with `policy_fraction` > 0 PolicyRollout GRPO (paper, stage 3).

    rows -> both views of each prompt -> pre-flight -> self-test -> TRL's loop -> model folder

Deviations from the paper are stated in docs/stages.md. With one update per rollout batch the
ratio is 1 everywhere and clipping cannot act; the paper's stack makes several.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PrinterCallback

from trimpi.batch import collate, encode_text, turn_of
from trimpi.errors import UserError
from trimpi.generate import TransformersGenerator, stop_token_ids
from trimpi.model import (
    check_adapter,
    check_quantization,
    context_limit,
    count_parameters,
    freeze_vision,
    load_config,
    load_model,
    load_processor,
    locate,
    lora_config,
    visual_token_ids,
)
from trimpi.prompt import build_messages
from trimpi.quantization import adapters_in_float32, prepare_quantized
from trimpi.recipe import RlConfig, RolloutConfig
from trimpi.runs import STAGE, read_json, write_json
from trimpi.sample import Sample
from trimpi.stages.board import boards
from trimpi.stages.checkpoints import CheckpointMarker, resume_point, train_on
from trimpi.stages.failures import row_names
from trimpi.stages.finish import finish_stage, free_memory
from trimpi.stages.inputs import StageInputs
from trimpi.stages.instance_filter import INSTANCES, kept_rows, summary, words
from trimpi.stages.kl_reference import (
    add_reference,
    kl_reference,
    named_after_reference,
    reference_of,
)
from trimpi.stages.monitor import FiniteGradients, GradientAudit, MetricsLog
from trimpi.stages.preflight import preflight, shown_lines
from trimpi.stages.prompt_source import prompt_source
from trimpi.stages.rewards import RolloutReward
from trimpi.stages.rl_arguments import (
    BatchPlan,
    device_count,
    grpo_arguments,
    plan_batches,
    watched,
)
from trimpi.stages.rollout_checks import self_test
from trimpi.stages.rollout_rows import RolloutViews, check_rows
from trimpi.stages.shaped_rollouts import ShapedRolloutTrainer
from trimpi.stages.validation import validation_curve
from trimpi.stages.vllm_engine import engine_settings
from trimpi.stages.whole_model import whole_model
from trimpi.trainer_fields import engine_missing, engine_short
from trimpi.vllm_server import server_problems

SELFTEST, PREFLIGHT = "selftest.json", "preflight.json"


def run(config: RlConfig, inputs: StageInputs) -> Path:
    """Train on all rows of the split and leave a complete model folder.

    A stage folder without `stage.json` is resumed from its last whole checkpoint: same prompts,
    same draws, same weights as without the interruption.

    Returns:
        `inputs.output / "model"`.

    Raises:
        UserError: rows without a policy or beyond the context, wrong sizes or trainer keys, a
            grader that fails, or a self-test that does not pass.
    """
    started = time.time()
    if (inputs.output / STAGE).is_file():
        return inputs.output / "model"
    check_quantization(inputs.model_config, train=config.lora is None)
    check_adapter(inputs.model, inputs.model_config, config.lora)
    if missing := engine_missing(config, config.kind):
        raise UserError(missing)
    samples = inputs.data.read(config.split)[: config.limit]
    plan = plan_batches(config, len(samples), device_count())
    processor = load_processor(inputs.model, inputs.model_config)
    settings = load_config(inputs.model, inputs.model_config)
    tokens = check_rows(config, inputs.data, samples, processor, context_limit(settings))
    check_engine(config, inputs, int(tokens["total"]["max"]))
    model = load_model(inputs.model, inputs.model_config, train=config.lora is None)
    prepare_quantized(model)
    rows = list(range(len(samples)))
    if config.instance_filter != "none":
        rows = filter_instances(config, inputs, samples, model, processor)
        plan = plan_batches(config, len(rows), device_count())
    trainer = build_trainer(config, inputs, samples, plan, model, processor, rows)
    first = trainer.is_world_process_zero()
    if first:
        print(f"{config.kind}: {plan.arithmetic}")
    checkpoint = shared(str(resume_point(inputs.output) or "") if first else "")
    record = {
        "rows": len(rows),
        "schedule": plan.arithmetic,
        "parameters": {
            "total": count_parameters(trainer.model),
            "trainable": count_parameters(trainer.model, trainable=True),
        },
        "tokens": tokens,
        "kl_reference": kl_reference(config, inputs, trainer),
        "group_layout": ["aware" if mark else "free" for mark in trainer.layout],
        "resumed_from": Path(checkpoint).name if checkpoint else None,
    }
    if not checkpoint:
        check_rollouts(config, inputs, [samples[row] for row in rows], trainer)
    updates = train(trainer, checkpoint, plan.updates)
    record |= trainer.rollout_record() | trainer.picture_record()
    record |= {"steps": updates, "sequences": updates * config.batch_size}
    # A resume after the last update does not bring the trainer's count back.
    record["tokens_trained"] = int(trainer.state.num_input_tokens_seen) or None
    if config.instance_filter != "none":
        record["instances"] = summary(inputs.output)
    record["selftest"] = read_json(inputs.output / SELFTEST)
    accelerator = trainer.accelerator
    trainer.release_pictures()
    batch = collate(
        processor, [encode_text(processor, build_messages(s, None)) for s in samples[:2]]
    )
    trained = whole_model(trainer, config, inputs, batch)
    del trainer, model
    free_memory()
    if first:
        finish_stage(config, inputs, trained, processor, batch, record, started)
    accelerator.wait_for_everyone()
    return inputs.output / "model"


def check_engine(config: RolloutConfig, inputs: StageInputs, tokens: int) -> None:
    """Is the vLLM that the stage asks for usable? Asked before a model is loaded.

    Args:
        config: the stage.
        inputs: how the recipe processes pictures.
        tokens: of the longest row, its policy and completion included.

    Raises:
        UserError: vLLM has no room for the longest row, no GPU, or no server that can be used.
    """
    if not config.trainer.get("use_vllm"):
        return
    if short := engine_short(config, config.kind, tokens):
        raise UserError(short)
    if not torch.cuda.is_available():
        raise UserError(
            f"{config.kind}.trainer.use_vllm: there is no GPU here, which vLLM and the way of the "
            "weights to it need; drop the key: transformers generates then"
        )
    key, model = config.kind, inputs.model_config
    if problems := server_problems(config, model, key, tokens=tokens):
        raise UserError.join(problems)


def filter_instances(
    config: RlConfig, inputs: StageInputs, samples: Sequence[Sample], model: Any, processor: Any
) -> list[int]:
    """Rows that the model that enters solves now and then; leaves `instances.json`.

    Raises:
        UserError: too few are left, or the grader failed.
    """
    reward = make_reward(config, inputs, samples, model, processor)
    generate = TransformersGenerator(model, processor, config.micro_batch_size, watched())
    state = PartialState(cpu=not torch.cuda.is_available())
    if state.is_main_process and not (inputs.output / INSTANCES).is_file():
        print(
            f"{config.kind}: instance filter: {len(samples)} prompts x {config.filter_rollouts}"
            " rollouts"
        )
    seed, output = inputs.seed, inputs.output
    rows = kept_rows(config, samples, inputs.data, generate, reward.grade, seed, output)
    if state.is_main_process and (found := summary(output)):
        counts = f"{len(rows)} of {len(samples)} prompts kept"
        print(f"{config.kind}: instance filter: {counts} ({words(found)})")
    return rows


def make_reward(
    config: RlConfig, inputs: StageInputs, samples: Sequence[Sample], model: Any, processor: Any
) -> RolloutReward:
    """The recipe's grader and the share for form, over all rows of the split."""
    return RolloutReward(
        samples,
        inputs.grader,
        processor.tokenizer,
        stop_token_ids(model, processor),
        turn_of(processor).lead,
        config.accuracy_weight,
        config.format_weight,
        file=str(inputs.data.root / f"{config.split}.jsonl"),
        overlong=config.overlong,
        max_new_tokens=config.max_new_tokens,
    )


def build_trainer(
    config: RlConfig,
    inputs: StageInputs,
    samples: Sequence[Sample],
    plan: BatchPlan,
    model: Any,
    processor: Any,
    rows: Sequence[int] | None = None,
) -> ShapedRolloutTrainer:
    """The trainer of the stage, before its first step; of `rows` of the samples, None for all."""
    stops = stop_token_ids(model, processor)
    model.generation_config.eos_token_id = sorted(stops)
    visual = visual_token_ids(model.config, processor.tokenizer)
    if config.freeze_vision:
        freeze_vision(model)
    reward = make_reward(config, inputs, samples, model, processor)
    order = list(range(len(samples))) if rows is None else list(rows)
    views = RolloutViews(samples, inputs.data, config.shows_policy)
    with engine_settings(config, inputs.model_config):
        trainer = ShapedRolloutTrainer(
            model=named_after_reference(model, config, inputs),
            args=grpo_arguments(config, inputs, plan, visual, stops),
            reward_funcs=[reward],
            train_dataset=Dataset.from_dict({"row": order}).with_transform(views),
            processing_class=processor,
            peft_config=lora_config(model, config.lora) if config.lora is not None else None,
            callbacks=[
                CheckpointMarker(config.keep_last),
                MetricsLog(inputs.output, config.kind),
                GradientAudit(inputs.output),
                *boards(inputs),
            ],
            config=config,
            source=prompt_source([samples[row] for row in order], config, inputs.seed),
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(FiniteGradients(config.kind, trainer.accelerator))
    if config.validation is not None:
        trainer.add_callback(validation_curve(config, inputs, trainer))
    model.config._name_or_path = locate(inputs.model)
    if config.kl_reference == "base" and config.lora is not None:
        add_reference(trainer, reference_of(config, inputs), inputs.model_config)
    adapters_in_float32(trainer.model)
    trainer.names = row_names(config.split, samples)
    trainer.sequences_per_update = config.batch_size
    trainer.scoring = config.scoring
    trainer.share_pictures()
    return trainer


def check_rollouts(
    config: RlConfig, inputs: StageInputs, samples: Sequence[Sample], trainer: ShapedRolloutTrainer
) -> None:
    """Pre-flight and self-test before the first step; leaves a file of each.

    Raises:
        UserError: the self-test does not pass.
    """
    first = trainer.is_world_process_zero()
    policy = inputs.data.policy_of(samples[0]) if config.policy_fraction else None
    tested = self_test(
        trainer,
        [dict(trainer.train_dataset[0]) for _ in range(config.group_size)],
        build_messages(samples[0], None),
        build_messages(samples[0], policy),
        fresh=config.kl_reference == "start",
    )
    if first:
        write_json(inputs.output / SELFTEST, tested)
    if not config.preflight_prompts:
        return
    model, reward = trainer.accelerator.unwrap_model(trainer.model), trainer.reward_funcs[0]
    size = config.micro_batch_size
    generate = TransformersGenerator(model, trainer.processing_class, size, watched())
    found = preflight(generate, samples, inputs.data, reward.grade, config, inputs.seed)
    if first:
        write_json(inputs.output / PREFLIGHT, found)
        for line in [*shown_lines(found), *(f"warning: {w}" for w in found["warnings"])]:
            print(f"{config.kind}: pre-flight: {line}")


def train(trainer: ShapedRolloutTrainer, checkpoint: str, updates: int) -> int:
    """Run TRL's loop from the start or from a checkpoint; returns the updates made in all."""
    ended = bool(checkpoint) and trainer.restore_choice(checkpoint)
    return train_on(trainer, checkpoint or None, updates, ended)


def shared(text: str) -> str:
    """The first process' text, told to all."""
    found = [text]
    if device_count() > 1:
        broadcast_object_list(found)
    return found[0]
