"""A model as judge: asked through the prompt of `prompt.txt`, its answers kept as they arrive.

judgements.jsonl   {"id", "key", "text", "truncated"}, appended; `key` digests model and prompt
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from trimpi.errors import UserError
from trimpi.evaluate.referral.judgement import Judgement, at_once
from trimpi.evaluate.referral.prompt import judge_messages, read_score, template
from trimpi.evaluate.store import read_rows
from trimpi.policy import Policy
from trimpi.prompt import Message
from trimpi.runs import digest
from trimpi.sample import Completion, Sample

CHUNK = 16
"""Prompts given together to a generator that does not stream."""
SHOWN = 20
"""Prompts beyond the context that are named one by one."""
Asked = tuple[Sample, Policy, Completion]


class ModelJudge:
    """A judge that asks a generator.

    Args:
        generator: called with prompts, `max_new_tokens`, `temperature`, `seed`; one that streams
            (`stream`, as those of datasets_builders.endpoint and trimpi.local_generator, also
            inside of a cache) has each answer kept when it arrives.
        name: of what made it, with its arguments where the generator tells no identity.
        max_new_tokens: limit of an answer.
        pictures: whether pictures of the policy are shown.
    """

    def __init__(
        self,
        generator: Callable[..., Any],
        name: Mapping[str, Any],
        max_new_tokens: int = 512,
        pictures: bool = True,
    ) -> None:
        self._generator = getattr(generator, "source", generator)
        if not callable(getattr(self._generator, "stream", None)):
            self._generator = generator
        self._name, self._limit, self._pictures = dict(name), max_new_tokens, pictures

    @cached_property
    def _told(self) -> dict[str, Any]:
        identify = getattr(self._generator, "identity", None)
        return dict(identify()) if callable(identify) else {}

    def identity(self) -> Mapping[str, Any]:
        """The model, the prompt's digest and the limit; may ask a hub for the model's files."""
        return {
            "judge": self._name["judge"],
            "model": self._told or self._name,
            "prompt": digest(template()),
            "max_new_tokens": self._limit,
            "pictures": self._pictures,
        }

    def judge(self, sample: Sample, policy: Policy, completion: Completion) -> Judgement:
        """Ask for one completion and keep nothing."""
        if (plain := at_once(policy, completion)) is not None:
            return plain
        ((_, text, cut),) = self._answers([self._messages((sample, policy, completion))], [0])
        return read_score(text, cut)

    def judge_all(self, asked: Sequence[Asked], file: Path) -> None:
        """Ask for all completions whose answers `file` does not have, and keep each there.

        Equal prompts are asked once.

        Raises:
            UserError: what the generator says; answers so far are in the file.
        """
        keys = [self.key(row) for row in asked]
        have = answers_of(file)
        # A kill may have cut the last line off, and the next would be written onto it.
        _mend(file)
        prompts: dict[str, list[Message]] = {}
        users: dict[str, list[str]] = {}
        for key, row in zip(keys, asked, strict=True):
            if have.get(row[0].id, {}).get("key") == key:
                continue
            prompts.setdefault(key, self._messages(row))
            users.setdefault(key, []).append(row[0].id)
        # Also answers of before another judge was asked: going back to one asks nothing again.
        known = {row["key"]: row for row in (read_rows(file) if file.is_file() else ())}
        order = list(prompts)
        missing = [place for place, key in enumerate(order) if key not in known]
        self._check_lengths([(users[order[place]][0], prompts[order[place]]) for place in missing])
        with file.open("a", encoding="utf-8") as stream, _progress(len(order)) as step:

            def keep(key: str, text: str, cut: bool) -> None:
                rows = ({"id": i, "key": key, "text": text, "truncated": cut} for i in users[key])
                stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
                stream.flush()
                os.fsync(stream.fileno())
                step()

            for key in order:
                if key in known:
                    keep(key, known[key]["text"], known[key]["truncated"])
            if missing:
                wanted = set(missing)
                for place, text, cut in self._answers([prompts[key] for key in order], missing):
                    if place in wanted:  # a batch that is done again gives others too
                        keep(order[place], text, cut)

    def key(self, asked: Asked) -> str:
        """What an answer depends on: judge and prompt, pictures by their bytes."""
        sample, policy, completion = asked
        # the policy's digest stands for its pictures, which the messages hold as paths
        texts = [
            part.get("text", "[picture]")
            for message in judge_messages(sample, policy, completion, self._pictures)
            for part in message["content"]
        ]
        shown = policy.digest() if self._pictures and policy.images else ""
        return digest([self.identity(), texts, shown])

    def _messages(self, asked: Asked) -> list[Message]:
        return judge_messages(*asked, pictures=self._pictures)

    def _check_lengths(self, asked: Sequence[tuple[str, list[Message]]]) -> None:
        """Refuse prompts beyond the context of a local model, before its weights are loaded."""
        faults = getattr(self._generator, "too_long", None)
        if not asked or not callable(faults):
            return
        found = faults([messages for _, messages in asked], max_new_tokens=self._limit)
        lines = [
            f"evaluation.referral: row {asked[place][0]!r}: {fault}"
            for place, fault in found.items()
        ]
        if lines:
            more = [f"... and {len(lines) - SHOWN} more rows"] if len(lines) > SHOWN else []
            raise UserError.join([*lines[:SHOWN], *more])

    def _answers(
        self, prompts: list[list[Message]], missing: Sequence[int]
    ) -> Iterator[tuple[int, str, bool]]:
        options = {"max_new_tokens": self._limit, "temperature": 0.0, "seed": 0}
        try:
            if callable(stream := getattr(self._generator, "stream", None)):
                for place, record in stream(prompts, missing, **options):
                    yield place, record["text"], record["finish"] == "length"
                return
            for start in range(0, len(missing), CHUNK):
                places = missing[start : start + CHUNK]
                made = self._generator([prompts[place] for place in places], **options)
                for place, answer in zip(places, made, strict=True):
                    text = answer if isinstance(answer, str) else answer.text
                    yield place, text, getattr(answer, "truncated", False)
        except UserError as error:
            lines = [line.removeprefix("generate: ") for line in str(error).splitlines()]
            raise UserError.join([f"evaluation.referral: {line}" for line in lines]) from None


def answers_of(file: Path) -> dict[str, dict[str, Any]]:
    """The last answer of each row; a last line that a kill cut off is left out."""
    if not file.is_file():
        return {}
    return {row["id"]: row for row in read_rows(file, torn=True)}


def _mend(file: Path) -> None:
    if file.is_file() and not (content := file.read_bytes()).endswith(b"\n") and content:
        with file.open("r+b") as stream:
            stream.truncate(content.rfind(b"\n") + 1)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True)
    hidden = not sys.stderr.isatty() or total < 2
    with Progress(console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("judge", total=total)
        yield lambda: bar.advance(task)
