"""Guardrail: may a picture be shown? Policies of rules over what it shows and who looks at it.

A third domain beside the paper's two, on the public API of builders: policies are Markdown files
with checkable rules, pictures are drawn, and the rules themselves decide the gold answers. The
same test pictures are asked under every policy.
"""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from datasets_builders.domain import Example, build_domain
from datasets_builders.guardrail import wording
from datasets_builders.guardrail.drawing import PEOPLE, PLACES, Scene, all_scenes, draw_scene
from datasets_builders.guardrail.items import ITEMS
from datasets_builders.hints import hint
from datasets_builders.policy_text import count_texts, read_policy_text, settings_problems
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.policy import Policy
from trimpi.policy_file import read_policy_file
from trimpi.rules import Interval, RuleSet, Words, diff
from trimpi.sample import DataFolder, Sample

BUILDER = "datasets_builders.guardrail.builder:build"
POLICIES = Path(__file__).with_name("policies")


@dataclass(frozen=True)
class Arguments:
    """What `build` takes beside the folder and the seed. Numbers of rows are *per policy*."""

    policies: tuple[str, ...] = ("ostrel", "tavian")
    """Names of policies that ship with the package, or Markdown files with the same attributes."""
    train_cot: int = 500
    """Rows with rationales."""
    train: int | None = None
    """Rows with answers alone; null leaves the split out."""
    test: int = 96
    override: int | None = 48
    """Rows under the other version of a policy, which has the same name (`<policy>-2`)."""
    update: Mapping[str, Any] | None = None
    """`{rows: 200, replay: 0.3}`: the policies move on to `<policy>-2`. Splits `train_cot_new` (all
    of the new version) and `update` (rows whose decision changed, and a share `replay` of others)
    are added, and tests are of the new version."""
    width: int = 96
    height: int = 64
    policy_text: Mapping[str, Any] | None = None
    """Texts about the policies for VM-CPT, `{per_rule: 8, oversample: 3, generate: null}`; null
    leaves the split out. With `update` the split `policy_text_new` is of the new versions."""


def plan(**args: Any) -> dict[str, Any]:
    """Check all arguments and policies without building; returns what would be built.

    Raises:
        UserError: every wrong argument or policy, one a line.
    """
    seed = args.pop("seed", 0)
    arguments = _parse(args)
    domain = Guardrail(arguments, seed)
    several = len(arguments.policies)
    rows = {"train_cot": arguments.train_cot, "train": arguments.train, "test": arguments.test}
    if arguments.update is None:
        rows["override"] = arguments.override
    else:
        rows |= {"train_cot_new": arguments.train_cot, "update": arguments.update["rows"]}
    splits = {name: several * count for name, count in rows.items() if count}
    told = asdict(arguments)
    if (asked := read_policy_text(arguments.policy_text)) is not None:
        told["policy_text"] = asked.args
        parts = {"policy_text": domain.now}
        if arguments.update is not None:
            parts["policy_text_new"] = domain.later
        for split, versions in parts.items():
            splits[split] = count_texts(asked, {v.id: v.policy for v in versions}, seed)
    planned = {"builder": BUILDER, "args": told, "seed": seed, "splits": splits}
    if asked is not None and asked.generator is not None:
        small = dict.fromkeys((n for n in ("train_cot", "train", "test") if splits.get(n)), 2)
        planned["preview"] = {**small, "policy_text": asked.small}
    return planned


def build(out: Path, *, seed: int, **args: Any) -> DataFolder:
    """Build a guardrail data folder at `out`; equal arguments and seed give equal bytes.

    Args:
        out: a folder that does not exist yet, or is empty.
        seed: fixes cases, ages and looks.
        args: see `Arguments`.

    Raises:
        UserError: wrong arguments, or a policy that cannot decide every picture.
    """
    arguments = _parse(args)
    told = asdict(arguments) | {"policies": [Path(name).name for name in arguments.policies]}
    told["content"] = [_file(name).read_text(encoding="utf-8") for name in arguments.policies]
    told["content"] = hashlib.sha256("".join(told["content"]).encode()).hexdigest()
    return build_domain(
        Path(out),
        Guardrail(arguments, seed),
        builder=BUILDER,
        args=told,
        seed=seed,
        code=__file__,
        about=(
            "Guardrail: drawn pictures (an item, a place, at times a person) and a viewer's age;"
            " policies of checkable rules say whether the picture may be shown, with category and"
            " severity. Test pictures are asked under every policy."
        ),
        extra={"cot": "gold walk"},
        policy_text=arguments.policy_text,
    )


@dataclass(frozen=True)
class Version:
    """A policy as rows need it."""

    id: str
    policy: Policy

    @cached_property
    def rules(self) -> RuleSet:
        """Its rules."""
        return RuleSet.from_metadata(self.policy.metadata)

    @cached_property
    def cases(self) -> dict[str, list[tuple[Scene, int]]]:
        """By rule: scenes and ages of viewers that it decides."""
        found: dict[str, list[tuple[Scene, int]]] = {}
        for scene in all_scenes():
            for age in _ages(self.rules):
                rule = self.rules.decide({**scene.to_json(), "age": age})
                if rule is not None:
                    found.setdefault(rule.id, []).append((scene, age))
        return found


