"""From prompts to completions: one protocol, a transformers back end and a scripted one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from rich.progress import track
from torch import Tensor
from transformers import GenerationConfig

from trimpi.batch import Encoded, collate, encode_text, turn_of
from trimpi.errors import UserError, is_out_of_memory
from trimpi.processor import visual_token_ids
from trimpi.prompt import Message


@dataclass(frozen=True)
class Generated:
    """A completion. `tokens` counts what was generated before the stop token; `truncated` says
    that the length limit ended it."""

    text: str
    tokens: int
    truncated: bool


class Generator(Protocol):
    """Anything that answers prompts."""

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        """One completion a prompt, in the order of the prompts; temperature 0 is greedy."""
        ...


class TransformersGenerator:
    """Batched generation by a loaded transformers model, on the model's device.

    Prompts of similar length share a batch. Visual tokens are never emitted: a placeholder without
    a picture would break the next forward pass. Sampling draws from the untouched distribution
    (no top-k, no top-p, no repetition penalty, whatever the model folder's defaults are).
    """

    def __init__(
        self, model: Any, processor: Any, batch_size: int = 16, progress: bool = True
    ) -> None:
        self._model, self._processor = model, processor
        self._batch_size, self._progress = batch_size, progress
        self._turn = turn_of(processor)
        self._visual = sorted(visual_token_ids(model.config, processor.tokenizer))
        self._stops = stop_token_ids(model, processor)
        self._limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        """Answer prompts; `seed` fixes the draws and leaves the global random state alone.

        Raises:
            UserError: a picture cannot be read, a prompt leaves no room in the context, or memory
                runs out.
        """
        rows = [encode_text(self._processor, messages) for messages in prompts]
        self._check_lengths(rows, max_new_tokens)
        order = sorted(range(len(rows)), key=lambda index: (-len(rows[index].input_ids), index))
        size = self._batch_size
        batches = [order[start : start + size] for start in range(0, len(order), size)]
        config = self._generation_config(max_new_tokens, temperature)
        results: dict[int, Generated] = {}
        training = self._model.training
        self._model.eval()
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.inference_mode(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for batch in self._shown(batches):
                texts = self._generate([rows[index] for index in batch], config)
                results.update(zip(batch, texts, strict=True))
        self._model.train(training)
        return [results[index] for index in range(len(rows))]

    def _generate(self, rows: list[Encoded], config: GenerationConfig) -> list[Generated]:
        inputs = collate(self._processor, rows, side="left")
        del inputs["labels"]
        length = inputs["input_ids"].shape[1]
        try:
            ids = self._model.generate(**to_model(inputs, self._model), generation_config=config)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise UserError(
                f"out of memory while generating for {len(rows)} prompts of up to {length} tokens "
                f"at a time, with max_new_tokens {config.max_new_tokens}; lower the batch size or "
                "max_new_tokens, set model.max_pixels, or set model.quantization: nf4"
            ) from None
        return [self._read(row) for row in ids[:, length:].tolist()]

    def _read(self, ids: list[int]) -> Generated:
        end = next((place for place, token in enumerate(ids) if token in self._stops), None)
        kept = ids[:end]
        # Special tokens stay visible: a completion that holds one is not the one asked for.
        text = self._processor.tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return Generated(text.removeprefix(self._turn.lead), len(kept), end is None)

    def _generation_config(self, max_new_tokens: int, temperature: float) -> GenerationConfig:
        sampling: dict[str, Any] = {"do_sample": False}
        if temperature > 0:
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=sorted(self._stops),
            pad_token_id=self._processor.tokenizer.pad_token_id,
            suppress_tokens=self._visual,
            repetition_penalty=1.0,
            use_cache=True,
            **sampling,
        )

    def _check_lengths(self, rows: list[Encoded], max_new_tokens: int) -> None:
        if self._limit is None:
            return
        problems = [
            f"prompt {index + 1}: {len(row.input_ids)} tokens and max_new_tokens {max_new_tokens} "
            f"exceed the model's context of {self._limit}; shorten the prompt, lower "
            "max_new_tokens, or lower model.max_pixels"
            for index, row in enumerate(rows)
            if len(row.input_ids) + max_new_tokens > self._limit
        ]
        if problems:
            raise UserError.join(problems[:20])

    def _shown(self, batches: list[list[int]]) -> Iterable[list[int]]:
        if not self._progress or len(batches) < 2:
            return batches
        return track(batches, "generate", transient=True)


class ScriptedGenerator:
    """A generator without a model: a function of the prompt, or fixed answers in turn.

    For tests, and for dry runs of an evaluation.
    """

    def __init__(self, script: Callable[[list[Message]], str] | Sequence[str]) -> None:
        self._script = script
        self._next = 0

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        """Answer by the script; a word counts as a token, more than allowed are cut off."""
        return [self._answer(messages, max_new_tokens) for messages in prompts]

    def _answer(self, messages: list[Message], limit: int) -> Generated:
        if callable(self._script):
            text = self._script(messages)
        else:
            text = self._script[self._next % len(self._script)]
            self._next += 1
        words = text.split()
        if len(words) > limit:
            return Generated(" ".join(words[:limit]), limit, True)
        return Generated(text, len(words), False)


def stop_token_ids(model: Any, processor: Any) -> frozenset[int]:
    """Tokens that end a completion: the turn's end by the chat template, and the model's own."""
    tokenizer = processor.tokenizer
    ids = set(tokenizer(turn_of(processor).end, add_special_tokens=False)["input_ids"][:1])
    own = model.generation_config.eos_token_id
    ids.update(own if isinstance(own, list) else [own], [tokenizer.eos_token_id])
    return frozenset(i for i in ids if i is not None)


def to_model(inputs: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Inputs on the model's device, pixels in its precision."""
    return {
        name: value.to(model.device, model.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }
