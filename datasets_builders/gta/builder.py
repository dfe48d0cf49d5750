"""The GTAPolicy builder: from a GTA folder to single-step requests under versioned rules.

Each call of a task is one row: pictures, a user profile, the query, the calls before it with their
results, and the policy's name; the gold answer is the next call as the rules ask for it. Rows of
one task, and of tasks that share a picture, are never on both sides of the split.
"""

import hashlib
import math
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from datasets_builders.base import (
    check_gold,
    code_digest,
    seal,
    staged,
    write_policies,
    write_split,
)
from datasets_builders.cot import Generate, reverse_cot
from datasets_builders.generators import resolve_generate, spec_problem
from datasets_builders.gta import wording
from datasets_builders.gta.embedded import RELEASE
from datasets_builders.gta.grader import grade
from datasets_builders.gta.material import Material, left_out_note, read_material
from datasets_builders.gta.near_misses import near_misses
from datasets_builders.gta.oracle import RuledStep, apply_rules
from datasets_builders.gta.profiles import coverage, draw_profiles, never_used
from datasets_builders.gta.rules import Profile, VersionRules
from datasets_builders.gta.source import Source, Task, source_digest
from datasets_builders.gta.special import SpecialRule
from datasets_builders.gta.split import split_tasks
from datasets_builders.gta.verification import verify as verify
from datasets_builders.policy_text import (
    SPLIT,
    count_texts,
    read_policy_text,
    settings_problems,
    text_counts,
)
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import DataFolder, Sample

BUILDER = "datasets_builders.gta.builder:build"
RULES = Path(__file__).with_name("rules.yaml")


@dataclass(frozen=True)
class Arguments:
    """What `build` takes beside the folder and the seed."""

    source: str | None = None
    """A GTA folder: dataset.json, toolmeta.json, image/; relative to the working directory. Null
    takes the tasks that ship with the package."""
    rules: str | None = None
    """A rule file; null: the paper's rules (datasets_builders/gta/rules.yaml)."""
    name: str = "Velkar"
    """The policy's name, which requests call it by."""
    test_share: float = 0.2
    """Share of the tasks to test on, at least one."""
    profiles: int = 1
    """User profiles a task; each gives a row for every call."""
    skip_missing: bool = False
    """Leave tasks out whose pictures are not there."""
    skip_faulty: bool = False
    """Leave tasks out that have any fault of their own, missing pictures included."""
    thoughts: bool = True
    """Rationales from the rules begin with the source's reason for the call, where it gives one."""
    generate: str | Mapping[str, Any] | None = None
    """Reverse CoT: `module:name` of a function that makes a generator, or a mapping of that `name`
    and the function's arguments; null: from the rules."""
    cot_tokens: int = 512
    """Reverse CoT: most new tokens of a rationale."""
    policy_text: Mapping[str, Any] | None = None
    """Texts about the policy for VM-CPT, `{per_rule: 8, oversample: 3, generate: null}`; null
    leaves the split `policy_text` out."""


def plan(**args: Any) -> dict[str, Any]:
    """Check arguments, source and rules without building; returns what would be built.

    Raises:
        UserError: as `build` does.
    """
    seed = args.pop("seed", 0)
    arguments = _parse(args)
    generator = resolve_generate(arguments.generate) if arguments.generate else None
    material = _read(arguments)
    versions, special, source = material.versions, material.special, material.source
    calls = _calls(source, versions, special)
    parts = _split(seed, source, arguments, calls, versions)
    rows = {
        split: arguments.profiles * sum(len(calls[task.id]) for task in tasks)
        for split, tasks in parts.items()
    }
    splits = {**rows, "override": rows["test"]}
    args = {**asdict(arguments), "generate": generator and generator.args}
    preview: dict[str, Any] = {"profiles": 1, "generate": None}
    if (asked := read_policy_text(arguments.policy_text)) is not None:
        policy = wording.write_policy(arguments.name, source.tools, versions, special)
        splits[SPLIT] = count_texts(asked, {arguments.name.lower(): policy}, seed)
        args[SPLIT], preview[SPLIT] = asked.args, asked.small
    return {
        "builder": BUILDER,
        "args": args,
        "seed": seed,
        "splits": splits,
        "preview": preview,
    }


