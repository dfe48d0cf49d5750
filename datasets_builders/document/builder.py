"""The document builder: a policy file and a table of labelled examples -> a data folder.

    build(out, seed=0, policy="policy.md", examples="examples.jsonl", grader={"type": "exact"})

All rows are read and checked before anything is written. Rows that give values for the policy's
attributes are put to its checkable rules, which say what decides a row and why.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from datasets_builders.document.arguments import Arguments, located, parse
from datasets_builders.document.examples import Labelled
from datasets_builders.document.material import Material, content, read_material
from datasets_builders.document.pictures import save
from datasets_builders.document.rulings import agree, reasons
from datasets_builders.domain import Example, build_domain
from datasets_builders.generators import resolve_generate
from datasets_builders.policy_text import count_texts, read_policy_text
from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.grading import Grader, grader_identity
from trimpi.policy import Policy
from trimpi.rules import RuleSet
from trimpi.sample import DataFolder, Sample

BUILDER = "datasets_builders.document.builder:build"
PATHS = ("policy", "examples", "override")


def in_recipe(args: Mapping[str, Any], *, folder: Path, grader: Any) -> dict[str, Any]:
    """Arguments as they stand in a recipe: paths relative to its folder, its grader.

    Raises:
        UserError: another grader than the recipe's.
    """
    own = args.get("grader", grader)
    if own != grader and grader_identity(make_grader(own)) != grader_identity(make_grader(grader)):
        raise UserError(
            "grader: is another one than the recipe's, which rewards and measures; drop it"
        )
    return {**located(args, folder), "grader": grader}


def identity(**args: Any) -> dict[str, Any]:
    """Arguments with digests of policies and examples in place of their paths.

    Raises:
        UserError: they do not read.
    """
    told = {key: value for key, value in args.items() if key not in PATHS}
    return {**told, "content": content(parse(args))}


def plan(**args: Any) -> dict[str, Any]:
    """Read and check everything without building; returns what would be built.

    Raises:
        UserError: as `build` does.
    """
    seed = args.pop("seed", 0)
    arguments = parse(args)
    if arguments.generate:
        resolve_generate(arguments.generate)
    material = read_material(arguments, seed)
    splits = dict(material.splits)
    preview: dict[str, Any] = {} if arguments.generate else {"reasons": arguments.reasons}
    if (asked := read_policy_text(arguments.policy_text)) is not None:
        named = {row.policy for row in material.examples if row.split == "train_cot"}
        told = {id: policy for id, policy in material.policies.items() if id in named}
        splits["policy_text"] = count_texts(asked, told, seed)
        preview["policy_text"] = asked.small
    return {
        "builder": BUILDER,
        "args": asdict(arguments),
        "seed": seed,
        "splits": splits,
        "preview": preview,
        "notes": list(material.warnings),
    }


def build(out: Path, *, seed: int, progress: bool = True, **args: Any) -> DataFolder:
    """Build the data folder at `out`; equal content, arguments and seed give equal bytes.

    Args:
        out: a folder that does not exist yet, or is empty.
        seed: of the order in which rows are dealt to splits.
        progress: show a bar on standard error.
        args: see `datasets_builders.document.arguments.Arguments`.

    Raises:
        UserError: wrong arguments, or all that is wrong with policies and rows, at once.
    """
    arguments = parse(args)
    generator = None
    if arguments.generate:
        generator = resolve_generate(arguments.generate, progress=progress)
    material = read_material(arguments, seed)
    return build_domain(
        Path(out),
        _domain(material),
        builder=BUILDER,
        args=_told(arguments, generator and generator.args),
        seed=seed,
        splits=dict(arguments.splits),
        cot="forward" if arguments.cot == "forward" else "reverse",
        generate=generator,
        cot_tokens=arguments.cot_tokens,
        code=__file__,
        about=_about(material),
        policy_text=arguments.policy_text,
        extra=_extra(material),
    )


@dataclass(frozen=True)
class Document:
    """The material as a domain."""

    material: Material

    @property
    def grader(self) -> Grader:
        """The recipe's."""
        return self.material.grader

    def policies(self, work: Path) -> Mapping[str, Policy]:
        """All policies, also those of the override."""
        return self.material.policies

    def examples(self, work: Path) -> Iterator[Example]:
        """All rows, dealt to splits already."""
        return _examples(self.material.examples, work)


@dataclass(frozen=True)
class Moved(Document):
    """With rows under another version of the policy."""

    def override(self, work: Path) -> Iterator[Example]:
        """Rows under `override/<id>`."""
        return _examples(self.material.override, work)


def _domain(material: Material) -> Document:
    return Moved(material) if material.override else Document(material)


def _examples(rows: Sequence[Labelled], work: Path) -> Iterator[Example]:
    for row in rows:
        images = tuple(
            save(picture, work / "images" / str(row.split) / f"{row.id}-{index}")
            for index, picture in enumerate(row.pictures)
        )
        yield Example(
            query=row.query,
            answer=row.answer,
            policy=row.policy,
            images=images,
            rationale=row.rationale,
            facts=dict(row.facts),
            split=row.split,
            id=row.id,
        )


def _told(arguments: Arguments, generate: Any) -> dict[str, Any]:
    """Arguments for the card: names of files without their folders, digests of what they hold."""
    told = {**asdict(arguments), "generate": generate}
    for key in PATHS:
        told[key] = _names(told[key])
    return {**told, "content": content(arguments)}


def _names(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _names(item) for key, item in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def _extra(material: Material) -> dict[str, Any]:
    rows = list(material.examples)
    written = sum(row.facts.get("reasons") == "rules" for row in rows)
    given = sum(row.rationale is not None for row in rows) - written
    extra: dict[str, Any] = {
        "rationales": {"given": given, "from the rules": written,
                       "none": len(rows) - given - written},
        "notes": list(material.warnings),
    }  # fmt: skip
    if written and not given:
        extra["cot"] = "gold walk"
    return extra


def _about(material: Material) -> str:
    names = ", ".join(dict.fromkeys(policy.name for policy in material.policies.values()))
    extra = _extra(material)["rationales"]
    told = "; ".join(f"{kind} {count}" for kind, count in extra.items())
    return (
        f"{len(material.examples)} labelled examples under {names}. Rationales: {told}. Training"
        " rows with a rationale are in `train_cot`, those without in `train`."
    )


def verify(sample: Sample, policy: Policy) -> list[str]:
    """Whether the policy's checkable rules give a row's answer; `trimpi data check` calls this."""
    rules = RuleSet.from_metadata(policy.metadata, policy.name)
    if not rules.attributes or "rules" not in sample.facts or "rules_say" in sample.facts:
        return []
    known = policy.metadata.get("conditions", {})
    problems = [f"rule {id!r} is none of the policy's" for id in sample.facts["rules"]
                if id not in known]  # fmt: skip
    if sample.facts.get("reasons") != "rules":
        return problems
    decides = rules.decide(sample.facts)
    if decides is None or decides.id not in sample.facts["rules"]:
        problems.append(f"decided by {decides and decides.id}, facts say {sample.facts['rules']}")
    elif not agree(sample.answer, decides.outcome):
        problems.append(f"rule {decides.id} gives {decides.outcome!r}, not {sample.answer!r}")
    return problems


def gold_rationale(sample: Sample, policy: Policy) -> str:
    """The reasoning from the rules, for cards that say `"cot": "gold walk"`; "" for other rows."""
    if sample.facts.get("reasons") != "rules":
        return ""
    return reasons(policy, RuleSet.from_metadata(policy.metadata, policy.name), sample.facts)
