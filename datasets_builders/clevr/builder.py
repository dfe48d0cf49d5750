"""ClevrPolicy: pictures, decision-tree policies, gold answers and gold walks (paper, ClevrPolicy).

    build(out, seed=0, depth=6, variant="M", policies=10, train=2000)

draws the pictures, or takes them from a real CLEVR directory (`source`). Numbers of rows are *per
policy*. Splits never share a picture, and crops come from pictures of no split.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets_builders.clevr import wording
from datasets_builders.clevr.arguments import Arguments, parse
from datasets_builders.clevr.crops import Crop, Value
from datasets_builders.clevr.grader import grade
from datasets_builders.clevr.pictures import Studio
from datasets_builders.clevr.render import save_png
from datasets_builders.clevr.sources import Drawn, Found, Source
from datasets_builders.clevr.tree import Node, Tree, grow
from datasets_builders.domain import Example, build_domain
from datasets_builders.generators import resolve_generate
from datasets_builders.parallel import progress_bar
from datasets_builders.policy_text import count_texts, read_policy_text
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import DataFolder, Sample

BUILDER = "datasets_builders.clevr.builder:build"
_NAME_TRIES = 1000


@dataclass(frozen=True)
class Draft:
    """A policy before it is written; `shown` are its conditions that get a crop."""

    id: str
    name: str
    tree: Tree
    shown: frozenset[str] = frozenset()


def plan(**args: Any) -> dict[str, Any]:
    """Check all arguments without building; returns what would be built.

    Takes what `build` takes (`seed` may be left out).

    Raises:
        UserError: every wrong argument, one a line.
    """
    seed = args.pop("seed", 0)
    _check_seed(seed)
    arguments = parse(args)
    generator = resolve_generate(arguments.generate) if arguments.generate else None
    rows = {split: count * arguments.policies for split, count in arguments.rows.items()}
    planned = {"args": arguments.content(generator and generator.args)}
    texts = {}
    if (asked := read_policy_text(arguments.policy_text)) is not None:
        planned["args"]["policy_text"] = asked.args
        # Pictures in a policy's text change none of the texts about it.
        bare = [replace(draft, shown=frozenset()) for draft in draft_policies(seed, arguments)]
        written = {draft.id: _write(Path(), seed, draft, {}) for draft in bare}
        texts["policy_text"] = count_texts(asked, written, seed)
        if asked.generator is not None:
            planned["preview"] = {**dict.fromkeys(rows, 2), "policy_text": asked.small}
    return {
        "builder": BUILDER,
        **planned,
        "seed": seed,
        "splits": rows | texts,
        "rows": sum(rows.values()),
        "pictures": sum(arguments.rows.values() if arguments.source else rows.values()),
        "workers": arguments.processes,
    }


def build(out: Path, *, seed: int, progress: bool = True, **args: Any) -> DataFolder:
    """Build a ClevrPolicy data folder at `out`; equal arguments and seed give equal bytes.

    Args:
        out: a folder that does not exist yet, or is empty.
        seed: fixes names, trees, wording, scenes and pictures.
        progress: show a bar on standard error.
        args: see `datasets_builders.clevr.arguments.Arguments`.

    Raises:
        UserError: wrong arguments, too few source pictures, or objects that do not fit.
    """
    _check_seed(seed)
    arguments = parse(args)
    generator = None
    if arguments.generate:
        generator = resolve_generate(arguments.generate, progress=progress)
    return build_domain(
        Path(out),
        Clevr(arguments, seed, progress),
        builder=BUILDER,
        args=arguments.content(generator and generator.args),
        seed=seed,
        code=__file__,
        cot="forward" if generator is not None else None,
        generate=generator,
        cot_tokens=arguments.cot_tokens,
        cot_attempts=arguments.cot_attempts,
        about=_about(arguments),
        extra={"cot": "gold walk"},
        policy_text=read_policy_text(arguments.policy_text, progress=progress),
    )


class Clevr:
    """The domain: random trees in words, and pictures that take each path of theirs in turn."""

    grader = staticmethod(grade)

    def __init__(self, arguments: Arguments, seed: int, progress: bool) -> None:
        self.arguments, self.seed, self.progress = arguments, seed, progress
        self.drafts = draft_policies(seed, arguments)
        self.new = redraft(seed, arguments, self.drafts) if "override" in arguments.rows else []
        self.written: dict[str, Policy] = {}

    def policies(self, work: Path) -> Mapping[str, Policy]:
        """All policies, those for overriding too; crops are collected first."""
        self.source = _source(work, self.seed, self.arguments)
        everyone = self.drafts + self.new
        shown = _shown_values(everyone)
        crops = self.source.crops(shown) if self.arguments.variant == "M" else {}
        self.written = {draft.id: _write(work, self.seed, draft, crops) for draft in everyone}
        return self.written

    def examples(self, work: Path) -> Iterator[Example]:
        """All rows, split by split, while their pictures are drawn."""
        arguments = self.arguments
        total = sum(arguments.rows.values()) * arguments.policies
        with progress_bar("rows") as bar:
            bar.disable = not self.progress
            task = bar.add_task("ClevrPolicy", total=total)
            for split, count in arguments.rows.items():
                for example in self._rows(work, split, count):
                    yield example
                    bar.update(task, advance=1, description=split)

    def near_misses(self, sample: Sample) -> list[str]:
        """See the function of this name."""
        return near_misses(sample, self.written)

    def _rows(self, work: Path, split: str, rows: int) -> Iterator[Example]:
        """Rows of a split, the policies taking turns."""
        group = self.new if split == "override" else self.drafts
        pictures = self.source.pictures(split, [draft.tree for draft in group], rows)
        for index, picture in enumerate(pictures):
            number = index % len(group)
            draft = group[number]
            path, case = draft.tree.decide(picture.scene["objects"])
            facts: dict[str, Any] = {
                "scene": picture.scene,
                "path": [step._asdict() for step in path],
                "rules": [step.condition for step in path],
                "depth": self.arguments.depth,
                "variant": self.arguments.variant,
            }
            if split == "override":
                _, before = self.drafts[number].tree.decide(picture.scene["objects"])
                facts["original_answer"] = wording.answer(before)
            rng = random.Random(f"{self.seed}/query/{split}/{index}")
            yield Example(
                id=f"{split}-{index:06d}",
                images=(work / picture.file,),
                query=wording.query(rng, draft.name),
                policy=draft.id,
                answer=wording.answer(case),
                rationale=None if split == "train" else wording.rationale(path, case),
                facts=facts,
                split=split,
            )


def _check_seed(seed: Any) -> None:
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"seed: must be a whole number, 0 or more, found {seed!r}")


def draft_policies(seed: int, arguments: Arguments) -> list[Draft]:
    """Draw names and trees.

    Raises:
        UserError: no unused name turns up.
    """
    rng = random.Random(f"{seed}/policies")
    drafts: list[Draft] = []
    taken: set[str] = set()
    for number in range(arguments.policies):
        for _ in range(_NAME_TRIES):
            name = wording.made_up_name(rng)
            if name.lower() not in taken:
                break
        else:
            raise UserError(f"policies: names are exhausted after {number}; ask for fewer policies")
        taken.add(name.lower())
        tree = grow(rng, arguments.depth)
        drafts.append(_draft(seed, name.lower(), name, tree, arguments))
    return drafts


def redraft(seed: int, arguments: Arguments, drafts: list[Draft]) -> list[Draft]:
    """The override policies: each name again, with another tree."""
    rng = random.Random(f"{seed}/override")
    new = []
    for old in drafts:
        tree = grow(rng, arguments.depth)
        while tree == old.tree:
            tree = grow(rng, arguments.depth)
        new.append(_draft(seed, f"override/{old.id}", old.name, tree, arguments))
    return new


def _draft(seed: int, identifier: str, name: str, tree: Tree, arguments: Arguments) -> Draft:
    if arguments.variant == "T":
        return Draft(identifier, name, tree)
    # Drawn apart, so that variants T and M of one seed have the same names and trees.
    rng = random.Random(f"{seed}/shown/{identifier}")
    names = [node.condition for node in tree.decisions()]
    shown = rng.sample(names, max(1, round(arguments.crop_share * len(names))))
    return Draft(identifier, name, tree, frozenset(shown))


def _shown_values(drafts: list[Draft]) -> set[Value]:
    return {
        (node.attribute, node.value)
        for draft in drafts
        for node in draft.tree.decisions()
        if node.condition in draft.shown
    }


def _source(work: Path, seed: int, arguments: Arguments) -> Source:
    if arguments.source is None:
        studio = Studio(
            seed,
            arguments.look,
            arguments.object_range,
            work,
            arguments.renderer,
            arguments.samples,
        )
        return Drawn(studio, arguments.processes)
    size = (arguments.width, arguments.height) if arguments.width and arguments.height else None
    return Found(Path(arguments.source), work, seed, arguments.rows, size)


def _write(work: Path, seed: int, draft: Draft, crops: Mapping[Value, list[Crop]]) -> Policy:
    rng = random.Random(f"{seed}/wording/{draft.id}")

    def crop(node: Node) -> str:
        if node.condition not in draft.shown:
            return ""
        file = work / "policies" / draft.id / f"{node.condition}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_png(rng.choice(crops[node.attribute, node.value]).image, file)
        return str(file)

    policy = wording.write_policy(rng, draft.name, draft.tree, crop=crop if draft.shown else None)
    cases = [wording.answer(case) for case in sorted(case for case, _ in draft.tree.leaves())]
    return replace(policy, metadata={**policy.metadata, "cases": cases})


def near_misses(sample: Sample, policies: Mapping[str, Policy]) -> list[str]:
    """Answers that must not pass: the next case of the policy, and the gold number changed."""
    cases = policies[sample.policy or ""].metadata["cases"]
    other = cases[(cases.index(sample.answer) + 1) % len(cases)]
    number = sample.answer.removeprefix("Case ")
    return [other, f"{sample.answer}0", f"Case 1{number}", number]


def _about(arguments: Arguments) -> str:
    values = "in words" if arguments.variant == "T" else "in words or by image crops"
    where = "drawn" if arguments.source is None else "taken from a CLEVR directory"
    return (
        f"ClevrPolicy: {arguments.policies} policies, each a decision tree of depth"
        f" {arguments.depth} over the objects of a picture, with attribute values {values}."
        f" Pictures are {where}. A request names its policy; the answer is the case that the tree"
        " gives. Splits share no picture. Policies `override/<id>` have the name of `<id>` and"
        " another tree."
    )


def gold_rationale(sample: Sample, policy: Policy) -> str:
    """The gold walk, derived again from the scene; `trimpi data check` compares."""
    tree = Tree.from_json(policy.metadata["tree"])
    return wording.rationale(*tree.decide(sample.facts["scene"]["objects"]))


def verify(sample: Sample, policy: Policy) -> list[str]:
    """Derive path and answer again from the scene; the differences in words.

    `trimpi data check` calls this for every row.
    """
    problems = []
    tree = Tree.from_json(policy.metadata["tree"])
    path, case = tree.decide(sample.facts["scene"]["objects"])
    right = wording.answer(case)
    cases = policy.metadata["cases"]
    if sample.answer not in cases:
        problems.append(f"answer {sample.answer!r} is no case of policy {policy.name}")
    elif sample.answer != right:
        problems.append(f"answer {sample.answer!r}, but the tree gives {right!r}")
    if sample.facts["path"] != [step._asdict() for step in path]:
        problems.append("facts.path is not the tree's path for this scene")
    if policy.name not in sample.query:
        problems.append(f"query does not name policy {policy.name}")
    return problems
