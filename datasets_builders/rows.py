"""From examples to rows: dealt to splits, ids and policies checked, pictures put in place."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from datasets_builders.base import hash_file
from datasets_builders.dealing import deal, text_key
from datasets_builders.pictures import save
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import Sample

MOST_TOLD = 50
"""Faults that are told one by one."""

EVALUATION = frozenset({"test", "override"})
"""Splits that may share pictures: no model is trained on either."""
SPLIT_NAME = re.compile(r"[A-Za-z][\w-]{0,63}")
FILE_NAME = re.compile(r"\w[\w.-]{0,80}")
LONGEST_NAME = 200
"""Bytes of a part of a picture's name."""


@dataclass(frozen=True)
class Example:
    """One labelled request. `policy` is an id of the domain's policies.

    `images` are files or pictures in memory. With `split` None the toolkit deals: examples of one
    `group` stay together, and by default those that show the same picture. `facts` are for graders
    and reports; `facts["rules"]` names the rules that decide, `id` is made up when it is left out.
    `image_names` says where each picture lies below `images/`, without its suffix (`test/7-0`), so
    that examples may share a file; by default `<split>/<id>-<number>`. What is drawn below the
    folder `work` keeps its place there instead.
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
    image_names: tuple[str, ...] | None = None


def make_rows(
    root: Path,
    examples: Sequence[Example],
    moved: Sequence[Example],
    policies: Mapping[str, Policy],
    shares: Mapping[str, float],
    seed: int,
) -> dict[str, list[Sample]]:
    """Samples by split, pictures saved below `root`.

    Args:
        root: the folder that is filled.
        examples: those that name no split are dealt by `shares` and `seed`.
        moved: examples of the split `override`.
        policies: all that examples may name, by id.
        shares: of the splits that examples are dealt to.
        seed: of the order in which they are dealt.

    Raises:
        UserError: all that is wrong with the examples, or a split of `shares` gets none.
    """
    if not examples:
        raise UserError("examples: there are none; give at least one for each split")
    problems: list[str] = []
    chosen = _splits(examples, shares, seed, problems)
    rows: dict[str, list[Sample]] = {}
    taken: set[tuple[str, str]] = set()
    gallery = Gallery(root)
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
        paths: list[str] = []
        names = example.image_names
        if names is not None and len(names) != len(example.images):
            problems.append(
                f"{where}: {len(example.images)} pictures have {len(names)} image_names; give each"
                " one, or leave image_names out"
            )
            names = None
        for index, picture in enumerate(example.images):
            try:
                given = None if names is None else names[index]
                paths.append(str(gallery.put(picture, split, f"{plain}-{index}", given)))
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


class Gallery:
    """The pictures below `images/`: each is saved once, and none in another's place."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.saved: dict[tuple[str, Path], Path] = {}
        self.shown: dict[Path, Path | Image.Image] = {}

    def put(
        self, picture: Path | Image.Image, split: str, name: str, given: str | None = None
    ) -> Path:
        """Save a picture, or find it: files of one split, or of one given name, are saved once.

        Args:
            picture: a file, or a picture in memory.
            split: it is shown in.
            name: below the split's folder, where no other is `given`.
            given: name below `images/`.

        Raises:
            UserError: no whole picture, a name that leads elsewhere, or another picture's place.
        """
        if given is not None and not _is_place(given):
            raise UserError(
                f"image name {given!r} must be a path below images/, such as 'test/7-0'; rename it"
            )
        group = given or f"{split}/"
        if isinstance(picture, Path) and (found := self.saved.get((group, picture))):
            return found
        place = save(self.root, picture, given or f"{split}/{name}")
        first = self.shown.setdefault(place, picture)
        if first is not picture and first != picture:
            raise UserError(
                f"{place.relative_to(self.root)} would be two pictures; give them different names"
            )
        if isinstance(picture, Path):
            self.saved[group, picture] = place
        return place


def _is_place(name: str) -> bool:
    parts = name.split("/")
    return all(
        part.strip()
        and part[0] != "."
        and part.isprintable()
        and "\\" not in part
        and len(part.encode()) <= LONGEST_NAME
        for part in parts
    )


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
