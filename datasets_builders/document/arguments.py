"""Arguments of the document builder: typed, checked all at once, before anything is read."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from datasets_builders.document.columns import spec_problems
from datasets_builders.document.delimited import NAMES
from datasets_builders.document.tables import FORMS, HUB_ID
from datasets_builders.generators import Spec, spec_problem
from datasets_builders.hints import hint
from datasets_builders.policy_text import settings_problems
from trimpi.errors import UserError

POLICY_ID = re.compile(r"[\w-][\w.-]*")
SPLIT = re.compile(r"[A-Za-z][\w-]{0,63}")


@dataclass(frozen=True)
class Arguments:
    """What `build` takes beside the folder and the seed. Paths are relative to the recipe, or to
    the working directory where there is none.
    """

    policy: str | Mapping[str, str] = ""
    """A policy file, or several by the ids that data call them by. Required."""
    examples: str | Mapping[str, str] = ""
    """A table (.jsonl, .json, .csv, .tsv, .parquet), a folder saved by `datasets`, a hub id
    (`owner/name`, `owner/name@revision`), or one of these a split. Required."""
    columns: Mapping[str, Any] = field(default_factory=dict)
    """Our fields (id, images, query, answer, policy, rationale, rules, split, facts) to columns of
    the table; a field that is not named has the column of its name. `facts`: a list of columns,
    or attributes to columns."""
    grader: Any = "trimpi.grading:exact_answer"
    """As the recipe's; in a recipe it is taken from there."""
    splits: Mapping[str, float] = field(default_factory=lambda: {"train_cot": 0.8, "test": 0.2})
    """Shares by which rows are dealt that name no split."""
    override: str | Mapping[str, Any] | None = None
    """Another version of the policy, for the split `override`: its file, or {policy, examples}.
    Without examples, the test rows are decided by its checkable rules."""
    query: str | None = None
    """The request of rows that have none; `{policy}` stands for the policy's name."""
    delimiter: str | None = None
    """What separates fields of a CSV file; null finds it."""
    reasons: bool = True
    """Write rationales from checkable rules for rows that have none."""
    trust: str = "rules"
    """"rules": a label that the rules contradict is refused; "labels": kept, with a warning."""
    generate: Spec | None = None
    """Rationales of `train_cot` by a model: `module:name` of a function that makes a generator, or
    a mapping of that `name` and the function's arguments."""
    cot: str = "reverse"
    """With `generate`: "reverse" shows the answer and asks for reasons, "forward" lets the model
    solve the rows and keeps what the grader accepts."""
    cot_tokens: int = 512
    """With `generate`: most new tokens of a rationale."""
    policy_text: Mapping[str, Any] | None = None
    """Texts about the policies for VM-CPT, `{per_rule: 8, ...}`; null leaves the split out."""

    @property
    def policy_files(self) -> dict[str | None, str]:
        """Policy files by id; the id None is made from the policy's name."""
        return _by_name(self.policy)

    @property
    def sources(self) -> dict[str | None, str]:
        """Tables by the split that they are; None for rows that name their own or none."""
        return _by_name(self.examples)

    @property
    def override_files(self) -> dict[str | None, str]:
        """Policy files of the override by id."""
        given = self.override
        files = given.get("policy") if isinstance(given, Mapping) else given
        return _by_name(files) if files else {}

    @property
    def override_sources(self) -> dict[str | None, str]:
        """Tables of the override."""
        given = self.override.get("examples") if isinstance(self.override, Mapping) else None
        return {"override": given} if given else {}


def _by_name(paths: str | Mapping[str, str]) -> dict[str | None, str]:
    if isinstance(paths, Mapping):
        return dict(paths.items())
    return {None: paths}


