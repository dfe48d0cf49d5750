"""Example cards: a picture, the policy's path through it, and what each model made of it."""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from trimpi.errors import UserError
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.prompt import parse_response
from trimpi.report.answers import Line, object_lines, read_object
from trimpi.report.load import Arm, Evaluation, Run
from trimpi.sample import Completion, Sample

MAX_SIDE, MAX_BYTES = 480, 60_000
"""Pictures longer or larger than this are embedded as a smaller JPEG."""
LONGEST = 4000
"""Characters of a completion that a card shows."""


@dataclass(frozen=True)
class Attempt:
    """What one model wrote.

    `verdict` is right, partial, wrong or unscored; `score` the value if partial; `error` the first
    fault; `call` the answer by lines where it is a JSON object and the gold answer is one.
    """

    model: str
    verdict: str
    score: float | None
    error: str
    lines: list[Line]
    answer: str | None
    call: list[Line]
    note: str
    truncated: bool


@dataclass(frozen=True)
class Picture:
    """An embedded picture. `small` ones are shown enlarged without smoothing."""

    data: str
    small: bool


@dataclass(frozen=True)
class Card:
    """One sample with the attempt of the leading arm first and those of the others after it.

    `call` is the gold answer by lines where it is a JSON object.
    """

    sample_id: str
    policy: str
    query: str
    pictures: list[Picture]
    gold: list[str]
    answer: str
    call: list[Line]
    attempts: list[Attempt]


def cards(run: Run, leading: str | None, count: int) -> list[Card]:
    """Cards of `count` rows of the leading arm's first seed, half of them wrong if possible.

    Wrong rows with different first errors come before more of the same. The base model's attempt
    is the one with the policy in its prompt.
    """
    arms = {arm.name: arm for arm in run.arms}
    if leading is None or count == 0:
        return []
    first = arms[leading].settings["no_policy"][0]
    others = [arm for arm in run.arms if arm.name != leading]
    return [
        _card(
            run,
            first,
            index,
            [
                _attempt(leading, first, index),
                *_others(run.base, "base, policy in prompt", "in_context", first.samples[index].id),
                *(a for arm in others for a in _others(arm, arm.name, "no_policy",
                                                       first.samples[index].id)),
            ],
        )
        for index in choose(
            first.scores, count, [str(sample.facts.get("tool", "")) for sample in first.samples]
        )
    ]  # fmt: skip


def choose(
    scores: Sequence[dict[str, Any]], count: int, kinds: Sequence[str] | None = None
) -> list[int]:
    """Indices of the rows to show, in the order of the rows: half of them wrong if possible.

    Args:
        scores: rows of scores.jsonl.
        count: how many to choose.
        kinds: what each row is about; different ones come before more of the same.
    """
    about = kinds or [""] * len(scores)
    wrong = [i for i, row in enumerate(scores) if row["value"] is not None and row["value"] < 1]
    right = [i for i, row in enumerate(scores) if row["value"] == 1]
    errors = [str((row.get("diagnosis") or {}).get("first_error", "")) for row in scores]
    wrong, right = _varied(wrong, errors), _varied(right, about)
    wrongs = min(len(wrong), max(count // 2, count - len(right)))
    return sorted([*wrong[:wrongs], *right[: count - wrongs]])


def _varied(indices: Sequence[int], kinds: Sequence[str]) -> list[int]:
    """The first of each kind, then the rest."""
    first: dict[str, int] = {}
    for index in indices:
        first.setdefault(kinds[index], index)
    return [*first.values(), *(i for i in indices if i not in first.values())]


def _others(arm: Arm, name: str, setting: str, sample_id: str) -> list[Attempt]:
    for evaluation in arm.settings.get(setting, ())[:1]:
        for index, row in enumerate(evaluation.scores):
            if row["id"] == sample_id:
                return [_attempt(name, evaluation, index)]
    return []


def _card(run: Run, evaluation: Evaluation, index: int, attempts: list[Attempt]) -> Card:
    sample = evaluation.samples[index]
    pictures = [embed(Path(path)) for path in sample.images]
    return Card(
        sample_id=sample.id,
        policy=sample.policy or "",
        query=sample.query,
        pictures=[picture for picture in pictures if picture is not None],
        gold=_gold(sample),
        answer=sample.answer,
        call=object_lines(gold, gold, {}) if (gold := read_object(sample.answer)) else [],
        attempts=attempts,
    )


def _gold(sample: Sample) -> list[str]:
    """The policy's path: the gold rationale by lines, else the steps of `facts.path`."""
    if sample.rationale:
        return [line for line in sample.rationale.splitlines() if line.strip()]
    steps = sample.facts.get("path")
    if not isinstance(steps, list):
        return []
    return [", ".join(f"{k}: {v}" for k, v in step.items()) for step in steps]


def fault_line(texts: Sequence[str], diagnosis: Mapping[str, Any]) -> int | None:
    """Index of the line where the walk leaves the gold walk, None where that cannot be told.

    It is the line that begins with the condition cited at the first wrong step (that has it as the
    first of its conditions); of a walk that stops early, the last line. Of a wrong version or rule
    it is the line that cites the first rule that gold does not cite.
    """
    step, cited = diagnosis.get("steps"), [str(name) for name in diagnosis.get("cited", ())]
    if diagnosis.get("first_error") in ("version", "rule"):
        strange = [name for name in cited if name not in diagnosis.get("gold", ())]
        pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, strange))})(?!\.?\w)")
        citing = (n for n, text in enumerate(texts) if strange and pattern.search(text))
        return next(citing, None)
    if diagnosis.get("first_error") not in ("recall", "perception", "branching") or not texts:
        return None
    if not isinstance(step, int) or step >= len(cited):
        return len(texts) - 1 if isinstance(step, int) else None
    ids = sorted({*cited, *map(str, diagnosis.get("gold", ()))}, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.])({'|'.join(map(re.escape, ids))})(?!\.?\w)")
    for number, text in enumerate(texts):
        found = pattern.search(text)
        if found and found[1] == cited[step]:
            return number
    return None


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... ({len(text)} characters)"


