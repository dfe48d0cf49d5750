"""Lengths of a few rows by part, counted by the real processor; needs no weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trimpi.budget import TokenBudget, token_budget
from trimpi.errors import UserError
from trimpi.prompt import Target
from trimpi.recipe import DistillConfig, RolloutConfig, SftConfig, TrainingConfig
from trimpi.sample import DataFolder, Sample


@dataclass(frozen=True)
class Lengths:
    """The longest of the rows looked at, in tokens by part.

    `free` is a row without the policy, `full` the same row with the policy in context; both hold
    the gold target, with its rationale where there is one.
    """

    rows: int
    free: TokenBudget
    full: TokenBudget

    @property
    def completion(self) -> int:
        """Tokens of the gold target."""
        return self.full.rationale + self.full.answer

    @property
    def prompt(self) -> int:
        """Tokens of the prompt without the policy."""
        return self.free.total - self.completion

    @property
    def with_policy(self) -> int:
        """Tokens of the prompt with the policy in context."""
        return self.full.total - self.completion

    @property
    def saved(self) -> float:
        """Share of the prompt that goes when the policy leaves it."""
        return 1 - self.prompt / self.with_policy


def measure(
    processor: Any, data: DataFolder, samples: Sequence[Sample], where: str = ""
) -> Lengths:
    """Count the tokens of each of `samples`, which stand `where`, and return the longest.

    Raises:
        UserError: an image cannot be read; names the row.
    """
    found = []
    for sample in samples:
        target: Target = "answer" if sample.rationale is None else "cot"
        try:
            free = token_budget(processor, sample, None, target)
            full = token_budget(processor, sample, data.policy_of(sample), target)
        except UserError as error:
            raise UserError(f"{where}row {sample.id!r}: {error}") from None
        found.append(Lengths(len(samples), free, full))
    return max(found, key=lambda lengths: lengths.full.total)


def image_tokens(config: TrainingConfig, lengths: Lengths) -> int:
    """Visual tokens of a stage's longest training row."""
    hidden = isinstance(config, RolloutConfig | DistillConfig) or (
        isinstance(config, SftConfig) and not config.show_policy
    )
    return lengths.free.images if hidden else lengths.full.images


def longest_sequence(config: TrainingConfig, lengths: Lengths) -> tuple[int, int]:
    """Tokens of a stage's longest row, as (in training, in generation); 0 where it generates none.

    For RL and context distillation both prompts leave room for `max_new_tokens`.
    """
    if isinstance(config, RolloutConfig):
        generated = lengths.with_policy if config.shows_policy else lengths.prompt
        return lengths.prompt + config.max_new_tokens, generated + config.max_new_tokens
    if isinstance(config, DistillConfig):
        room = config.max_new_tokens
        return lengths.prompt + room, lengths.with_policy + room
    if isinstance(config, SftConfig):
        return (lengths.full.total if config.show_policy else lengths.free.total), 0
    return lengths.full.total, 0
