"""Policy: a named, ordered mix of text and images that says how a model must behave."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimpi.errors import UserError


@dataclass(frozen=True)
class TextPart:
    """A stretch of policy text."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """An image standing inside the text; `path` is absolute once loaded."""

    path: str


Part = TextPart | ImagePart


@dataclass(frozen=True)
class Policy:
    """`P = (P_T, P_I)` of the paper: what the prompt holds before training and the weights after.

    `metadata` is for builders (decision tree, rule ids, ...); it never reaches a prompt.
    """

    name: str
    parts: tuple[Part, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """All text parts joined, images left out."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[str, ...]:
        """Paths of the images in reading order."""
        return tuple(part.path for part in self.parts if isinstance(part, ImagePart))

    def digest(self) -> str:
        """SHA-256 over name and parts (image bytes, not paths): equal content, equal digest."""
        sha = hashlib.sha256(self.name.encode())
        for part in self.parts:
            if isinstance(part, TextPart):
                content = b"T" + part.text.encode()
            else:
                content = b"I" + Path(part.path).read_bytes()
            sha.update(len(content).to_bytes(8, "big") + content)
        return sha.hexdigest()

    def to_json(self, root: Path) -> dict[str, Any]:
        """The JSON form, image paths relative to `root`."""
        parts: list[dict[str, str]] = []
        for part in self.parts:
            if isinstance(part, TextPart):
                parts.append({"text": part.text})
            else:
                parts.append(
                    {"image": Path(part.path).resolve().relative_to(root.resolve()).as_posix()}
                )
        return {"name": self.name, "parts": parts, "metadata": dict(self.metadata)}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], root: Path, where: str) -> "Policy":
        """Read the JSON form; `where` names the file in error messages.

        Raises:
            UserError: a key is missing or mistyped, or an image is absent or outside `root`.
        """
        if not isinstance(record, Mapping):
            raise UserError(f"{where}: must hold a JSON object with 'name' and 'parts'; restore it")
        name, raw_parts = record.get("name"), record.get("parts")
        if not isinstance(name, str) or not name:
            raise UserError(
                f"{where}: key 'name' must be a non-empty string; give the policy a name"
            )
        if not isinstance(raw_parts, list) or not raw_parts:
            raise UserError(
                f"{where}: key 'parts' must be a non-empty list of text and image parts"
            )
        parts: list[Part] = []
        for index, raw in enumerate(raw_parts):
            key = f"{where}: parts[{index}]"
            if isinstance(raw, Mapping) and isinstance(raw.get("text"), str):
                parts.append(TextPart(raw["text"]))
            elif isinstance(raw, Mapping) and isinstance(raw.get("image"), str):
                parts.append(ImagePart(str(inside(root, raw["image"], key))))
            else:
                raise UserError(
                    f'{key} must be {{"text": ...}} or {{"image": ...}}; correct the part'
                )
        metadata = record.get("metadata", {})
        if not isinstance(metadata, Mapping):
            raise UserError(f"{where}: key 'metadata' must be an object; correct or drop it")
        cases = metadata.get("cases", [])
        if not isinstance(cases, list) or not all(isinstance(case, str) for case in cases):
            raise UserError(f"{where}: key 'metadata.cases' must be a list of answers; correct it")
        return cls(name, tuple(parts), dict(metadata))

    def to_markdown(self, root: Path) -> str:
        """Markdown with images as `![](path)`, below front matter.

        `read_policy_file` reads it back: name, parts, and of the metadata what a file says.
        """
        body = "".join(
            part.text if isinstance(part, TextPart) else _image_mark(part.path, root)
            for part in self.parts
        )
        front: dict[str, Any] = {"name": self.name}
        for key in ("version", "task", "order", "attributes"):
            if key in self.metadata:
                front[key] = self.metadata[key]
        lines = [f"{key}: {json.dumps(front[key], ensure_ascii=False)}\n" for key in front]
        return f"---\n{''.join(lines)}---\n{body}"

    @classmethod
    def from_markdown(cls, file: Path) -> "Policy":
        """Read a Markdown policy: `trimpi.policy_file.read_policy_file`.

        Raises:
            UserError: all problems of the file at once.
        """
        from trimpi.policy_file import read_policy_file

        return read_policy_file(file)


def _image_mark(path: str, root: Path) -> str:
    relative = Path(path).resolve().relative_to(root.resolve()).as_posix()
    return f"![](<{relative}>)" if set(relative) & set(" ()%") else f"![]({relative})"


def inside(root: Path, relative: str, where: str) -> Path:
    """Absolute path of an existing file below `root`.

    Raises:
        UserError: the path leaves the folder, or no file is there.
    """
    try:
        path = (root / relative).resolve()
        there = path.is_file()
    except (OSError, ValueError) as error:  # a NUL, or a name that is too long
        shown = relative if len(relative) < 60 else relative[:57] + "..."
        raise UserError(f"{where}: {shown!r} is no path of a file ({error}); correct it") from None
    if not path.is_relative_to(root.resolve()):
        raise UserError(
            f"{where}: path {relative!r} leaves its folder {root}; keep files inside it"
        )
    if not there:
        raise UserError(
            f"{where}: file {relative!r} not found below {root}; restore it or fix the path"
        )
    return path