def _attempt(model: str, evaluation: Evaluation, index: int) -> Attempt:
    completion, row = evaluation.completions[index], evaluation.scores[index]
    response = parse_response(completion.text)
    diagnosis = row.get("diagnosis") or {}
    error = str(diagnosis.get("first_error", ""))
    reasoning = _cut(_reasoning(completion, response.rationale))
    texts = [t for t in reasoning.splitlines() if t.strip()]
    fault = fault_line(texts, diagnosis)
    value = row["value"]
    said, gold = read_object(response.answer), read_object(evaluation.samples[index].answer)
    partial = value is not None and 0 < value < 1
    return Attempt(
        model=model,
        verdict="unscored" if value is None else "partial" if partial else _VERDICTS[value == 1],
        score=value if partial else None,
        error="" if error == "none" else error,
        lines=[Line(text, number == fault) for number, text in enumerate(texts)],
        answer=None if response.answer is None else _cut(response.answer),
        call=object_lines(said, gold, row["parts"]) if said and gold else [],
        note=row["note"],
        truncated=completion.truncated,
    )


_VERDICTS = {True: "right", False: "wrong"}


def _reasoning(completion: Completion, rationale: str | None) -> str:
    """The think block; without one all that was written, except a lone boxed answer."""
    if rationale is not None:
        return rationale
    text = completion.text.strip()
    return "" if text.startswith("\\boxed{") else text


def embed(path: Path) -> Picture | None:
    """A picture as a data URI; None when the file is gone or is no picture."""
    try:
        content = path.read_bytes()
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            kind = {"PNG": "png", "JPEG": "jpeg", "GIF": "gif", "WEBP": "webp"}.get(
                image.format or ""
            )
            if kind is None or max(width, height) > MAX_SIDE or len(content) > MAX_BYTES:
                buffer = io.BytesIO()
                smaller = image.convert("RGB")
                smaller.thumbnail((MAX_SIDE, MAX_SIDE))
                smaller.save(buffer, "JPEG", quality=88)
                content, kind = buffer.getvalue(), "jpeg"
    except (OSError, UnidentifiedImageError):
        return None
    text = base64.b64encode(content).decode()
    return Picture(f"data:image/{kind};base64,{text}", max(width, height) <= 200)


def policy_parts(run: Run, name: str) -> tuple[str, list[str | Picture]] | None:
    """Name and parts of a policy, its pictures embedded; None when the data folder is gone."""
    try:
        policy: Policy | None = run.data.policies.get(name)
    except UserError:
        return None
    if policy is None:
        return None
    parts: list[str | Picture] = []
    for part in policy.parts:
        if isinstance(part, TextPart):
            parts.append(part.text)
        elif isinstance(part, ImagePart) and (picture := embed(Path(part.path))) is not None:
            parts.append(picture)
    return policy.name, parts
