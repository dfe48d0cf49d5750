"""Chat completions as the wire has them: messages with pictures as data URIs, answers checked."""

import base64
import io
import json
from pathlib import Path
from typing import Any

from PIL import Image

from datasets_builders.completion_cache import Record
from trimpi.errors import UserError
from trimpi.picture_file import PICTURE_ERRORS
from trimpi.prompt import Message

SENT_AS_THEY_ARE = {"PNG", "JPEG", "WEBP", "GIF"}
"""Picture formats that endpoints read; any other is sent as PNG."""
COUNTS = ("prompt_tokens", "completion_tokens")


class Nonsense(Exception):
    """An answer of success that holds no completion; says what came instead, unabridged."""


def wire_messages(messages: list[Message]) -> list[dict[str, Any]]:
    """Messages in the form of the chat completions API.

    Raises:
        UserError: a picture cannot be read.
    """
    return [
        {"role": message["role"], "content": [_part(part) for part in message["content"]]}
        for message in messages
    ]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part["type"] == "image":
        return {"type": "image_url", "image_url": {"url": data_uri(part["image"])}}
    return {"type": "text", "text": part["text"]}


def data_uri(path: str) -> str:
    """A picture's bytes as `data:image/...;base64,...`.

    Raises:
        UserError: missing, or not a picture.
    """
    try:
        content = Path(path).read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            kind = image.format or ""
            if kind not in SENT_AS_THEY_ARE:
                kind, buffer = "PNG", io.BytesIO()
                image.convert("RGB").save(buffer, kind)
                content = buffer.getvalue()
    except PICTURE_ERRORS as error:
        raise UserError(f"{path}: not a readable picture ({error}); replace the file") from None
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content).decode()}"


def read_answer(text: str) -> Record:
    """The completion in the body of an answer.

    A completion that is empty because the limit or a content filter ended it is one; any other
    empty text is not. Halves of characters, which no file can hold, become U+FFFD.

    Raises:
        Nonsense: not JSON, no choice, no text, or no reason why it ended.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise Nonsense(f"no JSON: {text}") from None
    try:
        choice = body["choices"][0]
        message, finish = choice["message"], choice["finish_reason"]
        said = message.get("content")
    except (LookupError, TypeError, AttributeError):
        raise Nonsense("no choices with a message and a finish_reason") from None
    if not isinstance(finish, str):
        raise Nonsense(f"finish_reason {finish!r}")
    if not (said is None or isinstance(said, str)):
        raise Nonsense("content that is no text")
    if not (said or "").strip() and finish not in ("length", "content_filter"):
        raise Nonsense(f"empty content, finish_reason {finish!r}")
    usage = body.get("usage")
    counts = {name: usage.get(name) for name in COUNTS} if isinstance(usage, dict) else {}
    whole = (said or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return {
        "text": whole,
        "finish": finish,
        "usage": {name: count for name, count in counts.items() if isinstance(count, int)},
    }
