"""PolicyRollout (paper, stage 3) as a narrow subclass of TRL's GRPO trainer.

Of a prompt's 2G completions some are *generated* with the policy in context; all are scored, and
learned from, without it:

    generation   o_i ~ pi_old(. | Q, I)  or  pi_old(. | Q, I, P)
    all else     log pi, log pi_old, log pi_ref of o_i given (Q, I); one baseline for all 2G

Two methods change what TRL does: `_generate` answers policy-bearing prompts and hands back the
policy-free ones, and `_generate_and_score_completions` tells it which rows those are. Advantages
and loss are TRL's. In evaluation, and with `policy_fraction` 0 where TRL draws, its own generation
runs.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.generation import GenerationMode
from trl import GRPOTrainer

from trimpi.group_layout import aware_in_group, aware_rows
from trimpi.prompt import Message
from trimpi.row_draws import sample_by_row, uniforms
from trimpi.stages.grpo import ObservedGRPOTrainer
from trimpi.stages.rollout_rows import with_pictures
from trimpi.stages.rollouts import Sampled

_PRIVATE: dict[str, tuple[str, ...]] = {
    "_generate": ("prompts",),
    "_generate_and_score_completions": ("inputs",),
    "_tokenize_prompts": ("prompts",),
    "_generate_single_turn": (
        *("prompt_ids", "images", "multimodal_fields"),
        *("num_generations", "has_tool_images"),
    ),
    "_compute_loss": ("model", "inputs"),
    "_save_checkpoint": ("model", "trial"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
}
"""TRL's private methods that are overridden or called here, with their parameters."""
for _name, _parameters in _PRIVATE.items():
    if tuple(inspect.signature(getattr(GRPOTrainer, _name)).parameters)[1:] != _parameters:
        raise ImportError(f"trl's GRPOTrainer.{_name} has changed; install trl>=1.16,<1.17")


@dataclass(frozen=True)
class Rollout:
    """Prompts of the last rollout batch of this process, by row, as token ids."""

    aware: list[bool]
    generated_from: list[list[int]]
    scored_against: list[list[int]]


