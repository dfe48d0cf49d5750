"""All that a document data set is made of, read and checked in one pass."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets_builders.document.arguments import Arguments
from datasets_builders.document.deal import deal
from datasets_builders.document.examples import Labelled, Reading, check_ids
from datasets_builders.document.findings import Findings
from datasets_builders.document.labels import (
    check_contradictions,
    check_grades,
    check_pictures,
)
from datasets_builders.document.responses import check_responses
from datasets_builders.document.rulings import apply_rules
from datasets_builders.document.tables import is_hub_id
from datasets_builders.document.versions import moved
from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.grading import Grader
from trimpi.policy import Policy
from trimpi.policy_file import read_policy_file

OVERRIDE = "override"


@dataclass(frozen=True)
class Material:
    """Policies and examples, ready to be written; `warnings` are for the card."""

    grader: Grader
    policies: Mapping[str, Policy]
    examples: Sequence[Labelled]
    override: Sequence[Labelled]
    warnings: tuple[str, ...]

    @property
    def splits(self) -> dict[str, int]:
        """Rows a split."""
        rows = [*self.examples, *self.override]
        return dict(sorted(Counter(str(example.split) for example in rows).items()))


def read_policies(files: Mapping[str | None, str], found: Findings) -> dict[str, Policy]:
    """Policies by id; that of the id None is its name in small letters."""
    policies: dict[str, Policy] = {}
    for id, file in files.items():
        try:
            policy = read_policy_file(Path(file))
        except UserError as error:
            found.add_error(error)
            continue
        policies[id or slug(policy.name)] = policy
        if not policy.metadata.get("conditions"):
            found.warn(
                file,
                "no rules with ids (such as **R1.**), so there are no reasons from rules, no rule "
                "coverage and no recital probe",
            )
    return policies


def slug(name: str) -> str:
    """A policy's name as an id: "Returns desk" -> "returns-desk"."""
    return re.sub(r"[^\w.]+", "-", name.lower()).strip("-.") or "policy"


def read_material(arguments: Arguments, seed: int) -> Material:
    """Read policies and tables and check every row.

    Raises:
        UserError: all problems of all rows (the first 50 in words).
    """
    found = Findings()
    policies = read_policies(arguments.policy_files, found)
    newer = read_policies(arguments.override_files, found)
    grader = None
    try:
        grader = make_grader(arguments.grader, "grader")
    except UserError as error:
        found.add_error(error)
    whole = len(policies) == len(arguments.policy_files)
    whole_newer = len(newer) == len(arguments.override_files)
    examples = read_tables(arguments, arguments.sources, policies if whole else {}, found)
    over = read_tables(arguments, arguments.override_sources, newer if whole_newer else {}, found)
    if not (whole and whole_newer):  # what needs no policy is told with what is wrong with theirs
        check_pictures([*examples, *over], found)
        if grader is not None:
            check_grades(examples, grader, found)
            check_grades(over, grader, found)
        found.stop_if_faulty()
    examples, digests = _checked(examples, policies, arguments, grader, found)
    reasoned = arguments.generate is not None
    examples = deal(examples, digests, arguments.splits, seed, reasoned, found)
    _same_ids(policies, newer, found)
    if arguments.override_sources:
        over, _ = _checked(over, newer, arguments, grader, found)
        over = [replace(example, split=OVERRIDE) for example in over]
    elif newer:
        tested = [example for example in examples if example.split == "test"]
        over = moved(tested, policies, newer, found)
        if grader is not None:
            check_grades(over, grader, found)
    policies = check_responses(examples, policies, arguments.trust, found)
    newer = check_responses(over, newer, arguments.trust, found)
    found.stop_if_faulty()
    assert grader is not None
    all_policies = {**policies, **{f"{OVERRIDE}/{id}": policy for id, policy in newer.items()}}
    over = [replace(example, policy=f"{OVERRIDE}/{example.policy}") for example in over]
    return Material(grader, all_policies, examples, over, tuple(_short(found.warnings)))


def read_tables(
    arguments: Arguments,
    sources: Mapping[str | None, str],
    policies: Mapping[str, Policy],
    found: Findings,
) -> list[Labelled]:
    """All rows of tables; without policies, where these do not read, as `Reading` says."""
    reading = Reading(arguments.columns, policies, arguments.delimiter, arguments.query)
    examples: list[Labelled] = []
    for split, source in sources.items():
        examples += reading.read(source, split, found)
    check_ids(examples, found)
    return examples


def _checked(
    examples: list[Labelled],
    policies: Mapping[str, Policy],
    arguments: Arguments,
    grader: Grader | None,
    found: Findings,
) -> tuple[list[Labelled], list[tuple[str, ...]]]:
    write = arguments.reasons and arguments.generate is None
    digests = check_pictures(examples, found)
    if grader is not None:
        check_grades(examples, grader, found)
    examples = apply_rules(examples, policies, arguments.trust, write, found)
    check_contradictions(examples, digests, policies, found)
    return examples, digests


def _same_ids(policies: Mapping[str, Policy], newer: Mapping[str, Policy], found: Findings) -> None:
    for id, policy in newer.items():
        if id not in policies:
            found.add(
                "override",
                f"policy {policy.name!r} has the id {id!r}, known are {', '.join(policies)}; an "
                "override is another version of a policy, of the same name",
            )
        elif policies[id].name != policy.name:
            found.add("override", f"calls policy {policies[id].name!r} {policy.name!r}; keep names")


def _short(warnings: Sequence[str]) -> list[str]:
    distinct = list(dict.fromkeys(warnings))
    more = len(distinct) - 50
    return distinct[:50] + ([f"... and {more} more warnings"] if more > 0 else [])


def content(arguments: Arguments) -> dict[str, Any]:
    """What the data follow from: SHA-256 of policies and examples, whatever their files are called.

    Raises:
        UserError: a file does not read.
    """
    found = Findings()
    policies = read_policies(arguments.policy_files, found)
    newer = read_policies(arguments.override_files, found)
    found.stop_if_faulty()  # what else is wrong is told by the build

    def digests(
        sources: Mapping[str | None, str], policies: Mapping[str, Policy]
    ) -> dict[str, str]:
        return {
            split or "": source
            if is_hub_id(source)  # not fetched to be compared; a revision pins it
            else _digest_of_rows(read_tables(arguments, {split: source}, policies, found))
            for split, source in sources.items()
        }

    told = {
        "policies": {id: _digest_of_policy(policy) for id, policy in policies.items()},
        "newer": {id: _digest_of_policy(policy) for id, policy in newer.items()},
        "examples": digests(arguments.sources, policies),
        "override": digests(arguments.override_sources, newer),
    }
    found.stop_if_faulty()
    return told


def _digest_of_policy(policy: Policy) -> str:
    told = json.dumps(policy.metadata, sort_keys=True, default=str)
    return hashlib.sha256(f"{policy.digest()} {told}".encode()).hexdigest()


def _digest_of_rows(rows: Sequence[Labelled]) -> str:
    sha = hashlib.sha256()
    for row in rows:
        told = [row.id, row.query, row.answer, row.policy, row.rationale, row.rules, row.split]
        sha.update(json.dumps([*told, row.facts], sort_keys=True, default=str).encode())
        for picture in row.pictures:
            sha.update(hashlib.sha256(picture.read()).digest())
    return sha.hexdigest()
