"""A model on this machine that writes rationales; builders reach it by name.

generate: {name: "trimpi.local_generator:load", path: Qwen/Qwen2.5-VL-7B-Instruct}
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from trimpi.errors import UserError
from trimpi.model_folder import check_model_folder
from trimpi.model_source import PACKAGE, locate
from trimpi.prompt import Message
from trimpi.quiet import quiet
from trimpi.recipe import ModelConfig
from trimpi.runs import model_digest

if TYPE_CHECKING:
    from trimpi.generate import Generated, TransformersGenerator


def load(
    path: str,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    quantization: str = "none",
    max_pixels: int | None = None,
    batch_size: int = 8,
) -> "LocalGenerator":
    """A generator of a local model; weights are loaded when it is first asked.

    Args:
        path: hub id, folder (relative to the working directory) or `package://...`.
        revision: hub only: branch, tag or commit.
        dtype, quantization, max_pixels: as in the `model` section of a recipe.
        batch_size: prompts generated at a time.

    Raises:
        UserError: wrong arguments, a model folder that is not whole, or a quantization that is
            not to be had here.
    """
    settings = {
        "path": path,
        "revision": revision,
        "dtype": dtype,
        "quantization": quantization,
        "max_pixels": max_pixels,
    }
    try:
        config = ModelConfig.model_validate(settings)
    except ValidationError as error:
        raise UserError.join(
            [f"{item['loc'][0]}: {item['msg']}, found {item['input']!r}" for item in error.errors()]
        ) from None
    if type(batch_size) is not int or batch_size < 1:
        raise UserError(f"batch_size: must be a whole number from 1 on, found {batch_size!r}")
    if not path.startswith(PACKAGE) and Path(path).expanduser().is_dir():
        config = config.model_copy(update={"path": str(Path(path).expanduser().resolve())})
    check_model_folder(config.path)
    if quantization != "none":
        from trimpi.model import check_quantization

        check_quantization(config)
    return LocalGenerator(config, settings, batch_size)


class LocalGenerator:
    """Completions batch by batch, so that what is done can be kept.

    Batches are parts of the whole list of prompts, longest first, and each has a seed of its own:
    a run that goes on after an interruption does unfinished batches again and gets what an
    uninterrupted one gets.
    """

    def __init__(
        self, config: ModelConfig, settings: Mapping[str, Any], batch_size: int = 8
    ) -> None:
        self.settings = settings
        self._config, self._batch_size = config, batch_size
        self._folder: Path | None = None
        self._digest = ""
        self._generator: TransformersGenerator | None = None

    def __repr__(self) -> str:
        return f"LocalGenerator({self._config.path!r})"

    def identity(self) -> Mapping[str, Any]:
        """The settings and a digest of the model's files; a hub model is downloaded for it."""
        if not self._digest:
            self._digest = model_digest(self._located())
        return {**self.settings, "digest": self._digest}

    def too_long(self, prompts: list[list[Message]], *, max_new_tokens: int) -> dict[int, str]:
        """Prompts that leave no room for an answer, by place; loads the processor, no weights."""
        from trimpi.batch import encode_text
        from trimpi.model import context_limit, load_config, load_processor

        folder = self._located()
        limit = context_limit(load_config(folder, self._config))
        if limit is None:
            return {}
        quiet()
        processor = load_processor(folder, self._config)
        lengths = [len(encode_text(processor, messages).input_ids) for messages in prompts]
        return {
            place: f"a prompt of {length} tokens and {max_new_tokens} new ones exceed the context "
            f"of {self._config.path}, {limit}; lower max_new_tokens or max_pixels, leave out "
            "pictures, or take another model"
            for place, length in enumerate(lengths)
            if length + max_new_tokens > limit
        }

    def stream(
        self,
        prompts: list[list[Message]],
        missing: Collection[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield place and completion for all batches with a `missing` prompt.

        Raises:
            UserError: the model does not load, a prompt does not fit its context, or a batch does
                not fit the memory.
        """
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        for place, made in self._batches(prompts, set(missing), seed, options):
            finish = "length" if made.truncated else "stop"
            yield (
                place,
                {
                    "text": made.text,
                    "finish": finish,
                    "usage": {"completion_tokens": made.tokens},
                },
            )

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> "list[Generated]":
        """One completion a prompt, in order, kept nowhere; raises what `stream` raises."""
        options = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        made = dict(self._batches(prompts, set(range(len(prompts))), seed, options))
        return [made[place] for place in range(len(prompts))]

    def _batches(
        self,
        prompts: list[list[Message]],
        missing: set[int],
        seed: int,
        options: Mapping[str, Any],
    ) -> "Iterator[tuple[int, Generated]]":
        import torch

        # Longest first: what does not fit shows at once.
        order = sorted(range(len(prompts)), key=lambda place: (-_length(prompts[place]), place))
        for number, start in enumerate(range(0, len(order), self._batch_size)):
            batch = order[start : start + self._batch_size]
            if missing.isdisjoint(batch):
                continue
            try:
                made = self._loaded()(
                    [prompts[place] for place in batch],
                    seed=((seed << 20) + number) % 2**63,
                    **options,
                )
            except torch.OutOfMemoryError:
                raise UserError(
                    f"{self._config.path}: {len(batch)} prompts at a time do not fit the memory;"
                    " lower batch_size, the token limit or max_pixels"
                ) from None
            yield from zip(batch, made, strict=True)

    def _loaded(self) -> "TransformersGenerator":
        if self._generator is None:
            from trimpi.generate import TransformersGenerator
            from trimpi.model import load_model, load_processor

            quiet()
            folder = self._located()
            model = load_model(folder, self._config)
            processor = load_processor(folder, self._config)
            self._generator = TransformersGenerator(
                model, processor, self._batch_size, progress=False
            )
        return self._generator

    def _located(self) -> Path:
        if self._folder is None:
            self._folder = locate(self._config, "generate.path")
            check_model_folder(self._folder)
        return self._folder


def _length(messages: list[Message]) -> int:
    """Characters of text, a measure good enough to sort by."""
    return sum(
        len(part["text"])
        for message in messages
        for part in message["content"]
        if part["type"] == "text"
    )
