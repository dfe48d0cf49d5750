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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers.generation import GenerationMode
from trl import GRPOTrainer

from trimpi.batch import encode_text
from trimpi.group_decoding import Prompts, can_share, decode
from trimpi.group_layout import aware_in_group, aware_rows
from trimpi.pictures import store_of
from trimpi.processor import visual_token_ids
from trimpi.prompt import Message
from trimpi.row_draws import sample_by_row, uniforms
from trimpi.shared_attention import NotShared
from trimpi.stages.grpo import ObservedGRPOTrainer
from trimpi.stages.rollout_rows import with_pictures
from trimpi.stages.rollouts import Sampled
from trimpi.stages.vllm_engine import (
    awake,
    check_answered,
    engine_prompts,
    log_sampling,
    watch_engine,
)

GENERATED = "rollout/tokens_generated"
"""Name in the log: tokens that a draw of rollouts reads and writes."""

_PRIVATE: dict[str, tuple[str, ...]] = {
    "_generate": ("prompts",),
    "_generate_and_score_completions": ("inputs",),
    "_tokenize_prompts": ("prompts",),
    "_generate_single_turn": (
        *("prompt_ids", "images", "multimodal_fields"),
        *("num_generations", "has_tool_images"),
    ),
    "_compute_loss": ("model", "inputs"),
    "_prepare_inputs": ("generation_batch",),
    "_get_per_token_logps_and_entropies": (
        *("model", "input_ids", "attention_mask", "logits_to_keep", "batch_size"),
        *("compute_entropy", "compute_aux_loss", "pixel_values", "image_grid_thw", "num_images"),
        *("pixel_attention_mask", "spatial_shapes", "num_tiles", "image_sizes"),
        *("token_type_ids", "mm_token_type_ids", "image_position_ids"),
    ),
    "_save_checkpoint": ("model", "trial"),
    "_load_optimizer_and_scheduler": ("checkpoint",),
}
"""TRL's private methods that are overridden or called here, with their parameters."""
for _name, _parameters in _PRIVATE.items():
    if tuple(inspect.signature(getattr(GRPOTrainer, _name)).parameters)[1:] != _parameters:
        raise ImportError(f"trl's GRPOTrainer.{_name} has changed; install trl>=1.16,<1.17")


@dataclass(frozen=True)
class Half:
    """Rows of this process that are generated from one view of their prompts.

    `prompts` are by row, pictures by path; `chosen` says which rows, of each group the same
    `in_group` places.
    """

    prompts: Sequence[list[Message]]
    chosen: Sequence[bool]
    in_group: int

    @property
    def rows(self) -> list[int]:
        """The chosen ones."""
        return [row for row, mark in enumerate(self.chosen) if mark]


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
        if self.use_vllm:
            watch_engine(self.vllm_generation)
        self.draws: tuple[int, ...] = (0, 0)
        """What the draws of rollouts belong to, beside the seed: rollout batch, try."""
        self.deals_by_place = generation != "plain"
        self.draws_by_row = generation != "plain" and self._decodes_here()
        """Whether what is drawn depends on row and place alone (`row_draws`)."""
        self.shares = self.draws_by_row and self._can_share()
        """Whether keys and values of prompts are kept once (`group_decoding`)."""

    def _decodes_here(self) -> bool:
        """Whether tokens are chosen one by one by transformers: no engine, no search by beams."""
        if self.use_vllm or self.use_transformers_continuous_batching:
            return False
        known = (GenerationMode.SAMPLE, GenerationMode.GREEDY_SEARCH)
        return self.generation_config.get_generation_mode() in known

    def _can_share(self) -> bool:
        if self.generation_config.cache_implementation is not None:
            self._say_plain("the recipe asks for a cache_implementation")
            return False
        if reason := can_share(self.accelerator.unwrap_model(self.model)):
            self._say_plain(reason)
        return not reason

    def _say_plain(self, reason: str) -> None:
        if self.is_world_process_zero():
            print(f"rl: each completion reads its prompt anew: it is not shared, {reason}")

    def generates_itself(self) -> bool:
        """Whether `_draw` takes the place of TRL's generation."""
        return any(self.layout) or self.draws_by_row or bool(self.use_vllm)

    def aware_rows(self, rows: int) -> list[bool]:
        """Which of this process' rows are generated with the policy in context."""
        return aware_rows(self.layout, self.accelerator.process_index, rows)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        training, self.last_rows = self.model.training, inputs
        inputs = with_pictures(inputs)
        seen = self.state.num_input_tokens_seen
        if training and self.generates_itself():
            self._with_policy = [row.get("prompt_with_policy", []) for row in self.last_rows]
        try:
            output = dict(super()._generate_and_score_completions(inputs))
        finally:
            self._with_policy = None
        # TRL counts the tokens that it generates from and to; what counts here is trained on.
        self.state.num_input_tokens_seen = seen
        if training:
            self._count_tokens(output)
            self.log_rollout(output, self.aware_rows(len(inputs)))
            places = [row["row"] for row in inputs]
            output["place"] = torch.tensor(places, device=output["is_aware"].device)
            if "importance_sampling_ratio" in output:
                log_sampling(self, output)
                # For these rows it is the gap between two prompts, not between two engines.
                aware = output["is_aware"].unsqueeze(1)
                ratio = output["importance_sampling_ratio"].masked_fill(aware, 1.0)
                output["importance_sampling_ratio"] = ratio
        return output

    def _generate(self, prompts: list[list[Message]]) -> tuple[Any, ...]:
        if self._with_policy is None:
            return tuple(super()._generate(prompts))
        aware = self.aware_rows(len(prompts))
        by_path = [row["prompt"] for row in self.last_rows]
        rows = self._draw(by_path, self._with_policy, aware)
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
        halves = [Half(prompts, [not mark for mark in aware], self.layout.count(False))]
        if any(self.layout):
            halves.append(Half(with_policy, aware, self.layout.count(True)))
        with awake(self):
            sampled = self._sample(*halves)
        rows = [sampled[row] for row in range(len(prompts))]
        self._log_generated(rows)
        return rows

    def _sample(self, *halves: Half) -> dict[int, Sampled]:
        """Completions of the chosen rows of all halves, by row."""
        if self.shares:
            try:
                return self._sample_together(halves)
            except NotShared as error:
                self.shares = False
                self._say_plain(str(error))
        sampled: dict[int, Sampled] = {}
        # Every process makes all calls, in this order: they may hold collective operations.
        for half in halves:
            sampled |= self._sample_half(half)
        return sampled

    def _sample_together(self, halves: Sequence[Half]) -> dict[int, Sampled]:
        """In one loop, each prompt read once."""
        rows, ids, copies, encoded = [], [], [], []
        for half in halves:
            some = self._copies(len(half.prompts), half.in_group)
            found = [
                encode_text(self.processing_class, half.prompts[row]) for row in half.rows[::some]
            ]
            rows += half.rows
            ids += _repeat([row.input_ids for row in found], some)
            copies += [some] * len(found)
            encoded += found
        tokenizer, store = self.processing_class.tokenizer, store_of(self.processing_class)
        visual = visual_token_ids(self.model.config, tokenizer)
        prompts = Prompts(
            encoded,
            copies,
            tokenizer.pad_token_id,
            store.pixels,
            lambda path: store.expansion(path).ids,
            frozenset(visual),
            self.args.per_device_train_batch_size,
        )
        with self._drawing(len(halves[0].prompts), rows, partial(decode, prompts=prompts)):
            completions, _ = self._generate_single_turn(
                [row.input_ids for row in encoded], None, {}, 1
            )
        sampled = (Sampled(*row, None) for row in zip(ids, completions, strict=True))
        return dict(zip(rows, sampled, strict=True))

    def _sample_half(self, half: Half) -> dict[int, Sampled]:
        """By TRL; the copies of a prompt are encoded once."""
        rows = half.rows
        copies = self._copies(len(half.prompts), half.in_group)
        shown = with_pictures([{"prompt": half.prompts[row]} for row in rows[::copies]])
        messages = [row["prompt"] for row in shown]
        ids, images, fields = self._tokenize_prompts(messages)
        if self.use_vllm:
            # One entry a row: a vLLM server takes every `in_group`th of those of all processes.
            asked = engine_prompts(self, messages, ids, images)
            images = _repeat(images, copies) if images is not None else None
            repeated = _repeat(asked, copies)
            completions, logprobs = self._generate_single_turn(repeated, images, {}, half.in_group)
            check_answered(self.vllm_generation, _repeat(ids, copies))
        else:
            self.generation_config.num_return_sequences = copies
            try:
                with self._drawing(len(half.prompts), rows, sample_by_row):
                    generated = self._generate_single_turn(ids, images, fields, half.in_group)
            finally:
                self.generation_config.num_return_sequences = 1
            completions, logprobs = generated
        if logprobs is None:
            logprobs = [None] * len(rows)
        sampled = map(Sampled, _repeat(ids, copies), completions, logprobs)
        return dict(zip(rows, sampled, strict=True))

    @contextmanager
    def _drawing(
        self, count: int, rows: Sequence[int], choose: Callable[..., Any]
    ) -> Iterator[None]:
        """While TRL generates for these `rows` of the `count` of this process: draws by row."""
        if not self.draws_by_row:
            yield
            return
        first = self.accelerator.process_index * count
        key, places = (self.args.seed, *self.draws), [first + row for row in rows]
        numbers = uniforms(key, places, self.generation_config.max_new_tokens)
        # The object that TRL unwraps: it may wrap adapters, or have its weights in shards.
        model = self.accelerator.unwrap_model(self.model_wrapped)
        with generating_by(model, partial(choose, numbers=numbers)):
            yield

    def _copies(self, rows: int, in_group: int) -> int:
        """How many adjacent rows share a prompt; 1 where groups are split between processes."""
        return in_group if rows % self.num_generations == 0 else 1

    def _count_tokens(self, output: dict[str, Any]) -> None:
        """Count the tokens that updates on this batch read, of all processes."""
        count = (output["prompt_mask"].sum() + output["completion_mask"].sum()).long()
        count *= 0 if self.as_given else self.num_iterations
        self.state.num_input_tokens_seen += int(self.accelerator.reduce(count, reduction="sum"))
        self._metrics["train"]["num_tokens"] = [self.state.num_input_tokens_seen]

    def _log_generated(self, rows: Iterable[Sampled]) -> None:
        """Log the tokens of prompts, once a completion, and completions; all processes."""
        tokens = sum(len(row.prompt_ids) + len(row.completion_ids) for row in rows)
        count = torch.tensor(tokens, device=self.accelerator.device)
        count = self.accelerator.reduce(count, reduction="sum")
        self._metrics["train"][GENERATED].append(float(count))


@contextmanager
def generating_by(model: Any, decode: Callable[..., Any]) -> Iterator[None]:
    """`model.generate` prepares everything as ever, and then lets `decode` choose the tokens.

    In evaluation mode: what drops out would make other draws of the same numbers.
    """
    training = model.training
    model.generate = partial(model.generate, custom_generate=decode)
    model.eval()
    try:
        yield
    finally:
        model.train(training)
        del model.generate


def _repeat(values: Sequence[Any], copies: int) -> list[Any]:
    return [value for value in values for _ in range(copies)]
