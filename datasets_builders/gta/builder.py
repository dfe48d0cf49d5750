"""The GTAPolicy builder: from a GTA folder to single-step requests under versioned rules.

Each call of a task is one row: pictures, a user profile, the query, the calls before it with their
results, and the policy's name; the gold answer is the next call as the rules ask for it. Rows of
one task, and of tasks that share a picture, are never on both sides of the split.
"""

import hashlib
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
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
from datasets_builders.cot import Generate, resolve_generate, reverse_cot
from datasets_builders.gta import wording
from datasets_builders.gta.grader import grade
from datasets_builders.gta.oracle import RuledStep, apply_rules
from datasets_builders.gta.profiles import coverage, draw_profiles
from datasets_builders.gta.rules import Profile, VersionRules, read_version_rules
from datasets_builders.gta.source import Source, Task, read_gta
from datasets_builders.gta.special import SpecialRule, read_special_rules
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import Completion, DataFolder, Sample

BUILDER = "datasets_builders.gta.builder:build"
RULES = Path(__file__).with_name("rules.yaml")


@dataclass(frozen=True)
class Arguments:
    """What `build` takes beside the folder and the seed."""

    source: str
    """A GTA folder: dataset.json, toolmeta.json, image/; relative to the working directory."""
    rules: str | None = None
    """A rule file; null: the paper's rules (datasets_builders/gta/rules.yaml)."""
    name: str = "Velkar"
    """The policy's name, which requests call it by."""
    test_share: float = 0.2
    """Share of the tasks to test on, at least one."""
    skip_missing: bool = False
    """Leave tasks out whose pictures are not there."""
    generate: str | None = None
    """Reverse CoT: `module:name` of a function that makes a generator; null: from the rules."""
    cot_tokens: int = 512
    """Reverse CoT: most new tokens of a rationale."""


def plan(**args: Any) -> dict[str, Any]:
    """Check arguments, source and rules without building; returns what would be built.

    Raises:
        UserError: as `build` does.
    """
    seed = args.pop("seed", 0)
    arguments = _parse(args)
    _, versions, special, source = _read(arguments)
    parts = split_tasks(random.Random(f"{seed}/split"), source.tasks, arguments.test_share)
    # How many calls the rules ask for does not depend on the profile.
    (anybody,) = draw_profiles(random.Random(0), versions, [[]])
    rows = {
        split: sum(len(apply_rules(task, anybody, versions, special)) for task in tasks)
        for split, tasks in parts.items()
    }
    splits = {**rows, "override": rows["test"]}
    return {"builder": BUILDER, "args": asdict(arguments), "seed": seed, "splits": splits}


def build(out: Path, *, seed: int, **args: Any) -> DataFolder:
    """Build a GTAPolicy data folder at `out`; equal arguments and seed give equal bytes.

    Splits: `train_cot` (with rationales), `test`, and `override` (the test tasks under a policy of
    the same name whose versions have moved on).

    Raises:
        UserError: wrong arguments, a faulty source or rule file, or too few tasks.
    """
    arguments = _parse(args)
    generate = resolve_generate(arguments.generate) if arguments.generate else None
    file, versions, special, source = _read(arguments)
    content = {**asdict(arguments), "rules": hashlib.sha256(file.read_bytes()).hexdigest()}
    identity = {"card": content, "seed": seed, "code": code_digest(__file__)}
    with staged(Path(out), identity) as root:
        new = wording.override_versions(versions)
        name = arguments.name
        policies = {
            name.lower(): wording.write_policy(name, source.tools, versions, special),
            f"override/{name.lower()}": wording.write_policy(name, source.tools, new, special),
        }
        parts = split_tasks(random.Random(f"{seed}/split"), source.tasks, arguments.test_share)
        extra: dict[str, Any] = {"cot": "from the rules", "left_out": dict(source.left_out)}
        calls: dict[str, list[tuple[Profile, str]]] = {}
        for split, tasks in parts.items():
            rng = random.Random(f"{seed}/profiles/{split}")
            tools = [[step.call.name for step in task.steps] for task in tasks]
            profiles = draw_profiles(rng, versions, tools)
            pairs = list(zip(tasks, profiles, strict=True))
            rows = list(_rows(root, split, name, pairs, versions, special, source, None))
            calls[split] = [(row.facts["profile"], row.facts["tool"]) for row in rows]
            if split == "train_cot" and generate is not None:
                rows, extra["reverse_cot"] = _reverse(rows, policies, generate, arguments, seed)
                extra["cot"] = "reverse"
            check_gold(rows, grade, _near_misses)
            write_split(root, split, rows)
            if split == "test":
                moved = list(_rows(root, "override", name, pairs, versions, special, source, new))
                check_gold(moved, grade, _near_misses)
                write_split(root, "override", moved)
        extra["coverage"] = coverage(versions, calls)
        write_policies(root, policies)
        about = _about(source, arguments)
        seal(root, builder=BUILDER, args=content, seed=seed, about=about, extra=extra)
    return DataFolder(Path(out))


