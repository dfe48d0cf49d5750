"""The nouns that all steps share: Sample, Completion, Score, DataFolder.

A *sample* is one request under one policy with its gold answer; a *completion* is what a model
said; a *score* is what a grader thinks of that.
"""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.policy import Policy, inside


@dataclass(frozen=True)
class Sample:
    """One request `(Q, I)` under policy `P`.

    `policy` is a policy id of the data folder (file `policies/<id>.json`), None for a task without
    a policy. `facts` (scene graph, tree path, rule ids) is for graders and reports; it never
    reaches a prompt. `images` are absolute paths.
    """

    id: str
    images: tuple[str, ...]
    query: str
    policy: str | None
    answer: str
    rationale: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, root: Path) -> dict[str, Any]:
        """The row as stored, image paths relative to `root`."""
        return {
            "id": self.id,
            "images": [Path(p).relative_to(root).as_posix() for p in self.images],
            "query": self.query,
            "policy": self.policy,
            "answer": self.answer,
            "rationale": self.rationale,
            "facts": dict(self.facts),
        }

    @classmethod
    def from_json(cls, row: Any, root: Path, where: str) -> "Sample":
        """Read one row; `where` is "file:row" for error messages.

        Raises:
            UserError: unknown, missing or mistyped field, or an image that is absent or outside.
        """
        if not isinstance(row, dict):
            raise UserError(f"{where}: a row must be a JSON object; correct the row")
        known = ("id", "images", "query", "policy", "answer", "rationale", "facts")
        for key in row:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known fields: {', '.join(known)}"
                raise UserError(f"{where}: unknown field {key!r}; {hint}")
        for key in ("id", "query", "answer"):
            if not isinstance(row.get(key), str):
                raise UserError(f"{where}: field {key!r} must be a string, found {row.get(key)!r}")
        for key in ("policy", "rationale"):
            if not isinstance(row.get(key), str | None):
                raise UserError(
                    f"{where}: field {key!r} must be a string or null, found {row[key]!r}"
                )
        images = row.get("images", [])
        if not isinstance(images, list) or not all(isinstance(p, str) for p in images):
            raise UserError(f"{where}: field 'images' must be a list of paths, found {images!r}")
        if not isinstance(row.get("facts", {}), dict):
            raise UserError(f"{where}: field 'facts' must be an object, found {row['facts']!r}")
        return cls(
            id=row["id"],
            images=tuple(str(inside(root, p, where)) for p in images),
            query=row["query"],
            policy=row.get("policy"),
            answer=row["answer"],
            rationale=row.get("rationale"),
            facts=row.get("facts", {}),
        )


@dataclass(frozen=True)
class Completion:
    """What a model wrote for one sample; `truncated`: the length limit stopped it."""

    sample_id: str
    text: str
    tokens: int = 0
    truncated: bool = False


@dataclass(frozen=True)
class Score:
    """A grader's verdict: `value` in [0, 1], or None when the completion cannot be graded.

    `parts` are named sub-scores for reports; `note` says why in words.
    """

    value: float | None
    parts: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


def read_record(file: Path, cure: str) -> Any:
    """The content of a JSON file; `cure` ends the message of a file that is none.

    Raises:
        UserError: not UTF-8, not JSON, or not readable.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error}); {cure}") from None


@dataclass(frozen=True)
class DataFolder:
    """A data set on disk: `card.json`, `policies/<id>.json`, `images/`, `<split>.jsonl`."""

    root: Path

    @cached_property
    def card(self) -> dict[str, Any]:
        """The card that the builder wrote last, so its presence marks a whole folder."""
        file = self.root / "card.json"
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such data folder; check the path")
        if not file.is_file():
            raise UserError(f"{self.root}: no card.json, so not a whole data set; build it again")
        card = read_record(file, "build the data set again")
        if not isinstance(card, dict):
            raise UserError(f"{file}: must hold a JSON object; build the data set again")
        return card

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits on disk, sorted."""
        return tuple(sorted(file.stem for file in self.root.glob("*.jsonl")))

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """All policies by id (`policies/a/b.json` has id `a/b`)."""
        base = self.root.resolve() / "policies"
        found: dict[str, Policy] = {}
        problems: list[str] = []
        for file in sorted(base.rglob("*.json")):
            try:
                record = read_record(file, "restore the file")
                policy = Policy.from_json(record, self.root.resolve(), str(file))
                found[file.relative_to(base).with_suffix("").as_posix()] = policy
            except UserError as error:
                problems += str(error).splitlines()
        if problems:
            raise UserError.join(problems)
        return found

    def read(self, split: str) -> list[Sample]:
        """All samples of a split, every row checked.

        Raises:
            UserError: all problems of the split at once, each with file and row number.
        """
        file = self.root / f"{split}.jsonl"
        if not file.is_file():
            have = ", ".join(self.splits) or "none"
            raise UserError(f"{file}: no such split; splits here: {have}")
        samples: list[Sample] = []
        problems: list[str] = []
        seen: set[str] = set()
        root = self.root.resolve()
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: not UTF-8 text ({error}); write it as UTF-8") from None
        # Not splitlines(): a JSON string may hold U+2028 and its like as they are.
        for number, line in enumerate(text.removesuffix("\n").split("\n") if text else (), 1):
            where = f"{file}:{number}"
            try:
                sample = Sample.from_json(json.loads(line), root, where)
                if sample.policy is not None and sample.policy not in self.policies:
                    near = difflib.get_close_matches(sample.policy, self.policies, 1)
                    hint = (
                        f"did you mean {near[0]!r}?"
                        if near
                        else f"add policies/{sample.policy}.json"
                    )
                    raise UserError(f"{where}: unknown policy {sample.policy!r}; {hint}")
                if sample.id in seen:
                    raise UserError(f"{where}: id {sample.id!r} appears twice; ids must be unique")
                seen.add(sample.id)
                samples.append(sample)
            except json.JSONDecodeError as error:
                problems.append(f"{where}: not JSON ({error.msg}); correct the row")
            except RecursionError:
                problems.append(f"{where}: not JSON (nested too deep); correct the row")
            except ValueError as error:  # a whole number of more digits than Python reads
                reason = str(error).partition(";")[0]
                problems.append(f"{where}: not JSON ({reason}); correct the row")
            except UserError as error:
                problems.append(str(error))
        if problems:
            raise UserError.join(problems)
        if not samples:
            raise UserError(f"{file}: the split is empty; give it at least one row")
        return samples

    def policy_of(self, sample: Sample) -> Policy | None:
        """The policy that a sample is under."""
        return None if sample.policy is None else self.policies[sample.policy]