def build(out: Path, *, seed: int, **args: Any) -> DataFolder:
    """Build a GTAPolicy data folder at `out`; equal arguments and seed give equal bytes.

    Splits: `train_cot` (with rationales), `test`, and `override` (the test tasks under a policy of
    the same name whose versions have moved on).

    Raises:
        UserError: wrong arguments, a faulty source or rule file, or too few tasks.
    """
    arguments = _parse(args)
    generator = resolve_generate(arguments.generate) if arguments.generate else None
    material = _read(arguments)
    versions, special, source = material.versions, material.special, material.source
    file = _rule_file(arguments)
    content = {**asdict(arguments), "rules": hashlib.sha256(file.read_bytes()).hexdigest()}
    content["generate"] = generator and generator.args
    asked = read_policy_text(arguments.policy_text)
    content[SPLIT] = asked and asked.args
    identity = {"card": content, "seed": seed, "code": code_digest(__file__)}
    identity["source"] = source_digest(_folder(arguments), source)
    with staged(Path(out), identity) as root:
        new = material.override
        name = arguments.name
        policies = {
            name.lower(): wording.write_policy(name, source.tools, versions, special),
            f"override/{name.lower()}": wording.write_policy(name, source.tools, new, special),
        }
        calls = _calls(source, versions, special)
        extra: dict[str, Any] = {"cot": "from the rules", "left_out": dict(source.left_out)}
        deciding: dict[str, list[list[str]]] = {}
        for split, tasks in _split(seed, source, arguments, calls, versions).items():
            rng = random.Random(f"{seed}/profiles/{split}")
            repeated = [task for task in tasks for _ in range(arguments.profiles)]
            tools = [[tool for tool, _ in calls[task.id]] for task in repeated]
            profiles = draw_profiles(rng, versions, tools)
            pairs = list(zip(repeated, profiles, strict=True))
            rows = list(_rows(root, split, arguments, pairs, versions, special, source, None))
            deciding[split] = [row.facts["rules"] for row in rows]
            if split == "train_cot" and generator is not None:
                generate = generator.generate
                rows, extra["reverse_cot"] = _reverse(rows, policies, generate, arguments, seed)
                extra |= {"cot": "reverse", "generator": generator.about()}
            check_gold(rows, grade, near_misses)
            write_split(root, split, rows)
            if split == "test":
                moved = list(
                    _rows(root, "override", arguments, pairs, versions, special, source, new)
                )
                check_gold(moved, grade, near_misses)
                write_split(root, "override", moved)
                deciding["override"] = [row.facts["rules"] for row in moved]
        extra["coverage"] = coverage(wording.rule_texts(versions, special), deciding)
        extra["notes"] = _notes(source, extra["coverage"])
        written = {}
        if asked is not None:
            written[SPLIT] = asked.write(name.lower(), policies[name.lower()], seed)
            write_split(root, SPLIT, written[SPLIT])
            extra[SPLIT] = text_counts(written)
            if asked.generator is not None:
                extra[SPLIT]["generator"] = asked.generator.about()
        write_policies(root, policies)
        if arguments.source is None:
            shutil.copyfile(RELEASE / "LICENCES.md", root / "LICENCES.md")
        about = _about(source, arguments)
        seal(
            root, builder=BUILDER, args=content, seed=seed, about=about, extra=extra,
            unbalanced=written,
        )  # fmt: skip
    return DataFolder(Path(out))


def _read(arguments: Arguments) -> Material:
    return read_material(
        _rule_file(arguments), _folder(arguments), arguments.skip_missing, arguments.skip_faulty
    )


def _rule_file(arguments: Arguments) -> Path:
    return Path(arguments.rules) if arguments.rules else RULES


def _folder(arguments: Arguments) -> Path:
    return Path(arguments.source) if arguments.source else RELEASE


def _notes(source: Source, table: Mapping[str, Mapping[str, int]]) -> list[str]:
    """What a user should know of a data set that is built all the same."""
    splits: dict[tuple[str, ...], list[str]] = {}
    for split, ids in never_used(table).items():
        splits.setdefault(tuple(ids), []).append(split)
    unused = []
    for rules, names in splits.items():
        more = f" and {len(rules) - 10} more rules" if len(rules) > 10 else ""
        unused.append(
            f"{', '.join(names)}: no call is decided by {', '.join(rules[:10])}{more}; "
            "give more tasks or profiles"
        )
    return [*([note] if (note := left_out_note(source)) else []), *unused]


def _rows(
    root: Path,
    split: str,
    arguments: Arguments,
    pairs: Sequence[tuple[Task, Profile]],
    versions: VersionRules,
    special: Sequence[SpecialRule],
    source: Source,
    new: VersionRules | None,
) -> Iterator[Sample]:
    """One row a step; with `new` the rows of an override, which say the former answer too."""
    name, ruling = arguments.name, new or versions
    texts = wording.rule_texts(ruling, special)
    met: Counter[str] = Counter()
    for task, profile in pairs:
        met[task.id] += 1
        images = _copy_pictures(root, "test" if new else split, task)
        steps = apply_rules(task, profile, ruling, special)
        before = apply_rules(task, profile, versions, special)
        for number, (step, old) in enumerate(zip(steps, before, strict=True)):
            tool = _base(step, source)
            told = step if arguments.thoughts else replace(step, thought="")
            facts: dict[str, Any] = {
                "source_task": task.id,
                "profile": dict(profile),
                "tool": tool,
                "rules": list(step.rules),
                "walk": [rule.id for rule in wording.walk(tool, profile, ruling)],
                "ruled_arguments": {
                    rule.id: rule.ruled_argument
                    for rule in special
                    if rule.ruled_argument and rule.id in step.rules
                },
                "defaults": source.tools[tool].defaults,
                "question": "closed" if task.closed else "open",
                "pictures": list(task.images),
                "step": number + 1,
            }
            if new:
                facts["original_answer"] = old.call.to_json()
            yield Sample(
                id=f"{split}-{task.id}-{met[task.id]}-{number + 1}",
                images=images,
                query=wording.request(name, task, profile, steps[:number]),
                policy=f"override/{name.lower()}" if new else name.lower(),
                answer=step.call.to_json(),
                rationale=wording.rationale(tool, profile, told, ruling, texts),
                facts=facts,
            )