class Guardrail:
    """The domain: its policies, and examples whose gold answers the policies' rules decide."""

    grader = staticmethod(exact_answer)

    def __init__(self, arguments: Arguments, seed: int) -> None:
        self.arguments, self.seed = arguments, seed
        files = [_file(name) for name in arguments.policies]
        self.now = [Version(file.stem, read_policy_file(file)) for file in files]
        self.later = [
            Version(f"{version.id}-2", read_policy_file(file.with_name(f"{file.stem}-2.md")))
            for version, file in zip(self.now, files, strict=True)
            if arguments.update or arguments.override
        ]

        problems = [p for version in (*self.now, *self.later) for p in _faults(version)]
        if problems:
            raise UserError.join(problems)

    def policies(self, work: Path) -> Mapping[str, Policy]:
        """The policies by id; those that rows of `override` are under as `override/<id>`."""
        found = {version.id: version.policy for version in self.now}
        for now, later in zip(self.now, self.later, strict=False):
            name = later.id if self.arguments.update else f"override/{now.id}"
            found[name] = later.policy
        return found

    def examples(self, work: Path) -> Iterator[Example]:
        """All rows, split by split."""
        arguments = self.arguments
        yield from self._made(work, "train_cot", arguments.train_cot, self.now)
        yield from self._made(work, "train", arguments.train or 0, self.now)
        if arguments.update is None:
            yield from self._asked_of_all(work, "test", arguments.test, self.now)
            if arguments.override:
                rows = self._asked_of_all(work, "override", arguments.override, self.later)
                for row in rows:
                    yield replace(row, policy=f"override/{str(row.policy).removesuffix('-2')}")
            return
        yield from self._made(work, "train_cot_new", arguments.train_cot, self.later)
        yield from self._changes(work, arguments.update)
        yield from self._asked_of_all(work, "test", arguments.test, self.later)

    def _made(
        self, work: Path, split: str, rows: int, versions: Sequence[Version]
    ) -> Iterator[Example]:
        """Pictures made to order: each policy's rules take turns."""
        for version in versions:
            rng = random.Random(f"{self.seed}/{split}/{version.id}")
            turns = _turns(rng, version)
            for number in range(rows):
                scene, age = next(turns)
                picture = self._draw(work, f"{split}/{version.id}-{number:05d}", scene)
                yield self._example(split, version, scene, age, picture, None)

    def _asked_of_all(
        self, work: Path, split: str, rows: int, versions: Sequence[Version]
    ) -> Iterator[Example]:
        """Each picture is made to order for one policy, and asked under all of them."""
        rng = random.Random(f"{self.seed}/{split}")
        turns = [_turns(rng, version) for version in versions]
        for number in range(rows):
            scene, age = next(turns[number % len(turns)])
            picture = self._draw(work, f"{split}/{number:05d}", scene)
            for index, version in enumerate(versions):
                before = self.now[index] if version is not self.now[index] else None
                yield self._example(split, version, scene, age, picture, before)

    def _changes(self, work: Path, update: Mapping[str, Any]) -> Iterator[Example]:
        """Rows of the new versions: those whose decision changed, and some of the others."""
        for old, new in zip(self.now, self.later, strict=True):
            rng = random.Random(f"{self.seed}/update/{new.id}")
            sides: dict[bool, list[tuple[Scene, int]]] = {True: [], False: []}
            for case in (case for cases in new.cases.values() for case in cases):
                sides[_changed(old, new, *case)].append(case)
            for number in range(update["rows"]):
                scene, age = rng.choice(sides[rng.random() >= update["replay"]])
                picture = self._draw(work, f"update/{new.id}-{number:05d}", scene)
                yield self._example("update", new, scene, age, picture, old)

    def _draw(self, work: Path, name: str, scene: Scene) -> Path:
        file = work / f"{name}.png"
        if not file.is_file():
            file.parent.mkdir(parents=True, exist_ok=True)
            rng = random.Random(f"{self.seed}/picture/{name}")
            draw_scene(rng, scene, self.arguments.width, self.arguments.height).save(file)
        return file

    def _example(
        self,
        split: str,
        version: Version,
        scene: Scene,
        age: int,
        picture: Path,
        before: Version | None,
    ) -> Example:
        seen = {**scene.to_json(), "age": age}
        rule = version.rules.decide(seen)
        assert rule is not None and rule.outcome is not None  # proven when the file was read
        facts: dict[str, Any] = {"rules": [rule.id], **seen}
        if before is not None:
            former = before.rules.decide(seen)
            assert former is not None
            facts["original_answer"] = former.outcome
            if self.arguments.update is not None:
                facts["changed"] = _changed(before, version, scene, age)
        return Example(
            query=wording.request(version.policy.name, age),
            answer=rule.outcome,
            policy=version.id,
            images=(picture,),
            rationale=None if split == "train" else wording.rationale(version.rules, seen),
            facts=facts,
            split=split,
        )


