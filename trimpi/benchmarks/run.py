"""One suite, one model: completions -> scores.jsonl -> summary.json, resumable.

OUT/<suite>/started.json         what completions depend on
OUT/<suite>/completions.jsonl    {"id", "text", "tokens", "truncated"}, appended chunk by chunk
OUT/<suite>/judgements.jsonl     of a judged suite, the same of the judge
OUT/<suite>/scores.jsonl, summary.json    written at the end, and of what is there when stopped
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimpi import __version__
from trimpi.benchmarks.items import Extraction, Item, Options, Suite, items_digest
from trimpi.benchmarks.scores import score_rows, summarize
from trimpi.benchmarks.source import Source
from trimpi.benchmarks.wildguard import JUDGE_TOKENS, judge_question
from trimpi.errors import UserError
from trimpi.evaluate.store import COMPLETIONS, SCORES, SUMMARY, read_rows, write_rows
from trimpi.prompt import Message
from trimpi.runs import begin, write_json

if TYPE_CHECKING:
    from trimpi.generate import Generator

JUDGEMENTS = "judgements.jsonl"
CHUNK_BATCHES = 16
"""Batches per chunk: enough for batches of like lengths, few enough to lose little to a kill."""


@dataclass(frozen=True)
class Backend:
    """A model that answers: what identifies it, and how to get it.

    `generator` loads weights. `faults` says, without them, which of the prompts do not fit the
    model with so many new tokens; None where only a server knows.
    """

    identity: Mapping[str, Any]
    generator: "Callable[[], Generator]"
    batch_size: int = 16
    faults: "Callable[[Sequence[tuple[str, list[Message]]], int], list[str]] | None" = None


@dataclass(frozen=True)
class Settings:
    """What the run of a suite depends on beside model and rows; `max_new_tokens` None: official."""

    options: Options
    extraction: Extraction = "chain"
    max_new_tokens: int | None = None
    overwrite: bool = False


def load_items(suite: Suite, source: Source, options: Options, output: Path) -> list[Item]:
    """The questions of a suite; pictures that are stored as bytes go to `output/pictures`.

    Raises:
        UserError: bad rows, or nothing to ask.
    """
    items = suite.load(source, options, output)
    if not items:
        raise UserError(f"{suite.name}: {source.name} has nothing to ask; give another source")
    return items


def run_suite(
    suite: Suite,
    source: Source,
    items: Sequence[Item],
    output: Path,
    settings: Settings,
    model: Backend,
    judge: Backend | None = None,
) -> dict[str, Any]:
    """Ask, read, score; goes on where an earlier call with the same settings stopped.

    Args:
        output: the suite's folder is `output/<suite>`.
        judge: judges the answers of a judged suite; may be any model.

    Returns:
        The content of summary.json.

    Raises:
        UserError: the folder holds another model, rows or limit; no judge; or what the model or
            its server says. Scores of what was answered are written before.
    """
    if suite.judged and judge is None:
        raise UserError(f"{suite.name}: needs a judge; give --judge MODEL")
    folder = output / suite.name
    limit = settings.max_new_tokens or suite.max_new_tokens
    identity: dict[str, Any] = {
        "suite": suite.name,
        "model": dict(model.identity),
        "items": items_digest(items),
        "rows": len(items),
        "max_new_tokens": limit,
        "batch_size": model.batch_size,
    }
    if suite.judged and judge is not None:
        identity["judge"] = dict(judge.identity)
    begin(folder, identity, settings.overwrite)
    for name in (COMPLETIONS, JUDGEMENTS):
        _done(folder / name, [item.id for item in items])
    told = _told(suite, source, settings, identity)
    stopped: BaseException | None = None
    try:
        asked = [(item.id, item.messages) for item in items]
        answers = answer_all(folder / COMPLETIONS, asked, model, limit)
        if suite.judged and judge is not None:
            questions = [
                (item.id, judge_question(item, answer["text"]))
                for item, answer in zip(items, answers, strict=True)
            ]
            answer_all(folder / JUDGEMENTS, questions, judge, JUDGE_TOKENS)
    except (UserError, KeyboardInterrupt) as error:
        stopped = error
    summary = _write(folder, suite, items, settings.extraction, told)
    if isinstance(stopped, UserError):
        kept = f"{summary['rows']} of {len(items)} rows are kept in {folder}"
        lines = [f"{suite.name}: {line}" for line in str(stopped).splitlines()]
        lines[-1] += f"; {kept}, and the same command goes on"
        raise UserError.join(lines) from None
    if stopped is not None:
        raise stopped
    return summary


def answer_all(
    file: Path, asked: Sequence[tuple[str, list[Message]]], model: Backend, limit: int
) -> list[dict[str, Any]]:
    """Completions of all prompts, in order; those in the file are not asked for again.

    Args:
        file: where completions are appended, each chunk on disk before the next is asked for.
        asked: id and messages of each prompt.
        limit: tokens of a completion.

    Raises:
        UserError: the file holds completions of other prompts, or what the generator says.
    """
    done = _done(file, [name for name, _ in asked])
    chunk = model.batch_size * CHUNK_BATCHES
    if len(done) < len(asked):
        # Whole chunks only: batches, and so numerics, are those of a run never interrupted.
        done = done[: len(done) - len(done) % chunk]
        write_rows(file, done)
    for start in range(len(done), len(asked), chunk):
        part = asked[start : start + chunk]
        made = model.generator()(
            [messages for _, messages in part], max_new_tokens=limit, temperature=0.0, seed=0
        )
        rows = [
            {
                "id": name,
                "text": answer.text,
                "tokens": getattr(answer, "tokens", None),  # servers may not count
                "truncated": answer.truncated,
            }
            for (name, _), answer in zip(part, made, strict=True)
        ]
        with file.open("a", encoding="utf-8") as stream:
            stream.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            stream.flush()
            os.fsync(stream.fileno())
        done += rows
    return done


def stored(file: Path) -> list[dict[str, Any]]:
    """Completions of a file, without a last line that a kill cut off."""
    return read_rows(file, torn=True) if file.is_file() else []


def _done(file: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    found = stored(file)
    if [row["id"] for row in found] != list(names[: len(found)]):
        raise UserError(f"{file}: holds completions of other rows; remove it, and run again")
    return found


def _told(
    suite: Suite, source: Source, settings: Settings, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """What summary.json says of how the numbers were made."""
    options = settings.options
    used = {name: getattr(options, name) for name in suite.used}
    return {
        "source": source.name,
        "config": source.config,
        "extraction": settings.extraction,
        "per_category": options.per_category,
        "seed": options.seed,
        **used,
        **{name: value for name, value in identity.items() if name not in ("suite", "rows")},
        "trimpi": __version__,
    }


def _write(
    folder: Path,
    suite: Suite,
    items: Sequence[Item],
    extraction: Extraction,
    told: Mapping[str, Any],
) -> dict[str, Any]:
    completions = stored(folder / COMPLETIONS)
    read = stored(folder / JUDGEMENTS) if suite.judged else completions
    texts = [row["text"] for row in read]
    rows = score_rows(suite, items[: len(texts)], texts, extraction)
    summary = summarize(suite, rows, told)
    summary["complete"] = len(rows) == len(items)
    summary["asked"] = len(items)
    summary["truncated"] = sum(bool(row["truncated"]) for row in completions)
    write_rows(folder / SCORES, rows)
    write_json(folder / SUMMARY, summary)
    return summary
