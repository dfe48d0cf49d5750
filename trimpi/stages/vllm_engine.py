"""vLLM behind TRL's trainer: what TRL does not pass on, hand over unexpanded, or log by half.

A vLLM server takes prompts with every picture's placeholder expanded (TRL pairs them with features
that the server made); an engine in this process expands them itself and would do so a second time
(huggingface/trl issue 6294). What it says that it answered is compared with what was meant.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from trl.generation import vllm_generation

from trimpi.errors import UserError
from trimpi.prompt import Message
from trimpi.recipe import ModelConfig, RolloutConfig
from trimpi.stages.rollout_metrics import WeightedMean

ANSWER_WITHIN = 3600.0
"""Seconds after which a server that has taken a request and says nothing is given up."""


@contextmanager
def engine_settings(config: RolloutConfig, model: ModelConfig) -> Iterator[None]:
    """Arguments that TRL does not give the engine in this process, while the block makes it.

    Prefix caching, so that the policy before a request is computed once for all of its rows; and
    the recipe's bounds of pictures, which the model folder does not hold.

    Raises:
        UserError: vLLM does not load the model.
    """
    if not config.trainer.get("use_vllm") or config.trainer.get("vllm_mode") == "server":
        yield
        return
    bounds = {"min_pixels": model.min_pixels, "max_pixels": model.max_pixels}
    settings: dict[str, Any] = {"enable_prefix_caching": True}
    if given := {name: value for name, value in bounds.items() if value is not None}:
        settings["mm_processor_kwargs"] = given
    made = vllm_generation.LLM

    def load(**arguments: Any) -> Any:
        try:
            return made(**(settings | arguments))
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            raise UserError(
                f"{config.kind}.trainer.use_vllm: vLLM does not load {arguments.get('model')} "
                f"({_line(error)}); change vllm_gpu_memory_utilization or vllm_max_model_length, "
                "or drop use_vllm"
            ) from None

    vllm_generation.LLM = load
    try:
        yield
    finally:
        vllm_generation.LLM = made


def watch_engine(engine: Any, kind: str = "rl") -> None:
    """Keep what the engine says that it answered (`answered`), and bound how long it may be mute.

    Args:
        engine: TRL's `VLLMGeneration`; two of its methods are replaced on the instance.
        kind: of the stage, for messages.
    """
    if (client := getattr(engine, "vllm_client", None)) is not None:
        # TRL's client waits for ever for a server that has taken a request.
        client.session.request = partial(client.session.request, timeout=ANSWER_WITHIN)
    if engine.mode == "server":
        engine.sync_weights = _named(engine.sync_weights, kind)
        engine.generate = _named(engine.generate, kind)
    generate: Callable[..., Any] = engine.generate

    def generated(*args: Any, **kwargs: Any) -> Any:
        found = generate(*args, **kwargs)
        engine.answered = found[0]
        return found

    engine.generate = generated


def _named(method: Callable[..., Any], kind: str) -> Callable[..., Any]:
    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return method(*args, **kwargs)
        except Exception as error:  # TRL raises that very class for what a server refuses
            raise UserError(
                f"{kind}: the vLLM server gives no rollouts ({_line(error)}); look at its log, "
                "start it again and give the same command, which goes on from the last checkpoint"
            ) from None

    return called


def engine_prompts(
    trainer: Any, prompts: Sequence[list[Message]], ids: list[list[int]], images: Any
) -> list[list[int]]:
    """The prompts as the trainer's engine takes them: a server `ids`, one in this process with a
    single placeholder a picture.

    Args:
        trainer: of the stage.
        prompts: with pictures in place of paths.
        ids: the same, tokenized by the processor, placeholders expanded.
        images: by prompt; None where no prompt has any.
    """
    if images is None or trainer.vllm_mode == "server":
        return ids
    processor = trainer.processing_class
    texts = processor.apply_chat_template(
        list(prompts),
        chat_template=trainer.chat_template,
        add_generation_prompt=True,
        tokenize=False,
        **trainer.chat_template_kwargs,
    )
    start = processor.tokenizer.bos_token
    return [
        processor.tokenizer(text, add_special_tokens=not (start and text.startswith(start)))[
            "input_ids"
        ]
        for text in texts
    ]


def check_answered(engine: Any, meant: list[list[int]], kind: str = "rl") -> None:
    """Compare the prompts that the engine answered with those that were meant.

    Raises:
        UserError: a prompt differs, so that completions would be of other prompts than the scored.
    """
    answered = [list(ids) for ids in engine.answered]
    for row, (found, wanted) in enumerate(zip(answered, meant, strict=True)):
        if found != list(wanted):
            raise UserError(
                f"{kind}: vLLM answered another prompt than was meant: row {row} has {len(found)} "
                f"tokens for {len(wanted)}; it processes pictures otherwise: compare the model's "
                "processor with model.min_pixels and max_pixels, or drop use_vllm"
            )


@contextmanager
def awake(trainer: Any) -> Iterator[None]:
    """Let an engine that sleeps between rollouts wake once for all calls of the block.

    Sleeping throws the weights away, so that each call for itself would load them again.
    """
    engine = trainer.vllm_generation if trainer.use_vllm else None
    if engine is None or trainer.vllm_mode != "colocate" or not engine.enable_sleep_mode:
        yield
        return
    engine.sync_weights()
    trainer._last_loaded_step = trainer.state.global_step
    engine.llm.wake_up(tags=["kv_cache"])
    engine.enable_sleep_mode = False
    try:
        yield
    finally:
        engine.enable_sleep_mode = True
        engine.llm.sleep(level=2)
        engine._llm_weights_sleeping = True


def log_sampling(trainer: Any, output: dict[str, Any]) -> None:
    """Log by half how far vLLM's log-probabilities are from the trainer's, in place of TRL's means.

    `sampling/free/logp_difference` is the gap between two engines, mean |difference| a token;
    `sampling/aware/logp_difference` that between two prompts. `sampling/free/ratio` and `masked`
    are of the correction, which aware rows do not get.

    Args:
        trainer: of the stage, after `log_rollout`.
        output: a scored rollout batch; its ratios as TRL made them.
    """
    log = trainer._metrics["train"]
    if bool(trainer.table.aware.any()):
        for name in [name for name in log if name.startswith("sampling/")]:
            if log[name] and name.count("/") == 2 and name.split("/")[1] not in ("free", "aware"):
                log[name].pop()  # a pooled mean tells neither
    gaps = (output["old_per_token_logps"] - output["sampling_per_token_logps"]).abs()
    known = output["completion_mask"] * ~gaps.isnan()  # vLLM could not score the others
    ratios = output["importance_sampling_ratio"]
    free = ~output["is_aware"].unsqueeze(1)
    weight = known * free if ratios.size(1) > 1 else free
    quantities = {
        "free/logp_difference": (gaps.nan_to_num(), known * free),
        "aware/logp_difference": (gaps.nan_to_num(), known * ~free),
        "free/ratio": (ratios, weight),
        "free/masked": ((ratios == 0).float(), weight),
    }
    for name, (values, mask) in quantities.items():
        mean = WeightedMean()
        mean.add(values, torch.as_tensor(mask).to(values.dtype))
        if (value := mean.take(trainer.accelerator)) is not None:
            log[f"sampling/{name}"].append(value)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "..."
