"""Stage 3, RL: GRPO, and with `policy_fraction` > 0 PolicyRollout GRPO (paper, stage 3).

    rows -> both views of each prompt -> pre-flight -> self-test -> TRL's loop -> model folder

Deviations from the paper are stated in docs/stages.md. With one update per rollout batch the
ratio is 1 everywhere and clipping cannot act; the paper's stack makes several.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import PrinterCallback

from trimpi.batch import collate, encode_text, turn_of
from trimpi.generate import TransformersGenerator, stop_token_ids
from trimpi.model import (
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
from trimpi.recipe import RlConfig
from trimpi.runs import STAGE, read_json, write_json
from trimpi.sample import Sample
from trimpi.stages.checkpoints import CheckpointMarker, resume_point
from trimpi.stages.finish import finish_stage, free_memory
from trimpi.stages.inputs import StageInputs
from trimpi.stages.monitor import FiniteGradients, GradientAudit, MetricsLog
from trimpi.stages.policy_rollout import PolicyRolloutTrainer
from trimpi.stages.preflight import preflight, shown_lines
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
    samples = inputs.data.read(config.split)[: config.limit]
    plan = plan_batches(config, len(samples), device_count())
    processor = load_processor(inputs.model, inputs.model_config)
    settings = load_config(inputs.model, inputs.model_config)
    tokens = check_rows(config, inputs.data, samples, processor, context_limit(settings))
    model = load_model(inputs.model, inputs.model_config, train=config.lora is None)
    trainer = build_trainer(config, inputs, samples, plan, model, processor)
    first = trainer.is_world_process_zero()
    if first:
        print(f"{config.kind}: {plan.arithmetic}")
    checkpoint = _shared(str(resume_point(inputs.output) or "") if first else "")
    record = {
        "rows": len(samples),
        "schedule": plan.arithmetic,
        "parameters": {
            "total": count_parameters(trainer.model),
            "trainable": count_parameters(trainer.model, trainable=True),
        },
        "tokens": tokens,
        "kl_reference": kl_reference(config, inputs, model),
        "group_layout": ["aware" if mark else "free" for mark in trainer.layout],
        "resumed_from": Path(checkpoint).name if checkpoint else None,
    }
    if not checkpoint:
        check_rollouts(config, inputs, samples, trainer)
    updates = train(trainer, checkpoint, plan.updates)
    record |= {"steps": updates, "sequences": updates * config.batch_size}
    # A resume after the last update does not bring the trainer's count back.
    record["tokens_trained"] = int(trainer.state.num_input_tokens_seen) or None
    record["selftest"] = read_json(inputs.output / SELFTEST)
    accelerator = trainer.accelerator
    trained = accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
    del trainer, model
    free_memory()
    if first:
        batch = collate(
            processor, [encode_text(processor, build_messages(s, None)) for s in samples[:2]]
        )
        finish_stage(config, inputs, trained, processor, batch, record, started)
    accelerator.wait_for_everyone()
    return inputs.output / "model"


def build_trainer(
    config: RlConfig,
    inputs: StageInputs,
    samples: Sequence[Sample],
    plan: BatchPlan,
    model: Any,
    processor: Any,
) -> PolicyRolloutTrainer:
    """The trainer of the stage, before its first step."""
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
        config.accuracy_weight,
        config.format_weight,
        file=str(inputs.data.root / f"{config.split}.jsonl"),
    )
    views = RolloutViews(samples, inputs.data, config.policy_fraction > 0)
    trainer = PolicyRolloutTrainer(
        model=model,
        args=grpo_arguments(config, inputs, plan, visual, stops),
        reward_funcs=[reward],
        train_dataset=Dataset.from_dict({"row": list(range(len(samples)))}).with_transform(views),
        processing_class=processor,
        peft_config=lora_config(model, config.lora) if config.lora is not None else None,
        callbacks=[
            CheckpointMarker(),
            MetricsLog(inputs.output, config.kind),
            GradientAudit(inputs.output),
            FiniteGradients(config.kind),
        ],
        policy_fraction=config.policy_fraction,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def check_rollouts(
    config: RlConfig, inputs: StageInputs, samples: Sequence[Sample], trainer: PolicyRolloutTrainer
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


def kl_reference(config: RlConfig, inputs: StageInputs, model: Any) -> dict[str, Any]:
    """What the KL term pulls towards: always the model that enters the stage.

    With full-parameter training TRL loads it a second time from the path in the configuration.
    """
    if config.beta == 0:
        return {"kind": "none", "beta": 0.0}
    path = locate(inputs.model)
    if config.lora is None and model.config._name_or_path != path:
        raise RuntimeError(f"the reference would be {model.config._name_or_path}, not {path}")
    kind = "a frozen copy" if config.lora is None else "the same weights, adapter off"
    digest = model_digest(Path(path)) if Path(path).is_dir() else None
    return {"kind": kind, "path": path, "digest": digest, "beta": config.beta}


def train(trainer: PolicyRolloutTrainer, checkpoint: str, updates: int) -> int:
    """Run TRL's loop from the start or from a checkpoint; returns the updates made in all."""
    done = int(Path(checkpoint).name.rpartition("-")[2]) if checkpoint else 0
    if done >= updates:
        # The loop would make one update more before it looks at its limit.
        trainer._load_from_checkpoint(checkpoint)
        return done
    trainer.train(resume_from_checkpoint=checkpoint or None)
    return int(trainer.state.global_step)


def _shared(text: str) -> str:
    """The first process' text, for all."""
    found = [text]
    if device_count() > 1:
        broadcast_object_list(found)
    return found[0]
