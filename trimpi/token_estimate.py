"""Prompt lengths of a few rows, counted by the real processor; needs no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.prompt import Message, Target, build_messages, render_target
from trimpi.recipe import RlConfig, SftConfig, StageConfig
from trimpi.sample import DataFolder, Sample


@dataclass(frozen=True)
class Lengths:
    """Longest of the rows looked at, in tokens; images are counted as the visual tokens they take.

    `prompt` is policy-free, `with_policy` has the policy in context, `completion` is the gold
    target with its rationale where there is one.
    """

    rows: int
    prompt: int
    with_policy: int
    completion: int

    @property
    def saved(self) -> float:
        """Share of the prompt that goes when the policy leaves it."""
        return 1 - self.prompt / self.with_policy


def measure(processor: Any, data: DataFolder, samples: Sequence[Sample]) -> Lengths:
    """Count the tokens of each of `samples`.

    Raises:
        UserError: an image cannot be read; names file and row.
    """
    prompt, with_policy, completion = 0, 0, 0
    for sample in samples:
        target: Target = "answer" if sample.rationale is None else "cot"
        policy = data.policy_of(sample)
        try:
            free = _count(processor, build_messages(sample, None))
            full = _count(processor, build_messages(sample, policy)) if policy else free
        except OSError as error:
            raise UserError(f"row {sample.id}: an image cannot be read ({error})") from None
        prompt, with_policy = max(prompt, free), max(with_policy, full)
        written = processor.tokenizer(render_target(sample, target), add_special_tokens=False)
        completion = max(completion, len(written["input_ids"]) + 1)  # and the end of the turn
    return Lengths(len(samples), prompt, with_policy, completion)


def _count(processor: Any, messages: list[Message]) -> int:
    encoded = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, add_generation_prompt=True
    )
    ids = encoded["input_ids"]
    return len(ids[0] if isinstance(ids[0], list) else ids)


def longest_sequence(config: StageConfig, lengths: Lengths) -> tuple[int, int]:
    """Tokens of a stage's longest row, as (in training, in generation); 0 where it generates none.

    For RL both prompts leave room for `max_new_tokens`.
    """
    if isinstance(config, RlConfig):
        generated = lengths.with_policy if config.policy_fraction else lengths.prompt
        return lengths.prompt + config.max_new_tokens, generated + config.max_new_tokens
    if isinstance(config, SftConfig):
        shown = lengths.with_policy if config.show_policy else lengths.prompt
        return shown + lengths.completion, 0
    return lengths.with_policy + lengths.completion, 0


def context_limit(model: Path) -> int | None:
    """The longest sequence that a model takes, from its configuration."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(str(model), trust_remote_code=False)
    limit = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(limit) if limit else None