class PolicyRolloutTrainer(ObservedGRPOTrainer):
    """GRPO whose groups hold completions written with the policy in context.

    Rows of the training data set carry `prompt` (policy-free messages), `prompt_with_policy` (the
    same request with the policy before it) and `row` (index of the sample).
    """

    def __init__(
        self, *args: Any, policy_fraction: float, generation: str = "shared", **kwargs: Any
    ) -> None:
        """
        Args:
            policy_fraction: share of a group that is generated with the policy; 0 is plain GRPO.
            generation: `plain` leaves the loop and the draws to TRL.
            args, kwargs: of TRL's trainer.
        """
        super().__init__(*args, **kwargs)
        self.layout = aware_in_group(self.num_generations, policy_fraction)
        self.last_rollout: Rollout | None = None
        self._with_policy: list[list[Message]] | None = None
        self.as_given = False
        """Generate and score the rows that are handed in; choose and weigh nothing."""
        self.last_rows: list[dict[str, Any]] = []
        """Rows of the last rollout batch of this process, pictures by path."""
        self.draws: tuple[int, ...] = (0, 0)
        """What the draws of rollouts belong to, beside the seed: rollout batch, try."""
        self.draws_by_row = generation != "plain" and self._decodes_here()
        """Whether what is drawn depends on row and place alone (`row_draws`)."""

    def _decodes_here(self) -> bool:
        """Whether tokens are chosen one by one by transformers: no engine, no search by beams."""
        if self.use_vllm or self.use_transformers_continuous_batching:
            return False
        known = (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
        return self.generation_config.get_generation_mode() in known

    def generates_itself(self) -> bool:
        """Whether `_draw` takes the place of TRL's generation."""
        return any(self.layout) or self.draws_by_row

    def aware_rows(self, rows: int) -> list[bool]:
        """Which of this process' rows are generated with the policy in context."""
        return aware_rows(self.layout, self.accelerator.process_index, rows)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training, self.last_rows = self.model.training, inputs
        inputs = with_pictures(inputs)
        if training and self.generates_itself():
            self._with_policy = [row.get("prompt_with_policy", []) for row in inputs]
        try:
            output = dict(super()._generate_and_score_completions(inputs))
        finally:
            self._with_policy = None
        if training:
            self.log_rollout(output, self.aware_rows(len(inputs)))
            places = [row["row"] for row in inputs]
            output["place"] = torch.tensor(places, device=output["is_aware"].device)
            if "importance_sampling_ratio" in output:
                # For these rows it is the gap between two prompts, not between two engines.
                aware = output["is_aware"].unsqueeze(1)
                ratio = output["importance_sampling_ratio"].masked_fill(aware, 1.0)
                output["importance_sampling_ratio"] = ratio
        return output

    def _generate(self, prompts: list[list[Message]]) -> tuple[Any, ...]:
        if self._with_policy is None:
            return tuple(super()._generate(prompts))
        aware = self.aware_rows(len(prompts))
        rows = self._draw(prompts, self._with_policy, aware)
        copies = self._copies(len(prompts), self.num_generations)
        scored_ids, images, _ = self._tokenize_prompts(prompts[::copies])
        scored_ids = _repeat(scored_ids, copies)
        self.last_rollout = Rollout(aware, [row.prompt_ids for row in rows], scored_ids)
        completion_ids = [row.completion_ids for row in rows]
        texts = self.processing_class.batch_decode(completion_ids, skip_special_tokens=True)
        return (
            scored_ids,
            completion_ids,
            None,  # mask of tokens by tools
            [[{"role": "assistant", "content": text}] for text in texts],
            [row.logprobs for row in rows] if rows[0].logprobs is not None else None,
            {},  # extra fields
            _repeat(images, copies) if images is not None else None,
            [],  # images by tools
        )

    def _draw(
        self,
        prompts: list[list[Message]],
        with_policy: list[list[Message]],
        aware: Sequence[bool],
    ) -> list[Sampled]:
        """Completions of both halves, by row of this process, in the group layout."""
        # Every process makes both calls, in this order: they may hold collective operations.
        sampled = self._sample(prompts, [not mark for mark in aware], self.layout.count(False))
        if any(self.layout):
            sampled |= self._sample(with_policy, aware, self.layout.count(True))
        rows = [sampled[row] for row in range(len(prompts))]
        self._count_tokens(sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows))
        return rows

    def _sample(
        self, prompts: list[list[Message]], chosen: Sequence[bool], in_group: int
    ) -> dict[int, Sampled]:
        """Completions of the chosen rows, by row; the copies of a prompt are encoded once.

        Args:
            prompts: by row of this process.
            chosen: by row; of each group the same `in_group` places.
            in_group: rows of a group that are chosen.
        """
        rows = [row for row, mark in enumerate(chosen) if mark]
        copies = self._copies(len(prompts), in_group)
        ids, images, fields = self._tokenize_prompts([prompts[row] for row in rows[::copies]])
        if self.use_vllm:
            # One entry a row: a vLLM server takes every `in_group`th of those of all processes.
            images = _repeat(images, copies) if images is not None else None
            repeated = _repeat(ids, copies)
            completions, logprobs = self._generate_single_turn(repeated, images, {}, in_group)
        else:
            self.generation_config.num_return_sequences = copies
            try:
                with self._drawing(len(prompts), rows):
                    generated = self._generate_single_turn(ids, images, fields, in_group)
            finally:
                self.generation_config.num_return_sequences = 1
            completions, logprobs = generated
        if logprobs is None:
            logprobs = [None] * len(rows)
        sampled = map(Sampled, _repeat(ids, copies), completions, logprobs)
        return dict(zip(rows, sampled, strict=True))

    @contextmanager
    def _drawing(self, count: int, rows: Sequence[int]) -> Iterator[None]:
        """While TRL generates for these `rows` of the `count` of this process: draws by row."""
        if not self.draws_by_row:
            yield
            return
        first = self.accelerator.process_index * count
        key, places = (self.args.seed, *self.draws), [first + row for row in rows]
        numbers = uniforms(key, places, self.generation_config.max_new_tokens)
        # The object that TRL unwraps: it may wrap adapters, or have its weights in shards.
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with generating_by(model, partial(sample_by_row, numbers=numbers)):
            yield

    def _copies(self, rows: int, in_group: int) -> int:
        """How many adjacent rows share a prompt; 1 where groups are split between processes."""
        return in_group if rows % self.num_generations == 0 else 1

    def _count_tokens(self, tokens: int) -> None:
        count = torch.tensor(tokens, device=self.accelerator.device)
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(count, reduction="sum"))
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]


@contextmanager
def generating_by(model: Any, decode: Callable[..., Any]) -> Iterator[None]:
    """`model.generate` prepares everything as ever, and then lets `decode` choose the tokens."""
    model.generate = partial(model.generate, custom_generate=decode)
    try:
        yield
    finally:
        del model.generate


def _repeat(values: Sequence[Any], copies: int) -> list[Any]:
    return [value for value in values for _ in range(copies)]
