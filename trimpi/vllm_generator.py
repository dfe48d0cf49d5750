"""Completions by vLLM on this machine; `vllm` is imported when the model is loaded.

trimpi eval MODEL --suite mmlu_pro --backend vllm
"""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from trimpi.errors import UserError
from trimpi.generate import Generated
from trimpi.model_folder import check_model_folder
from trimpi.picture_file import PICTURE_ERRORS
from trimpi.prompt import Message

PICTURES = 8
"""Most pictures of a prompt; MMMU-Pro has up to seven."""


class VllmGenerator:
    """Batched generation by vLLM; batches are vLLM's own.

    Sampling draws from the untouched distribution, whatever the folder's defaults are.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_pixels: int | None = None,
        pictures: int = PICTURES,
        progress: bool = True,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        """Load a model folder.

        Args:
            folder: a complete model folder.
            max_pixels: bound of a picture's pixels, for processors that take it.
            pictures: most pictures of one prompt.
            engine: further arguments of `vllm.LLM`.

        Raises:
            UserError: vLLM is missing or does not load the model, or the folder is not whole.
        """
        check_model_folder(folder)
        try:
            import vllm
        except ImportError as error:
            raise UserError(
                f"the package vllm is missing or does not import ({error}); pip install "
                "'trimpi[vllm]', or use --backend transformers"
            ) from None
        settings: dict[str, Any] = {"limit_mm_per_prompt": {"image": pictures}}
        if max_pixels is not None:
            settings["mm_processor_kwargs"] = {"max_pixels": max_pixels}
        try:
            self._model = vllm.LLM(model=str(folder), **settings, **(engine or {}))
        except (ValueError, RuntimeError, OSError, ImportError) as error:
            raise UserError(f"{folder}: vLLM does not load it ({_line(error)})") from None
        self._sampling, self._progress = vllm.SamplingParams, progress

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        """One completion a prompt, in order; temperature 0 is greedy.

        Raises:
            UserError: a picture cannot be read, or vLLM refuses a prompt (its length).
        """
        sampling = self._sampling(
            temperature=temperature, top_p=1.0, top_k=-1, max_tokens=max_new_tokens, seed=seed
        )
        asked = [[_wire(message) for message in messages] for messages in prompts]
        try:
            outputs = self._model.chat(asked, sampling, use_tqdm=self._progress)
        except ValueError as error:
            raise UserError(f"vLLM refuses a prompt ({_line(error)}); shorten it") from None
        firsts = [output.outputs[0] for output in outputs]
        return [
            Generated(first.text, len(first.token_ids), first.finish_reason == "length")
            for first in firsts
        ]


def _wire(message: Message) -> dict[str, Any]:
    content = [
        {"type": "image_url", "image_url": {"url": _data_uri(part["image"])}}
        if part["type"] == "image"
        else {"type": "text", "text": part["text"]}
        for part in message["content"]
    ]
    return {"role": message["role"], "content": content}


def _data_uri(path: str) -> str:
    buffer = io.BytesIO()
    try:
        with Image.open(path) as picture:
            picture.convert("RGB").save(buffer, "PNG")
    except PICTURE_ERRORS as error:
        raise UserError(f"{path}: not a readable picture ({error}); replace the file") from None
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) < 200 else text[:197] + "..."
