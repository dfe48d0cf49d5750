"""On-policy context distillation: the student's own answers, judged token by token by the model
that sees the policy.

    rows -> self-test -> TRL's loop with the loss of `distilling_rollouts` -> model folder

No reward is trained on. OPCD (arXiv 2602.12275) takes the reverse KL to the model as it was;
SDFT (2601.19897) the forward one, OPSD (2601.18734) the Jensen-Shannon divergence and a bound a
token: all are keys here. A policy is the same for all requests, where this family works best.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from trimpi.batch import collate, encode_text, turn_of
from trimpi.errors import UserError
from trimpi.generate import stop_token_ids
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
    model_digest,
    visual_token_ids,
)
from trimpi.prompt import build_messages
from trimpi.quantization import adapters_in_float32, prepare_quantized
from trimpi.recipe import OnPolicyDistillConfig
from trimpi.runs import STAGE, read_json, write_json
from trimpi.sample import Sample
from trimpi.stages.board import boards
from trimpi.stages.checkpoints import CheckpointMarker, resume_point, train_on
from trimpi.stages.distilling_rollouts import DistillingRolloutTrainer
from trimpi.stages.failures import row_names
from trimpi.stages.finish import finish_stage, free_memory
from trimpi.stages.inputs import StageInputs
from trimpi.stages.monitor import FiniteGradients, GradientAudit, MetricsLog
from trimpi.stages.policy_teacher import PolicyTeacher, frozen_copy
from trimpi.stages.rewards import RolloutReward
from trimpi.stages.rl import SELFTEST, check_engine, shared
from trimpi.stages.rl_arguments import BatchPlan, device_count, grpo_arguments, plan_batches
from trimpi.stages.rollout_checks import self_test
from trimpi.stages.rollout_rows import RolloutViews, check_rows
from trimpi.stages.validation import validation_curve
from trimpi.stages.vllm_engine import engine_settings
from trimpi.stages.whole_model import whole_model
from trimpi.trainer_fields import engine_missing


def run(config: OnPolicyDistillConfig, inputs: StageInputs) -> Path:
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
    trainer = build_trainer(config, inputs, samples, plan, model, processor)
    first = trainer.is_world_process_zero()
    if first:
        print(f"{config.kind}: {plan.arithmetic}")
    checkpoint = shared(str(resume_point(inputs.output) or "") if first else "")
    record = {
        "rows": len(samples),
        "schedule": plan.arithmetic,
        "parameters": {
            "total": count_parameters(trainer.model),
            "trainable": count_parameters(trainer.model, trainable=True),
        },
        "tokens": tokens,
        "teacher": teacher_record(config, inputs),
        "resumed_from": Path(checkpoint).name if checkpoint else None,
    }
    if not checkpoint:
        tested = check_teacher(config, samples[0], trainer)
        if first:
            write_json(inputs.output / SELFTEST, tested)
    updates = train_on(trainer, checkpoint or None, plan.updates)
    record |= {"steps": updates, "sequences": updates * config.batch_size}
    # A resume after the last update does not bring the trainer's count back.
    record["tokens_trained"] = int(trainer.state.num_input_tokens_seen) or None
    record["selftest"] = read_json(inputs.output / SELFTEST)
    accelerator = trainer.accelerator
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


def build_trainer(
    config: OnPolicyDistillConfig,
    inputs: StageInputs,
    samples: Sequence[Sample],
    plan: BatchPlan,
    model: Any,
    processor: Any,
) -> DistillingRolloutTrainer:
    """The trainer of the stage with its teacher, before the first step."""
    stops = stop_token_ids(model, processor)
    model.generation_config.eos_token_id = sorted(stops)
    visual = visual_token_ids(model.config, processor.tokenizer)
    if config.freeze_vision:
        freeze_vision(model)
    reward = RolloutReward(
        samples,
        inputs.grader,
        processor.tokenizer,
        stops,
        turn_of(processor).lead,
        accuracy_weight=1.0,
        format_weight=0.0,
        file=str(inputs.data.root / f"{config.split}.jsonl"),
    )
    views = RolloutViews(samples, inputs.data, with_policy=False)
    with engine_settings(config, inputs.model_config):
        trainer = DistillingRolloutTrainer(
            model=model,
            args=grpo_arguments(config, inputs, plan, visual, stops),
            reward_funcs=[reward],
            train_dataset=Dataset.from_dict({"row": list(range(len(samples)))}).with_transform(
                views
            ),
            processing_class=processor,
            peft_config=lora_config(model, config.lora) if config.lora is not None else None,
            callbacks=[
                CheckpointMarker(config.keep_last),
                MetricsLog(inputs.output, config.kind),
                GradientAudit(inputs.output),
                *boards(inputs),
            ],
            config=config,
            shown=lambda row: build_messages(samples[row], inputs.data.policy_of(samples[row])),
        )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(FiniteGradients(config.kind, trainer.accelerator))
    if config.validation is not None:
        trainer.add_callback(validation_curve(config, inputs, trainer))
    adapters_in_float32(trainer.model)
    copied = None
    if config.lora is None or config.teacher == "base":
        copied = frozen_copy(trainer, locate(teacher_folder(config, inputs)), inputs.model_config)
    trainer.teacher = PolicyTeacher(
        trainer, copied, config.divergence, config.temperature, config.top_k
    )
    trainer.names = row_names(config.split, samples)
    trainer.sequences_per_update = config.batch_size
    return trainer


def teacher_folder(config: OnPolicyDistillConfig, inputs: StageInputs) -> Path:
    """Where the teacher's weights come from."""
    if config.teacher == "start":
        return inputs.model
    if inputs.base is None:
        raise ValueError("teacher 'base' needs the model that the recipe starts from")
    return inputs.base


def teacher_record(config: OnPolicyDistillConfig, inputs: StageInputs) -> dict[str, Any]:
    """What `stage.json` says of the teacher."""
    folder = teacher_folder(config, inputs)
    own = config.lora is not None and config.teacher == "start"
    return {
        "of": config.teacher,
        "kind": "the same weights, adapter off" if own else "a frozen copy",
        "path": locate(folder),
        "digest": model_digest(folder) if folder.is_dir() else None,
    }


def check_teacher(
    config: OnPolicyDistillConfig, sample: Sample, trainer: DistillingRolloutTrainer
) -> dict[str, Any]:
    """RL's self-test, and one of the teacher: given the student's prompt it is the student.

    A teacher that reads other positions, weights or pictures than it should raises no error; it
    only pulls somewhere else. With the policy-free prompt its divergence must be zero.

    Returns:
        What was compared, for `selftest.json`.

    Raises:
        UserError: a comparison failed.
    """
    free = build_messages(sample, None)
    rows = [dict(trainer.train_dataset[0]) for _ in range(max(2, config.group_size))]
    found = self_test(trainer, rows, free, None, fresh=False)
    if config.teacher == "start":
        limit = found["logp_difference"]["limit"]
        gap, with_policy = trainer.teacher_gap(rows, free)
        found["teacher"] = {"same_prompt": gap, "limit": limit, "with_policy": with_policy}
        if not gap <= limit:
            raise UserError(
                f"self-test: given the same prompt, teacher and student differ by {gap:.3g} nats "
                f"per token, allowed is {limit:g}; check model path, dtype and "
                "attn_implementation"
            )
    return found