def _faults(version: Version) -> Iterator[str]:
    """Why a policy cannot decide every picture."""
    wanted = {"item": ITEMS, "place": PLACES, "people": PEOPLE}
    for name, words in wanted.items():
        extent = version.rules.attributes.get(name)
        if not isinstance(extent, Words) or set(extent.values) != set(words):
            yield f"{version.id}.md: attributes.{name}: must be [{', '.join(words)}]"
    if not isinstance(version.rules.attributes.get("age"), Interval):
        yield f"{version.id}.md: attributes.age: must be {{from: N, to: N}}"
    for fault in version.rules.faults():
        yield f"{version.id}.md: {fault.kind}: {fault.words}"
    for rule in version.rules.rules:
        if rule.when is None or rule.outcome is None:
            yield f"{version.id}.md: rule {rule.id} is not checkable; see `trimpi policy lint`"


def _turns(rng: random.Random, version: Version) -> Iterator[tuple[Scene, int]]:
    """Cases of a policy without end, its rules one after the other in random order."""
    while True:
        rules = list(version.cases)
        rng.shuffle(rules)
        for rule in rules:
            yield rng.choice(version.cases[rule])


def _changed(old: Version, new: Version, scene: Scene, age: int) -> bool:
    """Whether another answer follows, or the rule that decides is new or worded anew."""
    seen = {**scene.to_json(), "age": age}
    before, after = old.rules.decide(seen), new.rules.decide(seen)
    changes = diff(old.policy, new.policy)
    assert before is not None and after is not None
    touched = after.id in changes.changed or after.id in changes.added
    return touched or before.outcome != after.outcome


def _ages(rules: RuleSet) -> list[int]:
    """Ages of viewers: those around each bound of the rules, and every fifth year."""
    whole = rules.attributes["age"]
    assert isinstance(whole, Interval)
    near = set(range(whole.low, whole.high + 1, 5))
    for rule in rules.rules:
        extent = (rule.when or {}).get("age")
        if isinstance(extent, Interval):
            for bound in (extent.low, extent.high):
                near |= set(range(bound - 2, bound + 3))
    return sorted(age for age in near if whole.low <= age <= whole.high)


def _file(name: str) -> Path:
    """A policy of the package, or a file."""
    return POLICIES / f"{name}.md" if name.isidentifier() else Path(name)


def _parse(args: Mapping[str, Any]) -> Arguments:
    known = [field.name for field in fields(Arguments)]
    problems = [f"{key}: unknown argument; {hint(key, known)}" for key in args if key not in known]
    names = args.get("policies", Arguments.policies)
    if isinstance(names, str) or not names or not all(isinstance(n, str) for n in names):
        problems.append(f"policies: must be a list of names or files, found {names!r}")
        names = ()
    for name in names:
        if not _file(name).is_file():
            own = ", ".join(sorted(file.stem for file in POLICIES.glob("*.md")))
            problems.append(f"policies: no policy {name!r}; give a file, or one of {own}")
        elif args.get("update") or args.get("override", Arguments.override):
            later = _file(name).with_name(f"{_file(name).stem}-2.md")
            if not later.is_file():
                problems.append(
                    f"policies: {name!r} has no other version {later.name} beside it; add it, or "
                    "set override and update to null"
                )
    for key in ("train_cot", "test", "width", "height"):
        count = args.get(key, 1)
        if type(count) is not int or count < 1:
            problems.append(f"{key}: must be a whole number from 1 on, found {count!r}")
    for key in ("train", "override"):
        count = args.get(key)
        if count is not None and (type(count) is not int or count < 1):
            problems.append(f"{key}: must be a whole number from 1 on or null, found {count!r}")
    problems += settings_problems(args.get("policy_text"))
    update = args.get("update")
    if update is not None and not _is_update(update):
        problems.append(
            f"update: must be {{rows: a whole number from 1 on, replay: 0 to 1}}, found {update!r}"
        )
    if problems:
        raise UserError.join(problems)
    return Arguments(**{**args, "policies": tuple(names)})


def _is_update(update: Any) -> bool:
    if not isinstance(update, Mapping) or set(update) != {"rows", "replay"}:
        return False
    rows, replay = update["rows"], update["replay"]
    return type(rows) is int and rows >= 1 and isinstance(replay, int | float) and 0 <= replay <= 1


def verify(sample: Sample, policy: Policy) -> list[str]:
    """Derive the answer again from the facts; `trimpi data check` calls this for every row."""
    rule = RuleSet.from_metadata(policy.metadata).decide(sample.facts)
    if rule is None or rule.outcome != sample.answer:
        return [f"answer {sample.answer!r}, but the rules give {rule and rule.outcome!r}"]
    if sample.facts["rules"] != [rule.id]:
        return [f"facts.rules {sample.facts['rules']}, but rule {rule.id} decides"]
    return []


def gold_rationale(sample: Sample, policy: Policy) -> str:
    """The reasoning, derived again; `trimpi data check` compares."""
    return wording.rationale(RuleSet.from_metadata(policy.metadata), sample.facts)
