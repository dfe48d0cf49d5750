"""Draws by row: a sampled token depends on its row and place, and on nothing of the batch.

A token is the inverse of the cumulative distribution at a number between 0 and 1 that follows from
a key (seed, rollout batch, try), the row's number and the place of the token. The same rows are
drawn whatever the size of batches, the number of processes, or an interruption; the random state
of torch is left alone.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.integrations.fsdp import is_fsdp_managed_module


def uniforms(key: Sequence[int], rows: Sequence[int], length: int) -> Tensor:
    """Numbers in [0, 1) by row and place, [rows, length], float64 on the CPU.

    Each row has a stream of its own (Philox, a counter-based generator), so that another choice of
    rows, or a longer one, changes none of them.

    Args:
        key: what the draws belong to, numbers from 0 on.
        rows: numbers of the rows among all processes.
        length: places of a row.
    """
    table = np.empty((len(rows), length))
    for line, row in zip(table, rows, strict=True):
        bits = np.random.Philox(np.random.SeedSequence([*key, row])).random_raw(length)
        line[:] = (bits >> np.uint64(11)) * 2.0**-53
    return torch.from_numpy(table)


def drawn(scores: Tensor, numbers: Tensor) -> Tensor:
    """Tokens [B] of the distributions softmax(scores), [B, V], at `numbers`, [B] in [0, 1).

    Sums are taken in double precision: over a large vocabulary those in single precision would
    shift the tokens that lie at the end.
    """
    sums = scores.float().softmax(dim=-1).double().cumsum(dim=-1)
    total = sums[:, -1:]
    # Strictly below the total, which the rounding of the product could reach.
    below = torch.nextafter(total, torch.zeros_like(total))
    wanted = torch.minimum(numbers.to(sums).unsqueeze(1) * total, below)
    # The first token whose sum is greater: one of probability 0 never is.
    return torch.searchsorted(sums, wanted, right=True).squeeze(1)


class DrawByRow(LogitsProcessor):
    """Leaves of each row's distribution the drawn token alone; the last of a list."""

    def __init__(self, numbers: Tensor, prompt_length: int) -> None:
        """
        Args:
            numbers: in [0, 1), [B, T].
            prompt_length: columns of the prompt, padding with it.
        """
        self._numbers, self._start = numbers, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`input_ids` [B, T] so far, `scores` [B, V]; of the same shape, -inf but for one."""
        tokens = drawn(scores, self._numbers[:, input_ids.shape[1] - self._start])
        return torch.full_like(scores, -torch.inf).scatter(1, tokens.unsqueeze(1), 0.0)


def sample_by_row(
    model: Any,
    input_ids: Tensor,
    *,
    numbers: Tensor,
    logits_processor: LogitsProcessorList,
    generation_config: Any,
    **rest: Any,
) -> Tensor:
    """For `generate(custom_generate=...)`: transformers' own loop with draws by row.

    Args:
        model: what `generate` was called on.
        input_ids: prompts, as often as they are answered, [B, T].
        numbers: in [0, 1), [B, new tokens].
        logits_processor: made of the generation config, temperature and top-k and the like in it.
        generation_config: a copy of the caller's.
        rest: of transformers' loop.

    Returns:
        Prompts with their completions, [B, T + N].
    """
    if generation_config.do_sample:
        numbers = numbers.to(input_ids.device)
        draw = DrawByRow(numbers, input_ids.shape[1])
        logits_processor = LogitsProcessorList([*logits_processor, draw])
        generation_config.do_sample = False  # of one token that is left
    # `generate` decides this, and keeps it from functions of others.
    rest.setdefault("synced_gpus", in_step(model))
    return torch.as_tensor(
        model._sample(
            input_ids,
            logits_processor=logits_processor,
            generation_config=generation_config,
            **rest,
        )
    )


def in_step(model: Any) -> bool:
    """Whether a forward pass needs all processes: the weights lie in shards over them."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    sharded = is_deepspeed_zero3_enabled() or is_fsdp_managed_module(model)
    return bool(sharded and several and torch.distributed.get_world_size() > 1)
