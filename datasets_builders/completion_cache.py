"""Completions on disk, one file each, stored as they finish: a rerun asks only for the rest.

    $TRIMPI_CACHE/completions/<first two>/<key>.json     {"key", "text", "finish", "usage"}

The key is a SHA-256 over what the completion depends on: the generator's identity, the messages
with the digests of their pictures, token limit, temperature and seed. Where a server stands and
how it is entered is no part of it, and is never stored.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from datasets_builders.base import hash_file
from datasets_builders.parallel import progress_bar
from trimpi.errors import UserError
from trimpi.prompt import Message

FORMAT = 1


class Record(TypedDict):
    """A finished completion: its text, why it ended ("length": the limit), tokens as counted."""

    text: str
    finish: str
    usage: dict[str, int]


@runtime_checkable
class Source(Protocol):
    """A generator whose completions can be kept."""

    settings: Mapping[str, Any]
    """The arguments of its maker that completions depend on. No secrets: they go into cards."""

    def identity(self) -> Mapping[str, Any]:
        """`settings`, and what else completions depend on beside the prompt, as JSON."""
        ...

    def stream(
        self,
        prompts: list[list[Message]],
        missing: Collection[int],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> Iterator[tuple[int, Record]]:
        """Yield place and completion of at least the `missing` prompts, in any order."""
        ...


@dataclass(frozen=True)
class Answer:
    """A completion; `truncated` says that the length limit ended it."""

    text: str
    truncated: bool


class Cached:
    """A generator that takes from the disk what it has, and stores the rest as it comes.

    A file that is damaged counts as missing: it is asked for again and replaced.
    """

    def __init__(self, source: Source, folder: Path | None = None, progress: bool = True) -> None:
        self.source, self.folder = source, folder or default_folder()
        self.progress = progress
        _check_writable(self.folder)

    def __repr__(self) -> str:
        return f"Cached({self.source!r})"

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Answer]:
        """One completion a prompt, in order.

        Raises:
            UserError: what the generator says, with how many completions are kept; a picture of a
                prompt or the folder of completions cannot be used.
        """
        keys = self._keys(prompts, [max_new_tokens, temperature, seed])
        kept = {place: found for place, key in enumerate(keys) if (found := self._read(key))}
        missing = {place for place in range(len(prompts)) if place not in kept}
        if missing:
            stream = self.source.stream(
                prompts,
                missing,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
            )
            try:
                with progress_bar("completions") as bar:
                    bar.disable = not self.progress
                    task = bar.add_task("generate", total=len(prompts), completed=len(kept))
                    for place, record in stream:
                        self._write(keys[place], record)
                        kept[place] = record
                        bar.update(task, completed=len(kept))
            except UserError as error:
                raise UserError(
                    f"{error}; {len(kept)} of {len(prompts)} completions are kept in {self.folder},"
                    " and the same command asks for the rest alone"
                ) from None
        records = (kept[place] for place in range(len(prompts)))
        return [Answer(record["text"], record["finish"] == "length") for record in records]

    def _keys(self, prompts: list[list[Message]], options: list[Any]) -> list[str]:
        identity, digests = dict(self.source.identity()), dict[str, str]()
        return [_key([FORMAT, identity, _digested(p, digests), *options]) for p in prompts]

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _read(self, key: str) -> Record | None:
        try:
            found = json.loads(self._file(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("key") != key:
            return None
        text, finish, usage = (found.get(name) for name in ("text", "finish", "usage"))
        if not (isinstance(text, str) and isinstance(finish, str) and isinstance(usage, dict)):
            return None
        try:
            text.encode()
        except UnicodeEncodeError:  # no data set could hold it
            return None
        return {"text": text, "finish": finish, "usage": usage}

    def _write(self, key: str, record: Record) -> None:
        file, content = self._file(key), json.dumps({"key": key, **record})
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            # A name of its own: two builds may store the same completion at a time.
            handle, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=file.parent)
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(content)
                Path(name).replace(file)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise UserError(_not_writable(self.folder, error)) from None


def default_folder() -> Path:
    """`$TRIMPI_CACHE/completions`; without that variable below the user's cache folder."""
    if chosen := os.environ.get("TRIMPI_CACHE"):
        return Path(chosen).expanduser().absolute() / "completions"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "trimpi" / "completions"


def _check_writable(folder: Path) -> None:
    """Refuse before anything is paid for; makes nothing, because a dry run comes here too."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        raise UserError(_not_writable(folder, f"{there} is not a folder to write in"))


def _not_writable(folder: Path, reason: object) -> str:
    return f"{folder}: completions cannot be kept there ({reason}); set TRIMPI_CACHE"


def _key(parts: list[Any]) -> str:
    text = json.dumps(parts, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _digested(messages: list[Message], digests: dict[str, str]) -> list[Any]:
    """Messages with a digest of the bytes in place of each picture's path."""
    described = []
    for message in messages:
        content = []
        for part in message["content"]:
            if part["type"] == "image":
                path = part["image"]
                if path not in digests:
                    try:
                        digests[path] = hash_file(Path(path))
                    except OSError as error:
                        raise UserError(f"{path}: cannot be read ({error})") from None
                content.append(["image", digests[path]])
            else:
                content.append(["text", part["text"]])
        described.append([message["role"], content])
    return described
