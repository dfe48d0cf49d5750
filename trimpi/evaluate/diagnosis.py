"""Error analysis of the reasoning: where it first goes wrong, and which conditions it cites.

A recipe's `evaluation.diagnose` names a function (sample, completion) -> mapping with
`first_error` (a name, "none" for reasoning without fault), `gold_path` (whether the walk is the
gold walk), `cited` and `gold` (condition ids walked, and to be walked), and, if it can tell,
`steps` (gold steps done before the first error) and `confusion` (null, or what was taken for what:
`gold` and `said`, two labels of one `group`).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.statistics import wilson
from trimpi.sample import Completion, Sample

Diagnose = Callable[[Sample, Completion], Mapping[str, Any]]

FIRST_ERRORS = ("none", "format", "recall", "perception", "branching", "final")
"""First errors of a walk through conditions, in the order of showing."""
CALL_ERRORS = ("none", "format", "tool", "version", "argument", "rule")
"""First errors of a tool call, which has a `confusion` too."""


def diagnose_one(diagnose: Diagnose, sample: Sample, completion: Completion) -> dict[str, Any]:
    """The diagnosis of one completion, its fields checked.

    Raises:
        UserError: the function fails on the sample, leaves a field out, or gives a `confusion`
            that is none.
    """
    name = getattr(diagnose, "__qualname__", repr(diagnose))
    try:
        found = dict(diagnose(sample, completion))
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"evaluation.diagnose: {name} fails on sample {sample.id!r}"
            f" ({type(error).__name__}: {error}); correct it, or drop the key"
        ) from error
    missing = [key for key in ("first_error", "gold_path", "cited", "gold") if key not in found]
    if missing:
        raise UserError(
            f"evaluation.diagnose: {name} returns no {missing[0]!r}; see trimpi.evaluate.diagnosis"
        )
    confusion = found.get("confusion")
    if confusion is not None and not (
        isinstance(confusion, Mapping)
        and all(isinstance(confusion.get(key), str) for key in ("group", "gold", "said"))
    ):
        raise UserError(
            f"evaluation.diagnose: {name} returns a 'confusion' that is neither None nor texts for"
            " 'group', 'gold' and 'said'; see trimpi.evaluate.diagnosis"
        )
    return found


def summarize(diagnoses: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of first errors, gold-path accuracy and the citation difference of the paper.

    `citation_difference` is the mean over conditions of |times cited - times that gold cites it|
    (paper, evaluation 7), conditions of all policies pooled by number. The mean goes over the
    conditions that gold walks cite: those that a model makes up would dilute it, and are counted as
    `invented_citations`. It grows with the number of rows, so `citation_difference_per_100` gives
    it for 100 rows too. `reached` is the share of rows that get their first k decisions right, by
    k, of the rows that have so many. `confusions` counts labels as `{group: {gold: {said: n}}}`.
    """
    rows = list(diagnoses)
    calls = any("confusion" in row for row in rows)
    errors: Counter[str] = Counter(dict.fromkeys(CALL_ERRORS if calls else FIRST_ERRORS, 0))
    cited: Counter[str] = Counter()
    gold: Counter[str] = Counter()
    for row in rows:
        errors[str(row["first_error"])] += 1
        cited.update(row["cited"])
        gold.update(row["gold"])
    names = sorted(cited.keys() | gold.keys(), key=in_order)
    gap = sum(abs(cited[n] - gold[n]) for n in gold) / len(gold) if gold else 0.0
    path = wilson(sum(bool(row["gold_path"]) for row in rows), len(rows))
    summary = {
        "rows": len(rows),
        "first_errors": dict(errors),
        "gold_path": path._asdict() if path else None,
        "citation_difference": gap,
        "citation_difference_per_100": 100 * gap / len(rows) if rows else None,
        "invented_citations": sum(cited[name] for name in names if name not in gold),
        "reached": _reached(rows),
        "citations": {name: {"model": cited[name], "gold": gold[name]} for name in names},
    }
    if calls:
        summary["confusions"] = _confusions(rows)
    return summary


def _confusions(rows: list[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, Counter[str]]] = {}
    for row in rows:
        if one := row.get("confusion"):
            counts = found.setdefault(one["group"], {}).setdefault(one["gold"], Counter())
            counts[one["said"]] += 1
    return {
        group: {gold: dict(sorted(table[gold].items())) for gold in sorted(table)}
        for group, table in sorted(found.items())
    }


def _reached(rows: list[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    if not all(isinstance(row.get("steps"), int) for row in rows):
        return {}
    deepest = max((len(row["gold"]) for row in rows), default=0)
    found = {}
    for depth in range(1, deepest + 1):
        steps = [row["steps"] for row in rows if len(row["gold"]) >= depth]
        share = wilson(sum(count >= depth for count in steps), len(steps))
        if share is not None:
            found[str(depth)] = {**share._asdict(), "scored": len(steps)}
    return found


def in_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key: 1.2 before 1.10, v2 before v10; digits as text, since there may be thousands."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    digits = [piece.lstrip("0") if piece.isdecimal() else None for piece in pieces]
    return tuple(
        (1, 0, piece) if number is None else (0, len(number), number)
        for piece, number in zip(pieces, digits, strict=True)
    )
