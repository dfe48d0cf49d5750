"""From completions to scores and from scores to a summary, without a model."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from trimpi.evaluate import diagnosis
from trimpi.evaluate.diagnosis import Diagnose
from trimpi.evaluate.statistics import wilson
from trimpi.grading import Grader, checked_scores
from trimpi.prompt import Target, parse_response
from trimpi.sample import Completion, Sample

Row = Mapping[str, Any]

MOST_POLICIES = 64
"""More of them, as where each row has its own, get no numbers of their own."""


def score_rows(
    asked: Sequence[tuple[Sample, Target]],
    completions: Sequence[Completion],
    grader: Grader,
    diagnose: Diagnose | None = None,
    file: str = "completions.jsonl",
) -> list[dict[str, Any]]:
    """The rows of scores.jsonl.

    Args:
        asked: the samples, each with the response format asked for.
        completions: in the same order.
        grader: scores a completion.
        diagnose: error analysis of the reasoning, or None.
        file: that the completions stand in, for messages.

    Raises:
        UserError: the grader fails on a row (all of them, the first 20) or gives no score in
            [0, 1] or None, or `diagnose` fails. A fault of the grader is neither a right nor a
            wrong answer, and no completion that cannot be graded.
    """
    samples = [sample for sample, _ in asked]
    scores = checked_scores(grader, samples, completions, lambda row: f"{file}:{row + 1}")
    # override: would the answer have been right under the policy that was internalized?
    moved = [
        (row, replace(sample, answer=before))
        for row, sample in enumerate(samples)
        if isinstance(before := sample.facts.get("original_answer"), str)
        and before != sample.answer
    ]
    originals = checked_scores(
        grader,
        [sample for _, sample in moved],
        [completions[row] for row, _ in moved],
        lambda place: f"{file}:{moved[place][0] + 1}: facts.original_answer",
    )
    original = {row: score.value for (row, _), score in zip(moved, originals, strict=True)}
    rows = []
    for place, ((sample, target), completion) in enumerate(zip(asked, completions, strict=True)):
        score = scores[place]
        row: dict[str, Any] = {
            "id": sample.id,
            "value": score.value,
            "parts": dict(score.parts),
            "note": score.note,
            "well_formed": parse_response(completion.text, target).well_formed,
        }
        if place in original:
            row["original"] = original[place]
        if diagnose is not None:
            row["diagnosis"] = diagnosis.diagnose_one(diagnose, sample, completion)
        rows.append(row)
    return rows


def accuracy(rows: Iterable[Row]) -> dict[str, Any]:
    """Mean of the scored values with Wilson's interval; `unscored` rows are counted apart."""
    values = [row["value"] for row in rows]
    scored = [value for value in values if value is not None]
    interval = wilson(min(math.fsum(scored), len(scored)), len(scored))
    return {
        "value": interval.value if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "scored": len(scored),
        "correct": math.fsum(scored),
        "unscored": len(values) - len(scored),
    }


