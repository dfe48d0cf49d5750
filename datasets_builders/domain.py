"""The builder API: a domain gives policies and examples, the toolkit makes a data folder of them.

    class Desk:
        grader = staticmethod(exact_answer)

        def policies(self, work):
            return {"desk": read_policy_file(Path("policy.md"))}

        def examples(self, work):
            yield Example("May this parcel go?", "yes", "desk", (picture,), facts={"rules": ["R1"]})

    def build(out, *, seed, **args):
        return build_domain(out, Desk(), builder="my.module:build", args=args, seed=seed)

Splits, ids, pictures, gold check, balance, rationales by a model, coverage of rules, hashes and
card are the toolkit's. The builders of this package are written on the same function.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from PIL import Image

from datasets_builders.base import (
    WORK,
    check_gold,
    code_digest,
    hash_file,
    seal,
    staged,
    write_policies,
    write_split,
)
from datasets_builders.cot import CotReport, Generate, forward_cot, reverse_cot
from datasets_builders.coverage import coverage
from datasets_builders.dealing import deal, text_key
from datasets_builders.generators import Resolved
from datasets_builders.pictures import save
from datasets_builders.policy_text import (
    SPLIT,
    PolicyText,
    read_policy_text,
    text_counts,
    texts_by_split,
)
from trimpi.errors import UserError
from trimpi.grading import Grader
from trimpi.policy import ImagePart, Part, Policy
from trimpi.sample import DataFolder, Sample

SHARES: Mapping[str, float] = {"train_cot": 0.8, "test": 0.2}
MOST_TOLD = 50
"""Faults that are told one by one."""

EVALUATION = frozenset({"test", "override"})
"""Splits that may share pictures: no model is trained on either."""
SPLIT_NAME = re.compile(r"[A-Za-z][\w-]*")
FILE_NAME = re.compile(r"\w[\w.-]{0,80}")

Cot = Literal["forward", "reverse"]
COT = {"forward": "forward, filtered by the grader", "reverse": "reverse"}
"""What the card says of rationales by a model."""


@dataclass(frozen=True)
class Example:
    """One labelled request. `policy` is an id of the domain's policies.

    `images` are files or pictures in memory. With `split` None the toolkit deals: examples of one
    `group` stay together, and by default those that show the same picture. `facts` are for graders
    and reports; `facts["rules"]` names the rules that decide, `id` is made up when it is left out.
    """

    query: str
    answer: str
    policy: str | None
    images: tuple[Path | Image.Image, ...] = ()
    rationale: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None
    group: str | None = None
    id: str | None = None


class Domain(Protocol):
    """What a builder has to say. Optional methods: `override(work)`, which gives examples under
    policies `override/<id>`, and `near_misses(sample)`, wrong answers that must not score 1.
    """

    @property
    def grader(self) -> Grader:
        """Gold answers must score 1 with it; forward CoT is filtered by it."""
        ...

    def policies(self, work: Path) -> Mapping[str, Policy]:
        """The policies by id.

        `work` is a folder for what is drawn; it lasts until the build is done, over interruptions,
        and a picture drawn there keeps its place below `images/` (or `policies/images/`).
        """
        ...

    def examples(self, work: Path) -> Iterable[Example]:
        """All examples, in an order that the seed fixes."""
        ...


def build_domain(
    out: Path,
    domain: Domain,
    *,
    builder: str,
    args: Mapping[str, Any],
    seed: int,
    splits: Mapping[str, float] = SHARES,
    cot: Cot | None = None,
    generate: Resolved | Generate | None = None,
    cot_tokens: int = 512,
    cot_attempts: int = 4,
    code: str | None = None,
    about: str = "",
    extra: Mapping[str, Any] | None = None,
    finish: Callable[[Path], None] | None = None,
    policy_text: Mapping[str, Any] | PolicyText | None = None,
) -> DataFolder:
    """Build the data folder of a domain; equal arguments, seed and code give equal bytes.

    Args:
        out: a folder that does not exist yet, or is empty.
        domain: policies, examples and grader.
        builder: "package.module:function" that calls this; `trimpi data check` looks for `verify`
            and `gold_rationale` in its module.
        args: arguments that give this folder again, for the card.
        seed: of the order in which examples are dealt.
        splits: share of each split, for examples that name none.
        cot: a model's rationales for `train_cot`: "forward" solves the rows, "reverse" explains
            the gold answers; needs `generate`.
        generate: the model behind a function, or what `datasets_builders.generators` resolves.
        cot_tokens: most new tokens of a rationale.
        cot_attempts: forward: completions drawn for a row before it is dropped.
        code: `__file__` of the builder, so that pictures of other code are not taken over.
        about: a paragraph for the README of the data.
        extra: further keys of the card.
        finish: called with the folder before it is sealed, to add files of its own.
        policy_text: texts about the policies, `{per_rule: 8, oversample: 3, generate: null}`: for
            the policies of `train_cot` the split `policy_text`, for those of `train_cot_<x>` the
            split `policy_text_<x>`; see `texts_by_split`. It goes into the card's `args`.

    Raises:
        UserError: all that is wrong with policies or examples, or an empty split.
    """
    if isinstance(policy_text, Mapping):
        policy_text = read_policy_text(policy_text)
    if policy_text is not None:
        args = {**args, SPLIT: policy_text.args}
    digest = code_digest(code or __file__)
    identity = {"builder": builder, "args": dict(args), "seed": seed, "code": digest}
    with staged(Path(out), identity) as root:
        work = root / WORK
        work.mkdir(exist_ok=True)
        policies = {
            name: _own_pictures(root, name, policy)
            for name, policy in domain.policies(work).items()
        }
        examples = list(domain.examples(work))
        moved = list(getattr(domain, "override", lambda work: ())(work))
        rows = _rows(root, examples, moved, policies, splits, seed)
        told: dict[str, Any] = dict(extra or {})
        if cot is not None and generate is not None and "train_cot" in rows:
            model = generate.generate if isinstance(generate, Resolved) else generate
            rows["train_cot"], report = _reasoned(
                cot, rows["train_cot"], policies, domain.grader, model, cot_tokens, cot_attempts,
                seed,
            )  # fmt: skip
            told |= {"cot": COT[cot], f"{cot}_cot": report.to_json()}
            if isinstance(generate, Resolved):
                told["generator"] = generate.about()
            _drop_unused(root, rows)
        near = getattr(domain, "near_misses", lambda sample: ())
        for split, samples in rows.items():
            check_gold(samples, domain.grader, near)
            write_split(root, split, samples)
        written = texts_by_split(rows, policies, policy_text, seed)
        for split, samples in written.items():
            write_split(root, split, samples)
        if written:
            told[SPLIT] = text_counts(written)
            if policy_text is not None and policy_text.generator is not None:
                told[SPLIT]["generator"] = policy_text.generator.about()
        write_policies(root, policies)
        if covered := coverage(policies, rows):
            told["coverage"] = covered
        if changed := _kept(rows):
            told["override_same_answer"] = changed
        if finish is not None:
            finish(root)
        shutil.rmtree(work, ignore_errors=True)
        seal(
            root, builder=builder, args=args, seed=seed, about=about, extra=told, unbalanced=written
        )
    return DataFolder(Path(out))


def _rows(
    root: Path,
    examples: Sequence[Example],
    moved: Sequence[Example],
    policies: Mapping[str, Policy],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, list[Sample]]:
    """Samples by split, pictures saved below `root`."""
    if not examples:
        raise UserError("examples: there are none; give at least one for each split")
    problems: list[str] = []
    chosen = _splits(examples, shares, seed, problems)
    rows: dict[str, list[Sample]] = {}
    taken: set[tuple[str, str]] = set()
    saved: dict[tuple[str, Path], Path] = {}
    pairs = [*zip(examples, chosen, strict=True), *((row, "override") for row in moved)]
    for number, (example, split) in enumerate(pairs, 1):
        name = example.id or f"{split}-{len(rows.get(split, ())):06d}"
        where = f"example {number} ({name})"
        if not SPLIT_NAME.fullmatch(split):
            problems.append(f"{where}: split {split!r} must be letters, digits, '-' and '_'")
            continue
        # Somebody's id may be no name of a file, or lead out of the folder.
        plain = name if FILE_NAME.fullmatch(name) else f"{number:06d}"
        if (split, name) in taken:
            problems.append(f"{where}: its id appears twice in split {split}; ids must differ")
        taken.add((split, name))
        if example.policy is not None and example.policy not in policies:
            known = ", ".join(policies) or "none"
            problems.append(f"{where}: unknown policy {example.policy!r}; known: {known}")
        paths = []
        for index, picture in enumerate(example.images):
            try:
                place = saved.get((split, picture)) if isinstance(picture, Path) else None
                place = place or save(root, picture, f"{split}/{plain}-{index}")
                if isinstance(picture, Path):
                    saved[split, picture] = place
                paths.append(str(place))
            except UserError as error:
                problems.append(f"{where}: {error}")
        sample = Sample(
            name, tuple(paths), example.query, example.policy, example.answer, example.rationale,
            dict(example.facts),
        )  # fmt: skip
        rows.setdefault(split, []).append(sample)
    problems += _shared_pictures(rows)
    if problems:
        more = len(problems) - MOST_TOLD
        told = problems[:MOST_TOLD] + ([f"... and {more} more"] if more > 0 else [])
        raise UserError.join(told)
    return rows


def _shared_pictures(rows: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Pictures that two splits hold, by content; no model is trained on `test` and `override`."""
    owner: dict[str, tuple[str, str]] = {}
    digests: dict[str, str] = {}
    problems = []
    for split, samples in rows.items():
        for sample in samples:
            for image in sample.images:
                if image not in digests:
                    digests[image] = hash_file(Path(image))
                first = owner.setdefault(digests[image], (split, sample.id))
                if first[0] != split and not {first[0], split} <= EVALUATION:
                    problems.append(
                        f"{split}: {sample.id} shows a picture that {first[1]} of split {first[0]}"
                        " shows too; keep both in one split"
                    )
    return list(dict.fromkeys(problems))


