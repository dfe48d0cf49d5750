"""The setting `referral`: completions of `no_policy` -> judge -> scores -> summary, resumable.

judgements.jsonl   answers of a model that judges, as they arrive
policies.json      rules by id of the policies concerned, so that the exact judge can judge again
scores.jsonl       {"id", "score", "note", "parts", "unreadable", "exact"} by row
summary.json       the numbers (written last)
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trimpi import __version__
from trimpi.errors import UserError
from trimpi.evaluate.referral.agreement import agreement, nearest
from trimpi.evaluate.referral.citations import has_rules
from trimpi.evaluate.referral.exact import ExactJudge
from trimpi.evaluate.referral.judgement import NO_REASONING, TOP, Judgement, at_once
from trimpi.evaluate.referral.make import make_judge
from trimpi.evaluate.referral.model_judge import ModelJudge, answers_of
from trimpi.evaluate.referral.prompt import read_score
from trimpi.evaluate.statistics import wilson
from trimpi.evaluate.store import SCORES, SUMMARY, SettingFolder, write_rows
from trimpi.policy import Policy
from trimpi.recipe import Recipe
from trimpi.runs import digest, read_json, write_json
from trimpi.sample import Completion, DataFolder, Sample

JUDGED = "no_policy"
JUDGEMENTS, POLICIES = "judgements.jsonl", "policies.json"
Row = tuple[Sample, Policy | None, Completion]


def referral_problems(recipe: Recipe, data: DataFolder) -> list[str]:
    """What keeps a judge from judging any row of a recipe, known before a model is loaded.

    That is a judge that cannot be made, or for the exact one that no policy has rules by id. A
    policy among others without rules by id is no fault: its rows are unscored, and counted.
    """
    evaluation = recipe.evaluation
    if "referral" not in evaluation.settings:
        return []
    try:
        make_judge(evaluation.referral)
    except UserError as error:
        return str(error).splitlines()
    if evaluation.referral.judge != "exact":
        return []
    rows = data.read(evaluation.split)[: evaluation.limit][: evaluation.referral.limit]
    names = dict.fromkeys(row.policy for row in rows if row.policy is not None)
    if any(has_rules(data.policies[name]) for name in names):
        return []
    what = f"{data.root}/policies/{next(iter(names))}.json: no metadata.conditions (id -> text)"
    if not names:
        what = f"{data.root}/{evaluation.split}.jsonl: no row is under a policy"
    cure = "set evaluation.referral.judge to a model (endpoint, transformers or module:function)"
    if not names:
        cure = "take 'referral' out of evaluation.settings"
    return [f"{what}, so the exact judge of 'referral' has nothing to check; {cure}"]


def referral_notes(recipe: Recipe, data: DataFolder) -> list[str]:
    """What a user has to know of the exact judge: rows that it leaves without a score."""
    evaluation = recipe.evaluation
    if "referral" not in evaluation.settings or evaluation.referral.judge != "exact":
        return []
    rows = data.read(evaluation.split)[: evaluation.limit][: evaluation.referral.limit]
    bare = {name for name, policy in data.policies.items() if not has_rules(policy)}
    left = [row.policy for row in rows if row.policy in bare]
    if not left:
        return []
    names = list(map(str, dict.fromkeys(left)))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [
        f"evaluation.referral: {len(left)} of {len(rows)} rows are under policies without rules by "
        f"id ({', '.join(names[:3])}{more}); the exact judge gives them no score"
    ]


def refer(evaluation: Path, recipe: Recipe, data: DataFolder) -> dict[str, Any]:
    """Judge the completions of `evaluation/no_policy`, or take what is judged already.

    Args:
        evaluation: folder of an evaluation, with finished completions of `no_policy`.
        recipe: its `evaluation.referral` names the judge.
        data: the data folder, for the policies.

    Returns:
        The content of `evaluation/referral/summary.json`.

    Raises:
        UserError: no such completions, or what the judge says. Judgements so far are kept and
            summarized first, and the same call goes on.
    """
    config, folder = recipe.evaluation.referral, evaluation / "referral"
    judge = make_judge(config)
    rows, made_by = _rows(evaluation, data.policies, config.limit)
    policies = {s.policy: p.digest() for s, p, _ in rows if p is not None and s.policy}
    identity = {
        "completions": made_by,
        "judge": dict(judge.identity()),
        "rows": len(rows),
        "policies": digest(policies),
        "trimpi": __version__,
    }
    before = read_json(folder / SUMMARY)
    if isinstance(before, dict) and before.get("identity") == identity and before["complete"]:
        return before
    folder.mkdir(parents=True, exist_ok=True)
    kept = {n: data.policies[n] for n in sorted(policies)}
    write_json(
        folder / POLICIES,
        {n: {"name": p.name, "metadata": _checkable(p)} for n, p in kept.items()},
    )
    if not isinstance(judge, ModelJudge):
        found = [
            at_once(p, c) or _checked(judge.judge(s, p, c), s)  # type: ignore[arg-type]
            for s, p, c in rows
        ]
        return _write(folder, rows, found, identity)
    asked = [(s, p, c) for s, p, c in rows if p is not None and at_once(p, c) is None]
    file = folder / JUDGEMENTS
    try:
        judge.judge_all(asked, file)
    except (UserError, KeyboardInterrupt) as error:
        keys = {row[0].id: judge.key(row) for row in asked}
        done = {i: a for i, a in answers_of(file).items() if a["key"] == keys.get(i)}
        judged = [row for row in rows if row[0].id in done or at_once(row[1], row[2])]
        if judged:
            _write(folder, judged, _read(judged, done), identity, complete=False)
        if isinstance(error, KeyboardInterrupt):
            raise
        lines = str(error).splitlines()
        lines[-1] += (
            f"; {len(done)} of {len(asked)} answers are kept in {file}, and the same command goes"
            " on"
        )
        raise UserError.join(lines) from None
    return _write(folder, rows, _read(rows, answers_of(file)), identity)


def regrade(evaluation: Path) -> dict[str, Any] | None:
    """Judge again without a model: the exact judge anew, a model's answers read again.

    Returns:
        The new summary; None where `evaluation` has no judgements, or they are of a judge of the
        user's own, which stay as they are.

    Raises:
        UserError: the judgements are not complete, or a file is missing.
    """
    folder = evaluation / "referral"
    before = read_json(folder / SUMMARY)
    if not isinstance(before, dict):
        return None
    if not before["complete"]:
        raise UserError(f"{folder}: not judged to its end; run the evaluation to complete it")
    identity = before["identity"]
    stored = read_json(folder / POLICIES)
    if not isinstance(stored, dict):
        raise UserError(f"{folder / POLICIES}: missing; remove {folder} and evaluate again")
    policies = {n: Policy(p["name"], (), p["metadata"]) for n, p in stored.items()}
    rows, _ = _rows(evaluation, policies, identity["rows"])
    if identity["judge"]["judge"] == "exact":
        exact = ExactJudge()
        identity = identity | {"judge": dict(exact.identity()), "trimpi": __version__}
        found = [at_once(p, c) or exact.judge(s, p, c) for s, p, c in rows]  # type: ignore[arg-type]
        return _write(folder, rows, found, identity)
    if not (folder / JUDGEMENTS).is_file():
        return None
    found = _read(rows, answers_of(folder / JUDGEMENTS))
    return _write(folder, rows, found, identity | {"trimpi": __version__})


def _rows(
    evaluation: Path, policies: Mapping[str, Policy], limit: int | None
) -> tuple[list[Row], dict[str, Any]]:
    store = SettingFolder(evaluation / JUDGED)
    made_by = store.identity
    samples = [sample for sample, _ in store.samples()]
    completions = store.completions()
    if [c.sample_id for c in completions] != [s.id for s in samples]:
        raise UserError(
            f"{store.path}: {len(completions)} of {len(samples)} completions, or another order;"
            " run the evaluation again to complete it"
        )
    pairs = zip(samples, completions, strict=True)
    rows = [(s, policies.get(s.policy) if s.policy else None, c) for s, c in pairs]
    return rows[:limit], made_by


def _checkable(policy: Policy) -> dict[str, Any]:
    return {k: policy.metadata[k] for k in ("conditions", "unit") if k in policy.metadata}


def _checked(judgement: Any, sample: Sample) -> Judgement:
    score = getattr(judgement, "score", "")
    fits = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= TOP
    if not isinstance(judgement, Judgement) or not (score is None or fits):
        raise UserError(
            f"evaluation.referral.judge: gave {judgement!r:.80} for row {sample.id!r}; it must"
            " give a Judgement with a score from 0 to 10, or None"
        )
    return judgement


def _read(rows: Sequence[Row], answers: Mapping[str, Mapping[str, Any]]) -> list[Judgement]:
    return [
        at_once(p, c) or read_score(answers[s.id]["text"], answers[s.id]["truncated"])
        for s, p, c in rows
    ]


def _write(
    folder: Path,
    rows: Sequence[Row],
    judgements: Sequence[Judgement],
    identity: Mapping[str, Any],
    complete: bool = True,
) -> dict[str, Any]:
    by_model = identity["judge"]["judge"] != "exact"
    scores = []
    for (sample, policy, completion), found in zip(rows, judgements, strict=True):
        row: dict[str, Any] = {
            "id": sample.id,
            "score": found.score,
            "note": found.note,
            "parts": dict(found.parts),
            "unreadable": found.unreadable,
        }
        if by_model and policy is not None:
            row["exact"] = ExactJudge().judge(sample, policy, completion).score
        scores.append(row)
    write_rows(folder / SCORES, scores)
    summary = {
        "setting": "referral",
        "judge": identity["judge"]["judge"],
        "complete": complete,
        **summarize([sample for sample, _, _ in rows], scores),
        "identity": dict(identity),
    }
    write_json(folder / SUMMARY, summary)
    return summary


def summarize(samples: Sequence[Sample], scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The numbers of the setting.

    Keys: `rows`; `score` (mean with interval, 0 to 10, see `mean_score`); `unscored` and, of
    these, `unreadable` answers of a model; `no_reasoning`; `histogram`, rows by score from 0 to 10
    (halves up); `parts` (means over the rows that have each); `by_policy`; `notes` of unscored
    rows; `agreement` with the exact judge, where a model judged rows that it can judge too.
    """
    by_policy: dict[str, list[Mapping[str, Any]]] = {}
    for sample, row in zip(samples, scores, strict=True):
        if sample.policy is not None:
            by_policy.setdefault(sample.policy, []).append(row)
    counts = Counter(nearest(row["score"]) for row in scores if row["score"] is not None)
    parts: dict[str, list[float]] = {}
    for row in scores:
        for name, value in row["parts"].items():
            parts.setdefault(name, []).append(value)
    notes = Counter(row["note"] for row in scores if row["score"] is None)
    both = [r for r in scores if r["score"] is not None and r.get("exact") is not None]
    summary: dict[str, Any] = {
        "rows": len(scores),
        "score": mean_score(scores),
        "unscored": sum(row["score"] is None for row in scores),
        "unreadable": sum(row["unreadable"] for row in scores),
        "no_reasoning": sum(row["note"] == NO_REASONING for row in scores),
        "histogram": [counts[score] for score in range(TOP + 1)],
        "parts": {name: math.fsum(values) / len(values) for name, values in parts.items()},
        "by_policy": {name: mean_score(by_policy[name]) for name in sorted(by_policy)},
        "notes": dict(notes.most_common(8)),
    }
    if both:
        exact, model = ([row[name] for row in both] for name in ("exact", "score"))
        summary["agreement"] = agreement(exact, model)
    return summary


def mean_score(scores: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of the scores with its 95% interval, 0 to 10; rows without a score are left out.

    Ten times Wilson's interval of score / 10, which is too wide rather than too narrow for scores
    between the ends.
    """
    given = [row["score"] for row in scores if row["score"] is not None]
    interval = wilson(min(math.fsum(given) / TOP, len(given)), len(given))
    names = ("value", "low", "high")
    found = {n: TOP * getattr(interval, n) if interval else None for n in names}
    return {**found, "scored": len(given), "unscored": len(scores) - len(given)}
