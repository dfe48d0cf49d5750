"""A result folder as scores by row: a benchmark's suite, or a setting of an evaluation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

from trimpi.errors import UserError
from trimpi.evaluate.store import SAMPLES, SCORES, SUMMARY, SettingFolder, read_rows
from trimpi.runs import STARTED, read_json
from trimpi.sample import Sample

CONDITIONS = ("config", "shots", "mode", "extraction")
"""Settings of a suite that make its prompts, or the reading of its answers, other ones."""

REFERRAL, JUDGED, TOP = "referral", "no_policy", 10
"""The setting that judges from 0 to `TOP` the completions of `JUDGED` in the folder beside its own.
"""


@dataclass(frozen=True)
class Measured:
    """What one model scored in one suite or setting.

    Attributes:
        name: of the suite or setting.
        values: scores in [0, 1] by row. Of a suite, an answer that is not found counts as wrong, as
            in its accuracy; of judged suites and of settings, what was not graded is in `unscored`.
        unparsed: rows of a suite whose answer was not found.
        unscored: rows without a score.
        categories: by row: category of a suite, task or tool of a setting's row.
        asked: rows that were to be answered.
        content: digest of all prompts and gold answers; "" where it is not known.
        conditions: what must agree for a comparison; `limit`, `target` and `sections` (of a policy,
            that retrieval shows at most) may differ, and are told.
    """

    name: str
    kind: Literal["suite", "setting"]
    folder: Path
    values: Mapping[str, float]
    unparsed: frozenset[str]
    unscored: frozenset[str]
    categories: Mapping[str, str]
    asked: int
    content: str
    conditions: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    target: str = ""
    sections: int | None = None
    golds: Mapping[str, str] = field(default_factory=dict)

    @property
    def partial(self) -> bool:
        """Some rows are not answered yet."""
        return len(self.values) + len(self.unscored) < self.asked

    @cached_property
    def rows(self) -> Mapping[str, str]:
        """By row, what identifies its question: digest of the texts and pictures, or gold alone."""
        if self.kind == "suite":
            return self.golds
        return {s.id: _question(s) for s, _ in _asked(self.folder, self.name).samples()}


def read_measured(folder: Path) -> Measured:
    """Read a suite's or a setting's folder.

    Raises:
        UserError: it is none, is not scored, or a file in it is broken.
    """
    summary = read_json(folder / SUMMARY)
    if not (folder / SCORES).is_file() or not isinstance(summary, dict):
        raise UserError(f"{folder}: holds no scores yet; run its evaluation again to complete it")
    rows = read_rows(folder / SCORES)
    made_by = read_json(folder / STARTED) or {}
    try:
        found = _reader(summary)(folder, summary, rows, made_by)
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / SCORES}: not the scores of a suite or setting ({error!r}); "
            "run its evaluation again"
        ) from None
    if odd := [id for id, value in found.values.items() if not 0 <= value <= 1]:
        raise UserError(
            f"{folder / SCORES}: row {odd[0]!r} scores {found.values[odd[0]]:g}; "
            "only scores from 0 to 1 can be compared"
        )
    return found


def is_result(folder: Path) -> bool:
    """A suite's or a setting's folder with scores or completions; `efficiency` scores no rows."""
    if ".old-" in folder.name:
        return False
    if not (folder / STARTED).is_file():  # judgements are of completions that another folder has
        summary = read_json(folder / SUMMARY)
        return isinstance(summary, dict) and summary.get("setting") == REFERRAL
    made_by = read_json(folder / STARTED)
    return isinstance(made_by, dict) and ("suite" in made_by or (folder / SAMPLES).is_file())


def _reader(summary: Mapping[str, Any]) -> Callable[..., Measured]:
    if "suite" in summary:
        return _suite
    return _referral if summary.get("setting") == REFERRAL else _setting


def _asked(folder: Path, name: str) -> SettingFolder:
    """The folder that holds the rows of a setting."""
    if name != REFERRAL:
        return SettingFolder(folder)
    if not (folder.parent / JUDGED / SAMPLES).is_file():
        raise UserError(f"{folder}: judges {folder.parent / JUDGED}, which is gone; restore it")
    return SettingFolder(folder.parent / JUDGED)


def _suite(
    folder: Path, summary: Mapping[str, Any], rows: list[dict[str, Any]], made_by: Any
) -> Measured:
    nothing = frozenset(row["id"] for row in rows if row["score"] is None)
    judged = "harmful" in summary
    settings = summary["settings"]
    return Measured(
        name=summary["suite"],
        kind="suite",
        folder=folder,
        values={
            row["id"]: float(row["score"] or 0.0)
            for row in rows
            if not (judged and row["score"] is None)
        },
        unparsed=frozenset() if judged else nothing,
        unscored=nothing if judged else frozenset(),
        categories={row["id"]: str(row["category"]) for row in rows},
        asked=int(summary.get("asked", len(rows))),
        content=str(made_by.get("items", "")),
        conditions={
            **{key: settings[key] for key in CONDITIONS if key in settings},
            **({"judge": settings["judge"]} if "judge" in settings else {}),
        },
        limit=settings.get("max_new_tokens"),
        golds={row["id"]: str(row["gold"]) for row in rows},
    )


def _setting(
    folder: Path, summary: Mapping[str, Any], rows: list[dict[str, Any]], made_by: Any
) -> Measured:
    categories = {}
    for sample, _ in SettingFolder(folder).samples():
        name = sample.facts.get("task") or sample.facts.get("tool") or sample.policy
        if isinstance(name, str):
            categories[sample.id] = name
    grader = (summary.get("identity") or {}).get("grader")
    return Measured(
        name=summary["setting"],
        kind="setting",
        folder=folder,
        values={row["id"]: float(row["value"]) for row in rows if row["value"] is not None},
        unparsed=frozenset(),
        unscored=frozenset(row["id"] for row in rows if row["value"] is None),
        categories=categories,
        asked=int(summary["rows"]),
        content=str(made_by.get("prompts", "")),
        conditions={"grader": grader},
        limit=made_by.get("max_new_tokens"),
        target=summary["target"],
        sections=(summary.get("retrieval") or {}).get("sections"),
    )


def _referral(
    folder: Path, summary: Mapping[str, Any], rows: list[dict[str, Any]], _: Any
) -> Measured:
    """Scores of 0 to 10 as shares of 1; another judge, or other settings of it, pairs with none."""
    identity = summary["identity"]
    scores = {row["id"]: row["score"] for row in rows}
    policies = {s.id: s.policy for s, _ in _asked(folder, REFERRAL).samples()}
    return Measured(
        name=REFERRAL,
        kind="setting",
        folder=folder,
        values={id: score / TOP for id, score in scores.items() if score is not None},
        unparsed=frozenset(),
        unscored=frozenset(id for id, score in scores.items() if score is None),
        categories={id: name for id in scores if (name := policies[id]) is not None},
        asked=int(identity["rows"]),
        content=str(identity["completions"].get("prompts", "")),
        conditions={"judge": identity["judge"], "policies": identity["policies"]},
        limit=identity["completions"].get("max_new_tokens"),
        target=str(identity["completions"].get("target", "")),
    )


def _question(sample: Sample) -> str:
    """Query, gold answer, policy and pictures; a picture that is gone counts by its name."""
    sha = sha256()
    for text in (sample.query, sample.answer, sample.policy or ""):
        sha.update(text.encode() + b"\0")
    for image in map(Path, sample.images):
        sha.update(image.read_bytes() if image.is_file() else image.name.encode())
    return sha.hexdigest()