def _splits(
    examples: Sequence[Example], shares: Mapping[str, float], seed: int, problems: list[str]
) -> list[str]:
    free = [i for i, example in enumerate(examples) if example.split is None]
    chosen = [example.split or "" for example in examples]
    if not free:
        return chosen
    keys = [_keys(examples[i]) for i in free]
    dealt = deal(keys, [examples[i].answer for i in free], shares, seed)
    for index, split in zip(free, dealt, strict=True):
        chosen[index] = split
    for split in shares:
        if split not in chosen:
            problems.append(
                f"splits.{split}: gets none of {len(free)} examples; give it a larger share, or "
                "more examples (those that share a picture count as one)"
            )
    return chosen


def _keys(example: Example) -> list[str]:
    if example.group is not None:
        return [f"group {example.group}"]
    keys = []
    for picture in example.images:
        if isinstance(picture, Image.Image):
            keys.append(hashlib.sha256(picture.tobytes()).hexdigest())
        elif Path(picture).is_file():
            keys.append(hash_file(Path(picture)))
    return keys or [text_key(example.query)]


def _reasoned(
    cot: Cot,
    rows: list[Sample],
    policies: Mapping[str, Policy],
    grader: Grader,
    generate: Generate,
    tokens: int,
    attempts: int,
    seed: int,
) -> tuple[list[Sample], CotReport]:
    if cot == "reverse":
        kept, report = reverse_cot(rows, policies, generate, max_new_tokens=tokens, seed=seed)
        if not kept:
            raise UserError(f"generate: none of {len(rows)} rows got a rationale; raise cot_tokens")
        return kept, report
    return forward_cot(
        rows, policies, generate, grader, max_new_tokens=tokens, attempts=attempts, seed=seed
    )


def _drop_unused(root: Path, rows: Mapping[str, Sequence[Sample]]) -> None:
    """Remove pictures of rows that got no rationale."""
    used = {image for samples in rows.values() for sample in samples for image in sample.images}
    for file in (root / "images").rglob("*"):
        if file.is_file() and str(file) not in used:
            file.unlink()


def _own_pictures(root: Path, name: str, policy: Policy) -> Policy:
    """The policy with its pictures below `root`."""
    parts: list[Part] = []
    for index, part in enumerate(policy.parts):
        if isinstance(part, ImagePart):
            saved = save(root, Path(part.path), f"{name}/{index}", "policies/images")
            part = ImagePart(str(saved))
        parts.append(part)
    return replace(policy, parts=tuple(parts))


def _kept(rows: Mapping[str, Sequence[Sample]]) -> float | None:
    """Share of the override rows whose answer is that of the policy before."""
    before = [s for s in rows.get("override", ()) if "original_answer" in s.facts]
    same = sum(sample.answer == sample.facts["original_answer"] for sample in before)
    return round(same / len(before), 4) if before else None
