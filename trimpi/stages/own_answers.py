"""Answers of a model with the policy in context: generated chunk by chunk, checked, recorded.

    STAGE/completions/000000.jsonl ...  chunks, each written whole by the process that made it
    STAGE/completions.jsonl             all of them with their verdicts, once the last is there

A chunk is a function of the model, its rows and (seed, number of the chunk), so that neither an
interruption nor the number of processes changes what is written. A chunk that is there is not
generated again.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track

from trimpi.control_tokens import control_tokens, held
from trimpi.errors import UserError
from trimpi.generate import Generator
from trimpi.grading import Grader, checked_scores
from trimpi.prompt import Target, build_messages, parse_response
from trimpi.recipe import DistillConfig
from trimpi.runs import write_text
from trimpi.sample import Completion, DataFolder, Sample

COMPLETIONS = "completions.jsonl"
CHUNK_BATCHES = 4
"""Batches per chunk: enough to sort prompts by length, few enough to lose little to a kill."""
KEPT = "kept"
DROPPED = {
    "truncated": "cut off at max_new_tokens",
    "empty": "empty",
    "control": "holding control tokens of the model",
    "wrong": "scored below 1",
    "ungraded": "not gradable",
}
"""Why a completion is not trained on, in words."""


@dataclass(frozen=True)
class Own:
    """A completion of a row, and whether it is trained on."""

    sample: Sample
    rollout: int
    text: str
    tokens: int
    verdict: str
    """`kept`, or a key of `DROPPED`."""
    value: float | None
    """The grader's score, where it was asked."""
    well_formed: bool


def generate_chunks(
    config: DistillConfig,
    samples: Sequence[Sample],
    data: DataFolder,
    output: Path,
    generator: Callable[[], Generator],
    seed: int,
    process: int = 0,
    processes: int = 1,
    watched: bool = False,
) -> None:
    """Write the chunks that are not there yet; this process makes its share of them.

    Args:
        config: the stage.
        samples: rows to answer, each `config.rollouts` times, their policy in context.
        data: their data folder.
        output: the stage folder.
        generator: gives the generator; not called when nothing is missing.
        seed: of the sampling.
        process: number of this process, from 0.
        processes: how many there are.
        watched: show a progress bar.
    """
    if (output / COMPLETIONS).is_file():
        return
    asked = _asked(config, samples)
    size = config.generation_batch_size * CHUNK_BATCHES
    starts = range(0, len(asked), size)
    # By number alone: another process may be writing its chunks already.
    share = range(process, len(starts), processes)
    mine = [number for number in share if not _chunk(output, number).is_file()]
    for number in track(mine, "distill: answer", transient=True, disable=not watched):
        rows = asked[starts[number] : starts[number] + size]
        written = generator()(
            [build_messages(s, data.policy_of(s), config.target) for s, _ in rows],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=seed * 2**20 + number,
        )
        lines = [
            {"id": s.id, "rollout": rollout, **vars(said)}
            for (s, rollout), said in zip(rows, written, strict=True)
        ]
        write_text(_chunk(output, number), _jsonl(lines))


def judge(
    config: DistillConfig,
    samples: Sequence[Sample],
    output: Path,
    grader: Grader,
    tokenizer: Any,
) -> list[Own]:
    """Verdicts on all completions, in order; written to `completions.jsonl` by the first call.

    Raises:
        UserError: the grader fails, or the file was changed.
    """
    file, asked = output / COMPLETIONS, _asked(config, samples)
    if not file.is_file():
        rows = [
            row
            for number in range(-(-len(asked) // (config.generation_batch_size * CHUNK_BATCHES)))
            for row in _read(_chunk(output, number))
        ]
        write_text(file, _jsonl(_judged(config, asked, rows, grader, tokenizer, str(file))))
    rows = _read(file)
    if [(row["id"], row["rollout"]) for row in rows] != [(s.id, n) for s, n in asked]:
        raise UserError(
            f"{file}: not the completions of this stage's rows; remove it to generate them again"
        )
    shutil.rmtree(output / "completions", ignore_errors=True)
    return [
        Own(s, n, row["text"], row["tokens"], row["verdict"], row["value"],
            _formed(row["text"], config.target))
        for (s, n), row in zip(asked, rows, strict=True)
    ]  # fmt: skip


def counts(found: Sequence[Own], rows: int) -> dict[str, Any]:
    """What became of the completions: `rows`, `asked`, `kept`, `rows_kept` (rows with one),
    `malformed` (of the kept), and the dropped ones by reason."""
    verdicts = Counter(own.verdict for own in found)
    kept = [own for own in found if own.verdict == KEPT]
    return {
        "rows": rows,
        "asked": len(found),
        "kept": len(kept),
        "rows_kept": len({own.sample.id for own in kept}),
        "malformed": sum(not own.well_formed for own in kept),
        **{reason: verdicts[reason] for reason in DROPPED},
    }


def in_words(counted: dict[str, Any]) -> str:
    """The counts as a line."""
    dropped = [f"{counted[r]} {words}" for r, words in DROPPED.items() if counted[r]]
    line = f"{counted['kept']} of {counted['asked']} completions kept"
    if counted["malformed"]:
        line += f", {counted['malformed']} of them not of the form asked for"
    return line + (f"; left out: {', '.join(dropped)}" if dropped else "")


def _judged(
    config: DistillConfig,
    asked: Sequence[tuple[Sample, int]],
    rows: Sequence[dict[str, Any]],
    grader: Grader,
    tokenizer: Any,
    file: str,
) -> list[dict[str, Any]]:
    marks = control_tokens(tokenizer)
    found = []
    for row in rows:
        verdict = KEPT
        if row["truncated"]:
            verdict = "truncated"
        elif not row["text"].strip():
            verdict = "empty"
        elif held(row["text"], marks):
            verdict = "control"
        found.append({**row, "verdict": verdict, "value": None})
    if config.filter == "grader":
        left = [place for place, row in enumerate(found) if row["verdict"] == KEPT]
        scores = checked_scores(
            grader,
            [asked[place][0] for place in left],
            [
                Completion(asked[place][0].id, found[place]["text"], found[place]["tokens"])
                for place in left
            ],
            lambda n: f"{file}:{left[n] + 1}",
        )
        for place, score in zip(left, scores, strict=True):
            found[place]["value"] = score.value
            if score.value is None:
                found[place]["verdict"] = "ungraded"
            elif score.value < 1:
                found[place]["verdict"] = "wrong"
    return found


def _asked(config: DistillConfig, samples: Sequence[Sample]) -> list[tuple[Sample, int]]:
    return [(sample, rollout) for sample in samples for rollout in range(config.rollouts)]


def _formed(text: str, target: Target) -> bool:
    return parse_response(text, target).well_formed


def _chunk(output: Path, number: int) -> Path:
    return output / "completions" / f"{number:06d}.jsonl"


def _jsonl(rows: Sequence[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        lines = file.read_bytes().split(b"\n")  # a text may hold other line breaks
        return [json.loads(line) for line in lines if line]
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error}); remove it and run again") from None
