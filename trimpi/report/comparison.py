"""One suite or setting under two models: is it the same question, how much changed, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.verdict import verdict_line
from trimpi.report.measured import REFERRAL, Measured
from trimpi.report.paired import change, mean_by_row, pair
from trimpi.runs import differences

SHOWN = 3
"""Ids of rows that a message names."""


def compare(
    before: Sequence[Measured], after: Sequence[Measured], name: str | None = None
) -> dict[str, Any]:
    """`after` minus `before`, row by row.

    Args:
        before: one suite or setting of one model; several are its seeds.
        after: the same of the other model.
        name: what the verdict line calls it; None leaves it to `called`.

    Returns:
        `name`, `called` (in the line), `kind`, `before` and `after` (each `folders`, `seeds`,
        `rows`, `asked`, `unparsed`, `unscored`, over all seeds, and `accuracy`, of all its rows),
        `all` and `by_task` (see `paired.change`), `only_before` and `only_after` (rows), `left_out`
        (rows in both that lack a score), `parsed` (the difference where both answers were found,
        if any was not), `partial`, `notes` and `line`.

    Raises:
        UserError: other questions or gold answers, other reading or grading, or no shared row.
    """
    problems = _problems([*before, *after])
    if problems:
        raise UserError.join(problems)
    first, second = (mean_by_row([m.values for m in side]) for side in (before, after))
    categories = {id: c for m in (*after, *before) for id, c in m.categories.items()}
    found = change(first, second, categories)
    if found is None:
        raise UserError(
            f"{before[0].folder} and {after[0].folder}: no row is scored in both; "
            "evaluate both on the same rows"
        )
    known = [{id for m in side for id in (*m.values, *m.unscored)} for side in (before, after)]
    unparsed = {id for m in (*before, *after) for id in m.unparsed}
    parsed = None
    if unparsed:
        rest = [{i: v for i, v in side.items() if i not in unparsed} for side in (first, second)]
        verdict = pair(rest[0], rest[1])
        parsed = verdict and verdict.to_json()
    name = name or called(before[0])
    partial = any(m.partial for m in (*before, *after))
    return {
        "name": before[0].name,
        "called": name,
        "kind": before[0].kind,
        "before": _side(before, first),
        "after": _side(after, second),
        **found,
        "only_before": len(known[0] - known[1]),
        "only_after": len(known[1] - known[0]),
        "left_out": len(known[0] & known[1]) - found["all"]["rows"],
        "parsed": parsed,
        "partial": partial,
        "notes": _notes(before, after),
        "line": verdict_line(name, found["all"]["difference"])
        + (" of a partial result" if partial else ""),
    }


def called(measured: Measured) -> str:
    """The name in a verdict line; general abilities are asked for what was forgotten."""
    if measured.name == REFERRAL:
        return "referral (a score of 10 is 100 points)"
    general = measured.kind == "suite" or measured.name == "skills"
    return f"forgetting ({measured.name})" if general else measured.name


def told(found: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of a comparison beside its numbers, one sentence a line."""
    lines = []
    sides = (("before", found["before"]), ("after", found["after"]))
    for word, side in sides:
        if side["rows"] < side["asked"]:
            lines.append(
                f"partial: {word}, {side['rows']:,} of {side['asked']:,} rows are answered so far"
            )
    pairs = found["all"]["rows"]
    for word, key in (("before", "only_before"), ("after", "only_after")):
        if found[key]:
            lines.append(f"{pairs:,} rows pair; {found[key]:,} are {word} alone and left out")
    if found["left_out"]:
        lines.append(f"{found['left_out']:,} rows without a score on a side are left out")
    if found["parsed"] or any(side["unparsed"] for _, side in sides):
        line = (
            f"answers not found, counted as wrong: {found['before']['unparsed']:,} before,"
            f" {found['after']['unparsed']:,} after"
        )
        lines.append(line)
        if found["parsed"]:
            lines.append(verdict_line("where both were found", found["parsed"]))
    return lines + list(found["notes"])


def _side(measured: Sequence[Measured], values: Mapping[str, float]) -> dict[str, Any]:
    return {
        "folders": [str(m.folder) for m in measured],
        "seeds": len(measured),
        "rows": sum(len(m.values) + len(m.unscored) for m in measured),
        "asked": sum(m.asked for m in measured),
        "unparsed": sum(len(m.unparsed) for m in measured),
        "unscored": sum(len(m.unscored) for m in measured),
        "accuracy": sum(values.values()) / len(values) if values else None,
    }


def _problems(measured: Sequence[Measured]) -> list[str]:
    """Why these are not the same questions, read in the same way; each against the first."""
    first, problems = measured[0], []
    for other in measured[1:]:
        both = f"{first.folder} and {other.folder}"
        if other.kind != first.kind or (other.kind == "suite" and other.name != first.name):
            problems.append(f"{both}: {first.name} against {other.name}; compare one with itself")
            continue
        # a grader that an older version did not record is no fault
        known = {k for k, v in first.conditions.items() if v is not None}
        known &= {k for k, v in other.conditions.items() if v is not None}
        here, there = ({k: m.conditions[k] for k in sorted(known)} for m in (first, other))
        if here != there:
            what = differences(here, there)
            problems.append(f"{both}: not read or graded alike ({what}); evaluate both alike")
            continue
        if other.content and other.content == first.content:
            continue
        shared = [id for id in first.rows if id in other.rows]
        changed = [id for id in shared if first.rows[id] != other.rows[id]]
        if changed:
            more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
            problems.append(
                f"{both}: questions or gold answers differ in {len(changed)} of {len(shared)} "
                f"shared rows ({', '.join(changed[:SHOWN])}{more}); evaluate both on the same data"
            )
        elif first.kind == "suite" and set(first.golds) == set(other.golds):
            problems.append(
                f"{both}: the same ids, but other prompts, options or pictures; "
                "evaluate both from the same source"
            )
    return problems


def _notes(before: Sequence[Measured], after: Sequence[Measured]) -> list[str]:
    notes = []
    kept = {
        "limit": "most tokens of an answer",
        "target": "response asked for",
        "sections": "sections of the policy that retrieval shows",
    }
    for key, words in kept.items():
        here, there = ({getattr(m, key) for m in side} for side in (before, after))
        if here != there and None not in here | there:
            notes.append(f"{words}: {_list(here)} before, {_list(there)} after")
    if before[0].name != after[0].name:
        notes.append(f"setting: {before[0].name} before, {after[0].name} after")
    if len(before) > 1 or len(after) > 1:
        notes.append(
            f"seeds averaged row by row: {len(before)} before, {len(after)} after; "
            "intervals are over rows, for these seeds"
        )
    return notes


def _list(values: set[Any]) -> str:
    return ", ".join(sorted(map(str, values)))