def located(args: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Arguments with paths made absolute against a folder; hub ids stay."""
    found = dict(args)
    for name in ("policy", "examples"):
        if name in found:
            found[name] = _located(found[name], folder, name == "examples")
    override = found.get("override")
    if isinstance(override, Mapping):
        found["override"] = {
            key: _located(value, folder, key == "examples") for key, value in override.items()
        }
    elif override is not None:
        found["override"] = _located(override, folder, False)
    return found


def _located(value: Any, folder: Path, table: bool) -> Any:
    if isinstance(value, Mapping):
        return {key: _located(item, folder, table) for key, item in value.items()}
    if not isinstance(value, str) or not value:
        return value
    path = folder / Path(value).expanduser()
    like_hub = HUB_ID.fullmatch(value) and not value.lower().endswith(FORMS)
    if table and like_hub and not path.exists():
        return value
    return str(path.resolve())


def parse(args: Mapping[str, Any]) -> Arguments:
    """Check the form of all arguments.

    Raises:
        UserError: every wrong argument, one a line.
    """
    known = [f.name for f in fields(Arguments)]
    problems = [f"{key}: unknown argument; {hint(key, known)}" for key in args if key not in known]
    problems += _path_problems("policy", args.get("policy"), POLICY_ID)
    problems += _path_problems("examples", args.get("examples"), SPLIT)
    problems += spec_problems(args.get("columns", {}))
    problems += _share_problems(args.get("splits", {"train_cot": 1.0}))
    problems += _override_problems(args.get("override"))
    for key, choices in (("trust", ("rules", "labels")), ("cot", ("forward", "reverse"))):
        if args.get(key, choices[0]) not in choices:
            problems.append(f"{key}: must be {' or '.join(choices)}, found {args[key]!r}")
    if not isinstance(args.get("reasons", True), bool):
        problems.append(f"reasons: must be true or false, found {args['reasons']!r}")
    if not isinstance(args.get("query"), str | None):
        problems.append(f"query: must be a text or null, found {args['query']!r}")
    if args.get("delimiter") not in (None, *NAMES):
        named = ", ".join(NAMES.values())
        problems.append(f"delimiter: must be one of {named} or null, found {args['delimiter']!r}")
    if problem := spec_problem(args.get("generate")):
        problems.append(f"generate: {problem}")
    if type(args.get("cot_tokens", 1)) is not int or args.get("cot_tokens", 1) < 1:
        problems.append(
            f"cot_tokens: must be a whole number from 1 on, found {args['cot_tokens']!r}"
        )
    problems += settings_problems(args.get("policy_text"))
    if problems:
        raise UserError.join(problems)
    return Arguments(**args)


def _path_problems(key: str, value: Any, name: re.Pattern[str]) -> list[str]:
    if isinstance(value, str) and value:
        return []
    if isinstance(value, Mapping) and value:
        problems = [
            f"{key}.{id}: must be a path, found {path!r}"
            for id, path in value.items()
            if not isinstance(path, str) or not path
        ]
        return problems + [
            f"{key}.{id}: {id!r} must be letters, digits, '-' and '_'"
            for id in value
            if not isinstance(id, str) or not name.fullmatch(id)
        ]
    if value is None or value == "":
        return [f"{key}: required argument is missing"]
    return [f"{key}: must be a path or a mapping of names to paths, found {value!r}"]


def _share_problems(splits: Any) -> list[str]:
    if not isinstance(splits, Mapping) or not splits:
        return [f"splits: must map splits to shares, found {splits!r}"]
    problems = [
        f"splits.{name}: must be a number above 0 and up to 1, found {share!r}"
        for name, share in splits.items()
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1
    ]
    problems += [
        f"splits.{name}: must begin with a letter and hold letters, digits, '-' and '_'"
        for name in splits
        if not isinstance(name, str) or not SPLIT.fullmatch(name)
    ]
    if not problems and abs(sum(splits.values()) - 1) > 1e-6:
        problems.append(f"splits: the shares add up to {sum(splits.values()):g}; make them 1")
    return problems


def _override_problems(override: Any) -> list[str]:
    if isinstance(override, Mapping):
        problems = [
            f"override.{key}: unknown key; {hint(key, ('policy', 'examples'))}"
            for key in override
            if key not in ("policy", "examples")
        ]
        problems += _path_problems("override.policy", override.get("policy"), POLICY_ID)
        if not isinstance(override.get("examples"), str | None):
            problems.append(f"override.examples: must be a path, found {override['examples']!r}")
        return problems
    if override is None or (isinstance(override, str) and override):
        return []
    return [f"override: must be a policy file or {{policy, examples}}, found {override!r}"]