def _read(
    arguments: Arguments,
) -> tuple[Path, VersionRules, tuple[SpecialRule, ...], Source]:
    file = Path(arguments.rules) if arguments.rules else RULES
    versions = read_version_rules(file)
    source = read_gta(Path(arguments.source), arguments.skip_missing)
    special = read_special_rules(file, source.tools)
    unknown = [tool for tool in versions.tools if tool not in source.tools]
    if unknown:
        raise UserError(f"{file}: versions.{unknown[0]}: no such tool in toolmeta.json; drop it")
    return file, versions, special, source


def split_tasks(rng: random.Random, tasks: Sequence[Task], share: float) -> dict[str, list[Task]]:
    """Tasks for training and for testing; tasks that share a picture stay together.

    Raises:
        UserError: there are fewer than two groups of tasks.
    """
    owner: dict[str, int] = {}
    groups: dict[int, list[Task]] = {}
    for number, task in enumerate(tasks):
        contents = [hashlib.sha256(Path(p).read_bytes()).hexdigest() for p in task.images.values()]
        met = {owner[content] for content in contents if content in owner}
        joined = [task for key in sorted(met) for task in groups.pop(key)] + [task]
        groups[number] = joined
        for key, value in owner.items():
            if value in met:
                owner[key] = number
        owner.update(dict.fromkeys(contents, number))
    if len(groups) < 2:
        raise UserError(
            f"source: {len(tasks)} tasks make {len(groups)} group that shares no picture with"
            " another; training and test need one each, give more tasks"
        )
    order = list(groups.values())
    rng.shuffle(order)
    wanted = max(1, round(share * len(tasks)))
    test: list[Task] = []
    while order[1:] and len(test) < wanted:
        test += order.pop()
    return {"train_cot": [task for group in order for task in group], "test": test}


def _rows(
    root: Path,
    split: str,
    name: str,
    pairs: Sequence[tuple[Task, Profile]],
    versions: VersionRules,
    special: Sequence[SpecialRule],
    source: Source,
    new: VersionRules | None,
) -> Iterator[Sample]:
    """One row a step; with `new` the rows of an override, which say the former answer too."""
    ruling = new or versions
    texts = wording.rule_texts(ruling, special)
    for task, profile in pairs:
        images = _copy_pictures(root, "test" if new else split, task)
        steps = apply_rules(task, profile, ruling, special)
        before = apply_rules(task, profile, versions, special)
        for number, (step, old) in enumerate(zip(steps, before, strict=True)):
            tool = _base(step, source)
            facts: dict[str, Any] = {
                "source_task": task.id,
                "profile": dict(profile),
                "tool": tool,
                "rules": list(step.rules),
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
                id=f"{split}-{task.id}-{number + 1}",
                images=images,
                query=wording.request(name, task, profile, steps[:number]),
                policy=f"override/{name.lower()}" if new else name.lower(),
                answer=step.call.to_json(),
                rationale=wording.rationale(tool, profile, step, ruling, texts),
                facts=facts,
            )


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
    return (
        f"GTAPolicy: {len(source.tasks)} tasks of a GTA folder as single steps under policy"
        f" {arguments.name}: tool descriptions and rules that say which version of a tool a user's"
        f" profile calls for.{left if source.left_out else ''} The tasks and pictures are GTA's"
        " (Wang et al. 2024, Apache-2.0)."
    )


def _parse(args: Mapping[str, Any]) -> Arguments:
    known = [field.name for field in fields(Arguments)]
    names = ", ".join(known)
    problems = [f"{key}: unknown argument; known: {names}" for key in args if key not in known]
    if not isinstance(args.get("source"), str | Path):
        problems.append("source: must be the folder of a GTA release")
    share = args.get("test_share", 0.2)
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 < share < 1:
        problems.append(f"test_share: must be between 0 and 1, found {share!r}")
    name = args.get("name", "Velkar")
    if not isinstance(name, str) or not name.isalnum():
        problems.append(f"name: must be one word of letters and digits, found {name!r}")
    if not isinstance(args.get("skip_missing", False), bool):
        problems.append(f"skip_missing: must be true or false, found {args['skip_missing']!r}")
    tokens = args.get("cot_tokens", 512)
    if type(tokens) is not int or tokens < 1:
        problems.append(f"cot_tokens: must be a whole number from 1 on, found {tokens!r}")
    for key in ("rules", "generate"):
        if not isinstance(args.get(key), str | None):
            problems.append(f"{key}: must be text or null, found {args[key]!r}")
    if problems:
        raise UserError.join(problems)
    return Arguments(**{**args, "source": str(args["source"])})
