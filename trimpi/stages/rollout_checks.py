"""Checks of RL as it runs. First, one batch: is what is scored what was generated, policy aside?

A wrong padding side, a template that differs between calls, or pictures out of place change no
shape and raise no error; they only make the model learn from another prompt than it answered.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from trimpi.batch import collate, encode_text
from trimpi.errors import UserError
from trimpi.generate import to_model
from trimpi.prompt import Message
from trimpi.stages.policy_rollout import PolicyRolloutTrainer
from trimpi.stages.two_views import SCORED

TOLERANCE = {"float32": 1e-3, "16 bit": 0.1}
"""Greatest mean difference of log-probabilities per token (nats) by precision of the scoring."""


def self_test(
    trainer: PolicyRolloutTrainer,
    rows: list[dict[str, Any]],
    free: list[Message],
    with_policy: list[Message] | None,
    fresh: bool = True,
) -> dict[str, Any]:
    """Generate and score one group, and compare it with an encoding that TRL has no part in.

    1. Every row is generated from, and scored against, the prompt that it should be.
    2. The scored pixels are those of the policy-free prompt.
    3. Replaying the generation of a policy-free row gives the log-probabilities of its scoring.
    4. The KL reference is the model that enters the stage.

    The random state and the trainer's log are left as they were.

    Args:
        trainer: before its first step.
        rows: `group_size` copies of one row of the training data.
        free: the row's policy-free prompt, pictures by path.
        with_policy: its prompt with the policy; None when the stage uses no policy.
        fresh: no step has been made, so that the reference must agree with the model.

    Returns:
        What was compared, for `selftest.json`.

    Raises:
        UserError: a comparison failed; says which, and what to do.
    """
    processor, model = trainer.processing_class, trainer.model
    devices = [model.device] if model.device.type == "cuda" else []
    training = model.training
    with torch.random.fork_rng(devices=devices):
        model.train()
        trainer.as_given = True
        try:
            output = trainer._generate_and_score_completions(rows)
        finally:
            trainer.as_given = False
        scored = _scored_logps(trainer, output)
    model.train(training)
    aware = trainer.aware_rows(len(rows))
    expected = [with_policy if mark and with_policy is not None else free for mark in aware]
    scored_ids = _unpadded(output["prompt_ids"], output["prompt_mask"])
    rollout = trainer.last_rollout
    source_ids = rollout.generated_from if rollout is not None else scored_ids
    for index, messages in enumerate(expected):
        _same_prompt(processor, source_ids[index], messages, f"row {index} was generated from")
        _same_prompt(processor, scored_ids[index], free, f"row {index} is scored against")
    _same_pixels(processor, output, free, len(rows))
    place = aware.index(False)
    mask = output["completion_mask"][place].bool()
    ids = output["completion_ids"][place][mask]
    if "sampling_per_token_logps" in output:
        replayed = output["sampling_per_token_logps"][place][mask]
    else:
        replayed = _replay(trainer, free, ids)
    kind = "float32" if _is_float32(trainer) else "16 bit"
    gap = _gap(replayed, scored[place][mask])
    found: dict[str, Any] = {
        "rows": len(rows),
        "aware_rows": sum(aware),
        "prompt_tokens": {"scored": len(scored_ids[0]), "with_policy": len(source_ids[-1])},
        "scored_against": processor.tokenizer.decode(scored_ids[0]),
        "generated_from": processor.tokenizer.decode(source_ids[-1]),
        "completion": processor.tokenizer.decode(ids),
        "logp_difference": {"tokens": len(ids), "mean": gap, "limit": TOLERANCE[kind]},
    }
    _within(gap, TOLERANCE[kind], "generation and scoring of a policy-free row", "batching")
    if fresh and "ref_per_token_logps" in output:
        whole = output["completion_mask"].bool()
        gap = _gap(output["ref_per_token_logps"][whole], scored[whole])
        found["reference_difference"] = {"mean": gap, "limit": TOLERANCE[kind]}
        _within(gap, TOLERANCE[kind], "the KL reference and the model at the start", "model path")
    trainer.forget_log()
    return found


def _same_prompt(processor: Any, ids: list[int], messages: list[Message], what: str) -> None:
    wanted = encode_text(processor, messages).input_ids
    if ids == wanted:
        return
    pairs = zip(ids, wanted, strict=False)
    place = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(wanted)))
    found, other = (
        processor.tokenizer.decode(x[max(0, place - 3) : place + 6]) for x in (ids, wanted)
    )
    raise UserError(
        f"self-test: {what} another prompt than the template gives: {len(ids)} tokens for "
        f"{len(wanted)}, from token {place} on {found!r} for {other!r}; use the processor and "
        "chat template that came with the model"
    )


def _same_pixels(
    processor: Any, output: dict[str, Any], messages: list[Message], rows: int
) -> None:
    wanted = collate(processor, [encode_text(processor, messages)] * rows, side="left")
    for name in ("pixel_values", "image_grid_thw", "pixel_attention_mask"):
        a, b = output.get(name), wanted.get(name)
        if (a is None) != (b is None) or (
            a is not None and b is not None and not torch.equal(a.cpu().to(b.dtype), b)
        ):
            raise UserError(
                f"self-test: {name} of the scored rows are not those of the policy-free prompt; "
                "use the processor that came with the model"
            )


def _scored_logps(trainer: PolicyRolloutTrainer, output: dict[str, Any]) -> Tensor:
    """Log-probabilities of the completions as the loss computes them, [B, T]."""
    with torch.no_grad():
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].size(1),
            batch_size=trainer.args.per_device_train_batch_size,
            **{name: output[name] for name in SCORED if name in output},
        )
    return logps.float()


def _replay(trainer: PolicyRolloutTrainer, messages: list[Message], ids: Tensor) -> Tensor:
    """Log-probabilities of `ids` when they are generated one by one with a cache, [T]."""
    processor, model = trainer.processing_class, trainer.accelerator.unwrap_model(trainer.model)
    batch = collate(processor, [encode_text(processor, messages)], side="left")
    del batch["labels"]
    start, forced = batch["input_ids"].shape[1], ids.tolist()
    config = GenerationConfig(
        max_new_tokens=len(forced),
        min_new_tokens=len(forced),
        do_sample=False,
        eos_token_id=None,
        pad_token_id=processor.tokenizer.pad_token_id,
        output_logits=True,
        return_dict_in_generate=True,
    )
    with torch.no_grad():
        output = model.generate(
            **to_model(batch, model),
            generation_config=config,
            prefix_allowed_tokens_fn=lambda _, sequence: [forced[len(sequence) - start]],
        )
    logits = torch.stack(output.logits, dim=1)[0].float() / trainer.temperature
    return logits.log_softmax(-1).gather(1, ids.to(logits.device).unsqueeze(1)).squeeze(1)


def _unpadded(ids: Tensor, mask: Tensor) -> list[list[int]]:
    return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def _is_float32(trainer: PolicyRolloutTrainer) -> bool:
    return bool(trainer.model.dtype == torch.float32) and not (
        trainer.args.bf16 or trainer.args.fp16
    )


def _gap(a: Tensor, b: Tensor) -> float:
    return float((a.float().cpu() - b.float().cpu()).abs().mean())


def _within(gap: float, limit: float, what: str, cause: str) -> None:
    if not gap <= limit:
        raise UserError(
            f"self-test: {what} differ by {gap:.3g} nats per token on average, allowed is "
            f"{limit:g}; check {cause}, dtype and attn_implementation"
        )