def summarize(
    samples: Sequence[Sample], completions: Sequence[Completion], rows: Sequence[Row]
) -> dict[str, Any]:
    """The numbers of one setting.

    Keys: `rows`, `accuracy`, `parts` (means) and `part_rows` (how many rows have each),
    `well_formed` (share), `truncated`, `completion_tokens` (mean), `by_depth` (length of the gold
    path), `by_policy`, `by_task`, `by_changed` (`changed` and `unchanged`, of rows whose
    `facts.changed` says so), `by_tool` (of `facts.tool`) and `by_rule` (by policy, of each id in
    `facts.rules`), these two with `parts` and `part_rows` of their own, `majority_share` (accuracy
    of each policy's most frequent answer), `notes` (most frequent), `original_share` (override:
    rows that score higher under the replaced policy, of those where the two policies' answers
    differ) and `diagnosis`.
    """
    total = len(rows)
    notes = Counter(row["note"] for row in rows if row["note"])
    summary: dict[str, Any] = {
        "rows": total,
        "accuracy": accuracy(rows),
        **_parts(rows),
        "well_formed": sum(row["well_formed"] for row in rows) / total,
        "truncated": sum(completion.truncated for completion in completions),
        "completion_tokens": sum(completion.tokens for completion in completions) / total,
        "majority_share": majority_share(samples),
        "notes": dict(sorted(notes.items(), key=lambda item: (-item[1], item[0]))[:8]),
    }
    groups: dict[str, list[Any]] = {
        "by_depth": [_depth(sample) for sample in samples],
        "by_policy": [sample.policy for sample in samples],
        "by_task": [sample.facts.get("task") for sample in samples],
        "by_changed": [_changed(sample) for sample in samples],
    }
    for key, names in groups.items():
        found: dict[Any, list[Row]] = defaultdict(list)
        for name, row in zip(names, rows, strict=True):
            if name is not None:
                found[name].append(row)
        if key == "by_policy" and (len(found) > MOST_POLICIES or groups["by_task"][0] is not None):
            continue  # a policy of its own for each row says nothing
        if found:
            summary[key] = {str(name): accuracy(found[name]) for name in sorted(found)}
    if tools := _by_tool(samples, rows):
        summary["by_tool"] = _with_parts(tools)
    by_rule = _by_rule(samples, rows)
    if by_rule and len(by_rule) <= MOST_POLICIES:
        summary["by_rule"] = {policy: _with_parts(rules) for policy, rules in by_rule.items()}
    # Not the mean: a call with another version alone is half right under both policies.
    originals = [
        row["original"] > (row["value"] or 0) for row in rows if row.get("original") is not None
    ]
    if originals:
        share = wilson(sum(originals), len(originals))
        summary["original_share"] = share._asdict() if share else None
    diagnoses = [row["diagnosis"] for row in rows if "diagnosis" in row]
    if diagnoses:
        summary["diagnosis"] = diagnosis.summarize(diagnoses)
    return summary


def _parts(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    parts: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        for name, value in row["parts"].items():
            parts[name].append(value)
    return {
        "parts": {name: math.fsum(values) / len(values) for name, values in parts.items()},
        "part_rows": {name: len(values) for name, values in parts.items()},
    }


def _with_parts(groups: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    names = sorted(groups, key=diagnosis.in_order)
    return {name: accuracy(groups[name]) | _parts(groups[name]) for name in names}


def _by_tool(samples: Sequence[Sample], rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the tool to be called."""
    tools: dict[str, list[Row]] = defaultdict(list)
    for sample, row in zip(samples, rows, strict=True):
        if isinstance(tool := sample.facts.get("tool"), str):
            tools[tool].append(row)
    return tools


def _by_rule(samples: Sequence[Sample], rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """Rows by policy and each rule that decides them: policies have rules of the same ids."""
    found: dict[str, dict[str, list[Row]]] = {}
    for sample, row in zip(samples, rows, strict=True):
        ids = sample.facts.get("rules")
        for id in dict.fromkeys(map(str, ids if isinstance(ids, list) else ())):
            found.setdefault(sample.policy or "", {}).setdefault(id, []).append(row)
    return {policy: found[policy] for policy in sorted(found)}


def _changed(sample: Sample) -> str | None:
    changed = sample.facts.get("changed")
    return ("changed" if changed else "unchanged") if isinstance(changed, bool) else None


def majority_share(samples: Iterable[Sample]) -> float:
    """Accuracy of answering each policy's (or task's) most frequent answer every time."""
    answers: dict[Any, Counter[str]] = defaultdict(Counter)
    for sample in samples:
        answers[sample.facts.get("task") or sample.policy][sample.answer] += 1
    right = sum(max(counts.values()) for counts in answers.values())
    return right / sum(counts.total() for counts in answers.values())


def _depth(sample: Sample) -> int | None:
    path = sample.facts.get("path")
    return len(path) if isinstance(path, list) and path else None