def _calls(
    source: Source, versions: VersionRules, special: Sequence[SpecialRule]
) -> dict[str, list[tuple[str, tuple[str, ...]]]]:
    """By task id: tool and special rules of each call, which do not depend on the profile."""
    (anybody,) = draw_profiles(random.Random(0), versions, [[]])
    ids = {rule.id for rule in special}
    return {
        task.id: [
            (_base(step, source), tuple(rule for rule in step.rules if rule in ids))
            for step in apply_rules(task, anybody, versions, special)
        ]
        for task in source.tasks
    }


def _split(
    seed: int,
    source: Source,
    arguments: Arguments,
    calls: Mapping[str, Sequence[tuple[str, tuple[str, ...]]]],
    versions: VersionRules,
) -> dict[str, list[Task]]:
    """Both splits call every tool, in as many rows as it has rules of versions."""
    traits = {
        id: {trait for tool, rules in of_task for trait in (tool, *rules)}
        for id, of_task in calls.items()
    }
    needs = {
        tool: math.ceil(len(rules) / arguments.profiles) for tool, rules in versions.tools.items()
    }
    rng = random.Random(f"{seed}/split")
    return split_tasks(rng, source.tasks, arguments.test_share, traits, needs)


def _base(step: RuledStep, source: Source) -> str:
    name = step.call.name
    return name if name in source.tools else name.rpartition("_")[0]


def _copy_pictures(root: Path, split: str, task: Task) -> tuple[str, ...]:
    copied = []
    for number, path in enumerate(task.images.values()):
        target = root / "images" / split / f"{task.id}-{number}{Path(path).suffix.lower()}"
        target.parent.mkdir(parents=True, exist_ok=True)
        # Under another name first: what a build leaves that is killed here is never taken over.
        aside = target.with_name(f".{target.name}.part")
        shutil.copyfile(path, aside)
        aside.replace(target)
        copied.append(str(target))
    return tuple(copied)


def _reverse(
    rows: list[Sample],
    policies: Mapping[str, Policy],
    generate: Generate,
    arguments: Arguments,
    seed: int,
) -> tuple[list[Sample], dict[str, int]]:
    kept, report = reverse_cot(
        rows, policies, generate, max_new_tokens=arguments.cot_tokens, seed=seed
    )
    return kept, report.to_json()


def _about(source: Source, arguments: Arguments) -> str:
    left = f" Left out: {len(source.left_out)} tasks." if source.left_out else ""
    origin = (
        "The tasks and pictures are those of the folder that was given, under the terms of its"
        " authors (GTA, Wang et al. 2024: Apache-2.0)."
        if arguments.source
        else "The tasks are TriMPI's; LICENCES.md beside this file says whose the pictures are."
    )
    return (
        f"GTAPolicy: {len(source.tasks)} tasks as single steps under policy {arguments.name}: tool"
        " descriptions and rules that say which version of a tool a user's profile calls for."
        f"{left} {origin}"
    )


def _parse(args: Mapping[str, Any]) -> Arguments:
    known = [field.name for field in fields(Arguments)]
    names = ", ".join(known)
    problems = [f"{key}: unknown argument; known: {names}" for key in args if key not in known]
    if not isinstance(args.get("source"), str | Path | None) or args.get("source") == "":
        problems.append("source: must be the folder of a GTA release, or null")
    share = args.get("test_share", 0.2)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        problems.append(f"test_share: must be between 0 and 1, found {share!r}")
    name = args.get("name", "Velkar")
    if not isinstance(name, str) or not name.isalnum():
        problems.append(f"name: must be one word of letters and digits, found {name!r}")
    for key in ("skip_missing", "skip_faulty", "thoughts"):
        if not isinstance(args.get(key, False), bool):
            problems.append(f"{key}: must be true or false, found {args[key]!r}")
    for key in ("cot_tokens", "profiles"):
        number = args.get(key, 1)
        if type(number) is not int or number < 1:
            problems.append(f"{key}: must be a whole number from 1 on, found {number!r}")
    if not isinstance(args.get("rules"), str | None) or args.get("rules") == "":
        problems.append(f"rules: must be a file or null, found {args['rules']!r}")
    problems += settings_problems(args.get(SPLIT))
    if problem := spec_problem(args.get("generate")):
        problems.append(f"generate: {problem}")
    if problems:
        raise UserError.join(problems)
    source = args.get("source")
    return Arguments(**{**args, "source": None if source is None else str(source)})
