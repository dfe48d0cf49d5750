"""The folder of one evaluated setting; it can be graded again without model or data folder.

started.json       what the completions depend on (written first)
samples.jsonl      the rows asked, with `shown`: id of the policy in the prompt
completions.jsonl  what the model wrote, appended in the order of samples.jsonl
scores.jsonl       value, parts, note, diagnosis by row
summary.json       the numbers (written last)
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.settings import Request
from trimpi.prompt import Message, Target
from trimpi.runs import STARTED, begin, read_json, write_text
from trimpi.sample import Completion, Sample

SAMPLES, COMPLETIONS, SCORES, SUMMARY = (
    "samples.jsonl",
    "completions.jsonl",
    "scores.jsonl",
    "summary.json",
)


@dataclass(frozen=True)
class SettingFolder:
    """Paths and files of one setting's folder."""

    path: Path

    def open(self, identity: dict[str, Any], requests: Sequence[Request], root: Path) -> None:
        """Begin or resume; a folder begun under another identity is set aside, never mixed in.

        Args:
            identity: everything that the completions depend on, as JSON.
            requests: what is asked.
            root: the data folder that the samples' images lie in.
        """
        begin(self.path, identity, overwrite=True)
        if (self.path / SAMPLES).is_file():
            return
        base = root.resolve()
        write_rows(
            self.path / SAMPLES,
            (
                {
                    **request.sample.to_json(base),
                    "images": [
                        os.path.relpath(p, self.path.resolve()) for p in request.sample.images
                    ],
                    "shown": request.sample.policy if request.shown is not None else None,
                    "target": request.target,
                }
                for request in requests
            ),
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What the folder was begun with.

        Raises:
            UserError: the folder is not one of a setting.
        """
        found = read_json(self.path / STARTED)
        if not isinstance(found, dict) or not (self.path / SAMPLES).is_file():
            raise UserError(f"{self.path}: not the folder of an evaluated setting; check the path")
        return found

    def samples(self) -> list[tuple[Sample, Target]]:
        """The samples asked, each with the response format asked for. Images are not opened."""
        pairs = []
        for row in read_rows(self.path / SAMPLES):
            target = row.pop("target")
            row.pop("shown")
            images = tuple(str((self.path / name).resolve()) for name in row.pop("images"))
            pairs.append((Sample(images=images, **row), target))
        return pairs

    @property
    def policy_in_prompt(self) -> bool:
        """Whether any row was asked with a policy in its prompt."""
        return any(row["shown"] is not None for row in read_rows(self.path / SAMPLES))

    def completions(self) -> list[Completion]:
        """The completions so far; a last line that a kill cut off is left out."""
        file = self.path / COMPLETIONS
        if not file.is_file():
            return []
        return [Completion(**row) for row in read_rows(file, torn=True)]

    def keep(self, count: int) -> None:
        """Cut completions.jsonl back to its first `count` rows."""
        write_rows(self.path / COMPLETIONS, (asdict(c) for c in self.completions()[:count]))

    def append(self, completions: Iterable[Completion]) -> None:
        """Add completions, on disk when the call returns."""
        text = "".join(json.dumps(asdict(c), ensure_ascii=False) + "\n" for c in completions)
        with (self.path / COMPLETIONS).open("a", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())


def read_rows(file: Path, torn: bool = False) -> list[dict[str, Any]]:
    """All rows of a JSONL file; with `torn`, a last line that is not whole is left out.

    Raises:
        UserError: a line is not JSON.
    """
    rows = []
    lines = file.read_bytes().split(b"\n")  # a text may hold other line breaks
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append(json.loads(line.decode("utf-8")))
        except ValueError:  # also of a letter that is cut in two
            if not (torn and number == len(lines)):
                raise UserError(f"{file}:{number}: not JSON; remove the folder and rerun") from None
    return rows


def write_rows(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSONL file whole."""
    write_text(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def prompts_digest(requests: Iterable[Request]) -> str:
    """SHA-256 over ids, gold answers and whole prompts, images by content."""
    return digest_prompts(([r.sample.id, r.sample.answer], r.messages) for r in requests)


def digest_prompts(asked: Iterable[tuple[Sequence[str], Sequence[Message]]]) -> str:
    """SHA-256 over texts of each row and its whole prompt, images by content."""
    sha = hashlib.sha256()
    seen: dict[str, str] = {}
    for texts, messages in asked:
        parts: list[str] = [*texts]
        for message in messages:
            for part in message["content"]:
                if part["type"] == "image":
                    path = part["image"]
                    if path not in seen:
                        seen[path] = hashlib.sha256(Path(path).read_bytes()).hexdigest()
                    parts.append("image:" + seen[path])
                else:
                    parts.append("text:" + part["text"])
        sha.update(json.dumps(parts).encode())
    return sha.hexdigest()
