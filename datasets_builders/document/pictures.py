"""Pictures of rows: paths, bytes, base64 data URIs, pictures of `datasets` and Pillow."""

import base64
import binascii
import hashlib
import io
import json
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from datasets_builders.document.arrow import Stored
from datasets_builders.pictures import MOST_PIXELS
from trimpi.picture_file import PICTURE_ERRORS

_DATA_URI = re.compile(r"data:image/[\w.+-]+(?:;[\w=.-]+)*;base64,", re.IGNORECASE)
_ADDRESS = re.compile(r"(https?|ftp|s3|gs|hf)://", re.IGNORECASE)
_LONGEST_PATH = 1024
_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}


@dataclass(frozen=True)
class Picture:
    """A picture of a row, still encoded: a file, or bytes that are fetched when asked for."""

    name: str
    file: Path | None = None
    fetch: Callable[[], bytes] | None = None

    def read(self) -> bytes:
        """Its encoded bytes.

        Raises:
            OSError: the file cannot be read.
        """
        if self.fetch is not None:
            return self.fetch()
        assert self.file is not None
        return self.file.read_bytes()


@dataclass(frozen=True)
class Look:
    """What was seen of a picture: a fault ("" for none) and the SHA-256 of its bytes."""

    fault: str
    digest: str


def look(picture: Picture) -> Look:
    """Decode a picture and say what is wrong with it."""
    try:
        content = picture.read()
    except OSError as error:
        return Look(f"{picture.name} cannot be read ({error.strerror or error}); restore it", "")
    digest = hashlib.sha256(content).hexdigest()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > MOST_PIXELS:
                    return Look(
                        f"{picture.name} is {image.width} x {image.height}, more than "
                        f"{MOST_PIXELS // 10**6} megapixels; scale it down",
                        digest,
                    )
                image.load()
    except Image.DecompressionBombError as error:
        return Look(f"{picture.name} is far too large ({error}); reduce it", digest)
    except PICTURE_ERRORS as error:
        reason = " ".join(str(error).split()) if "BytesIO" not in str(error) else "unknown kind"
        return Look(f"{picture.name} is not a whole picture ({reason}); replace it", digest)
    return Look("", digest)


def save(picture: Picture, stem: Path) -> Path:
    """The picture as a file: its own, or one written at `stem` with the suffix of its format."""
    if picture.file is not None:
        return picture.file
    content = picture.read()
    stem.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(io.BytesIO(content)) as image:
        suffix = _SUFFIXES.get(image.format or "")
        if suffix is None:  # of a format that not every reader knows
            target = stem.with_name(f"{stem.name}.png")
            image.save(target)
            return target
    target = stem.with_name(stem.name + suffix)
    target.write_bytes(content)
    return target


def read_pictures(value: Any, folder: Path | None) -> list[Picture]:
    """The pictures that a value of a row stands for; none for null and empty text.

    Args:
        value: a path, data URI, bytes, `{"bytes", "path"}`, a Pillow image, or a list of these
            (also as JSON text).
        folder: what paths are relative to; None where there are no files.

    Raises:
        ValueError: what is wrong with it, in words.
    """
    if isinstance(value, Picture):
        return [value]
    if isinstance(value, Stored):
        return _stored(value, folder)
    if isinstance(value, list | tuple):
        return [picture for item in value for picture in read_pictures(item, folder)]
    if isinstance(value, str):
        return _text(value.strip(), folder)
    picture = _one(value, folder)
    return [] if picture is None else [picture]


def _stored(value: Stored, folder: Path | None) -> list[Picture]:
    held = value.read()
    if not isinstance(held, list):
        return _entry(held, folder, lambda: value.read()["bytes"])
    found: list[Picture] = []
    for index, item in enumerate(held):

        def fetch(index: int = index) -> bytes:
            return bytes(value.read()[index]["bytes"])

        found += _entry(item, folder, fetch)
    return found


def _entry(item: Any, folder: Path | None, fetch: Callable[[], bytes]) -> list[Picture]:
    if item is None:
        return []
    if item["bytes"] is None:
        return read_pictures(item["path"], folder)
    return [Picture(f"picture {item['path'] or ''}".strip(), fetch=fetch)]


def _one(value: Any, folder: Path | None) -> Picture | None:
    if value is None:
        return None
    if isinstance(value, bytes):
        return Picture("picture", fetch=lambda: value)
    if isinstance(value, Image.Image):
        stream = io.BytesIO()
        value.save(stream, "PNG")
        return Picture("picture", fetch=stream.getvalue)
    if isinstance(value, dict):
        for key in ("bytes", "image", "path", "url"):
            if value.get(key) is not None:
                return next(iter(read_pictures(value[key], folder)), None)
        raise ValueError(
            f"an object with {', '.join(value) or 'no keys'} is no picture; give a path"
        )
    raise ValueError(f"{type(value).__name__} is no picture; give a path, bytes or a data URI")


def _text(text: str, folder: Path | None) -> list[Picture]:
    if not text:
        return []
    if text.startswith("["):
        try:
            return read_pictures(json.loads(text), folder)
        except json.JSONDecodeError:
            pass  # a file name may begin with a bracket
    if match := _DATA_URI.match(text):
        try:
            content = base64.b64decode(text[match.end() :], validate=True)
        except binascii.Error as error:
            raise ValueError(f"a data URI that is not base64 ({error}); encode it again") from None
        return [Picture("picture of a data URI", fetch=lambda: content)]
    if _ADDRESS.match(text):
        raise ValueError(f"{_short(text)} is an address; download the picture and give its path")
    if text.startswith("data:") or len(text) > _LONGEST_PATH:
        raise ValueError(
            f"{_short(text)} is neither a path nor a picture as data:image/png;base64,...; give one"
        )
    if folder is None:
        raise ValueError(f"{text!r} is a path, and this source has no folder; store the picture")
    file = folder / Path(text).expanduser()
    if not file.is_file():
        raise ValueError(f"{text!r} is not there (looked in {folder}); restore it or fix the path")
    return [Picture(text, file)]


def _short(text: str) -> str:
    return repr(text if len(text) < 60 else text[:57] + "...")
