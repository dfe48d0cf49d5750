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
from datasets_builders.gta.oracle import RuledStep, apply_rules
from datasets_builders.gta.profiles import coverage, draw_profiles
from datasets_builders.gta.rules import Profile, VersionRules, read_version_rules
from datasets_builders.gta.source import Source, Task, read_gta
from datasets_builders.gta.special import SpecialRule, read_special_rules
from datasets_builders.gta.split import split_tasks
from datasets_builders.policy_text import (
    SPLIT,
    count_texts,
    read_policy_text,
    settings_problems,
    text_counts,
)
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import Completion, DataFolder, Sample

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
    _, versions, special, source = _read(arguments)
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
    file, versions, special, source = _read(arguments)
    content = {**asdict(arguments), "rules": hashlib.sha256(file.read_bytes()).hexdigest()}
    content["generate"] = generator and generator.args
    asked = read_policy_text(arguments.policy_text)
    content[SPLIT] = asked and asked.args
    identity = {"card": content, "seed": seed, "code": code_digest(__file__)}
    with staged(Path(out), identity) as root:
        new = wording.override_versions(versions)
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
            check_gold(rows, grade, _near_misses)
            write_split(root, split, rows)
            if split == "test":
                moved = list(
                    _rows(root, "override", arguments, pairs, versions, special, source, new)
                )
                check_gold(moved, grade, _near_misses)
                write_split(root, "override", moved)
                deciding["override"] = [row.facts["rules"] for row in moved]
        extra["coverage"] = coverage(wording.rule_texts(versions, special), deciding)
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


def _read(
    arguments: Arguments,
) -> tuple[Path, VersionRules, tuple[SpecialRule, ...], Source]:
    file = Path(arguments.rules) if arguments.rules else RULES
    versions = read_version_rules(file)
    source = read_gta(Path(arguments.source or RELEASE), arguments.skip_missing)
    special = read_special_rules(file, source.tools)
    unknown = [tool for tool in versions.tools if tool not in source.tools]
    if unknown:
        raise UserError(f"{file}: versions.{unknown[0]}: no such tool in toolmeta.json; drop it")
    return file, versions, special, source


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
                    rule.id: rule.argument
                    for rule in special
                    if rule.argument and rule.id in step.rules
                },
                "defaults": source.tools[tool].defaults,
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
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
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
    if not kept:
        raise UserError(f"generate: none of {len(rows)} rows got a rationale; use another model")
    return kept, report.to_json()


def _near_misses(sample: Sample) -> list[str]:
    """Calls that must not score 1: another version or tool, an argument less, one more."""
    return [
        sample.answer.replace('{"name": "', '{"name": "x', 1),
        sample.answer.replace('"arguments": {', '"arguments": {"unasked": 1, ', 1).replace(
            ", }", "}"
        ),
    ]


def verify(sample: Sample, policy: Policy) -> list[str]:
    """Whether a row cites rules of its policy and its answer is a call of its own tool.

    `trimpi data check` calls this for every row.
    """
    problems = []
    known = policy.metadata["conditions"]
    cited = sample.facts["rules"]
    problems += [f"rule {id!r} is none of the policy's" for id in cited if id not in known]
    if grade(sample, Completion(sample.id, f"\\boxed{{{sample.answer}}}")).value != 1.0:
        problems.append("the answer does not score 1 against itself")
    tool = sample.facts["tool"]
    if f'{{"name": "{tool}' not in sample.answer:
        problems.append(f"the answer calls another tool than {tool}")
    for id in cited:
        text = str(known.get(id, ""))
        called = sample.answer.split('"')[3]
        if id.startswith(f"{tool}.") and not text.endswith(f"call {called}."):
            problems.append(f"rule {id} does not ask for {called}")
    if policy.name not in sample.query:
        problems.append(f"query does not name policy {policy.name}")
    return problems


def _about(source: Source, arguments: Arguments) -> str:
    left = f" Left out for want of pictures: {len(source.left_out)} tasks."
    origin = (
        "The tasks and pictures are GTA's (Wang et al. 2024, Apache-2.0)."
        if arguments.source
        else "The tasks are TriMPI's; LICENCES.md beside this file says whose the pictures are."
    )
    return (
        f"GTAPolicy: {len(source.tasks)} tasks as single steps under policy {arguments.name}: tool"
        " descriptions and rules that say which version of a tool a user's profile calls for."
        f"{left if source.left_out else ''} {origin}"
    )


def _parse(args: Mapping[str, Any]) -> Arguments:
    known = [field.name for field in fields(Arguments)]
    names = ", ".join(known)
    problems = [f"{key}: unknown argument; known: {names}" for key in args if key not in known]
    if not isinstance(args.get("source"), str | Path | None):
        problems.append("source: must be the folder of a GTA release, or null")
    share = args.get("test_share", 0.2)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        problems.append(f"test_share: must be between 0 and 1, found {share!r}")
    name = args.get("name", "Velkar")
    if not isinstance(name, str) or not name.isalnum():
        problems.append(f"name: must be one word of letters and digits, found {name!r}")
    for key in ("skip_missing", "thoughts"):
        if not isinstance(args.get(key, False), bool):
            problems.append(f"{key}: must be true or false, found {args[key]!r}")
    for key in ("cot_tokens", "profiles"):
        number = args.get(key, 1)
        if type(number) is not int or number < 1:
            problems.append(f"{key}: must be a whole number from 1 on, found {number!r}")
    if not isinstance(args.get("rules"), str | None):
        problems.append(f"rules: must be text or null, found {args['rules']!r}")
    problems += settings_problems(args.get(SPLIT))
    if problem := spec_problem(args.get("generate")):
        problems.append(f"generate: {problem}")
    if problems:
        raise UserError.join(problems)
    source = args.get("source")
    return Arguments(**{**args, "source": None if source is None else str(source)})
