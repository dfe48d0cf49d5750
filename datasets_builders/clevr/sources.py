"""Where pictures come from: drawn to order, or found in a real CLEVR directory.

Both give the pictures of a split for interleaved policies: row `i` belongs to policy `i % P`.
"""

import random
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from PIL import Image

from datasets_builders.clevr import scenes
from datasets_builders.clevr.crops import Crop, Value, clear_crops, collect, estimated_boxes
from datasets_builders.clevr.pictures import Order, Scene, Studio, draw_all, generator, label
from datasets_builders.clevr.render import save_png
from datasets_builders.clevr.tree import Step, Tree
from trimpi.errors import UserError
from trimpi.picture_file import PICTURE_ERRORS

_CROP_SCENES = 4000


@dataclass(frozen=True)
class Picture:
    """A picture of a split: its scene and its file, relative to the data folder."""

    scene: Scene
    file: str


class Source(Protocol):
    """Gives crops first, then the pictures of each split."""

    def crops(self, needed: Iterable[Value]) -> dict[Value, list[Crop]]:
        """Crops that show each needed (attribute, value), from pictures of no split."""
        ...

    def pictures(self, split: str, trees: Sequence[Tree], rows: int) -> Iterator[Picture]:
        """`rows` pictures for each tree, the trees taking turns."""
        ...


def targets(rng: random.Random, tree: Tree, rows: int) -> list[tuple[Step, ...]]:
    """Paths to take, uniform over the responses: each round holds every response once, shuffled."""
    paths = [tuple(path) for _, path in tree.leaves()]
    chosen: list[tuple[Step, ...]] = []
    while len(chosen) < rows:
        chosen += rng.sample(paths, len(paths))
    return chosen[:rows]


@dataclass(frozen=True)
class Drawn:
    """Pictures drawn to order, so that each policy's responses are balanced."""

    studio: Studio
    workers: int

    def crops(self, needed: Iterable[Value]) -> dict[Value, list[Crop]]:
        """Crops from pictures drawn for this alone, in the look of all others."""
        return collect(map(self._crops_of, range(_CROP_SCENES)), needed)[0]

    def _crops_of(self, index: int) -> list[Crop]:
        profile = self.studio.profile
        rng = generator(self.studio.seed, "crops", index)
        try:
            objects = scenes.sample_attributes(rng, int(rng.integers(1, 4)))
            scene, rendered = self.studio.shoot(rng, objects)
        except scenes.PlacementError:
            return []
        return clear_crops(
            rendered.image,
            scene,
            rendered.boxes,
            focal=profile.focal,
            radius_large=profile.radius_large,
        )

    def pictures(self, split: str, trees: Sequence[Tree], rows: int) -> Iterator[Picture]:
        """Draw the pictures of a split in parallel."""
        paths = [
            targets(random.Random(f"{self.studio.seed}/targets/{split}/{number}"), tree, rows)
            for number, tree in enumerate(trees)
        ]
        orders = [
            Order(
                split,
                index,
                paths[index % len(trees)][index // len(trees)],
                picture_file(split, index),
            )
            for index in range(rows * len(trees))
        ]
        done = 0
        for drawn in draw_all(self.studio, orders, self.workers):
            for scene in drawn:
                yield Picture(scene, orders[done].file)
                done += 1


def picture_file(split: str, index: int, suffix: str = ".png") -> str:
    """Name of a picture, relative to the data folder."""
    return f"images/{split}/{index:06d}{suffix}"


class Found:
    """Pictures of a real CLEVR directory, parted among the splits.

    Policies share the pictures of a split. Each takes its responses in turn as far as the pictures
    allow, so balance depends on them and is reported, not promised.

    Raises:
        UserError: too few pictures for the rows asked for.
    """

    def __init__(
        self,
        directory: Path,
        root: Path,
        seed: int,
        rows: Mapping[str, int],
        size: tuple[int, int] | None = None,
    ):
        self.root, self.seed, self.rows, self.size = root, seed, dict(rows), size
        self.directory = directory
        self.left = scenes.read_clevr_directory(directory)
        random.Random(f"{seed}/source").shuffle(self.left)
        self.parts: dict[str, list[tuple[Scene, Path]]] = {}
        self._require()

    def _require(self) -> None:
        need = sum(self.rows.values())
        if len(self.left) < need:
            listed = " + ".join(f"{split} {count}" for split, count in self.rows.items())
            raise UserError(
                f"source: {self.directory} has {len(self.left)} pictures left and the splits need"
                f" {need} ({listed}); ask for fewer rows or give more pictures"
            )

    def crops(self, needed: Iterable[Value]) -> dict[Value, list[Crop]]:
        """Crops from pictures that are then put aside."""
        found, used = collect(map(self._crops_of, self.left), needed)
        del self.left[:used]
        self._require()
        return found

    def _crops_of(self, pair: tuple[Scene, Path]) -> list[Crop]:
        scene, file = pair
        image = open_image(file)
        return clear_crops(image, scene, estimated_boxes(scene, image.width))

    def pictures(self, split: str, trees: Sequence[Tree], rows: int) -> Iterator[Picture]:
        """Choose and copy the pictures of a split."""
        if not self.parts:
            self.parts = dict(
                zip(self.rows, part(self.left, list(self.rows.values())), strict=True)
            )
        pool = self.parts[split]
        chosen = [self._choose(split, number, tree, rows) for number, tree in enumerate(trees)]
        copied: dict[int, Picture] = {}
        for index in range(rows * len(trees)):
            place = chosen[index % len(trees)][index // len(trees)]
            if place not in copied:
                copied[place] = self._copy(split, len(copied), *pool[place])
            yield copied[place]

    def _choose(self, split: str, number: int, tree: Tree, rows: int) -> list[int]:
        rng = random.Random(f"{self.seed}/choose/{split}/{number}")
        by_case: dict[int, list[int]] = {}
        order = list(range(len(self.parts[split])))
        rng.shuffle(order)
        for place in order:
            by_case.setdefault(tree.decide(self.parts[split][place][0]["objects"])[1], []).append(
                place
            )
        chosen: list[int] = []
        while len(chosen) < rows:
            ready = [case for case in sorted(by_case) if by_case[case]]
            rng.shuffle(ready)
            chosen += [by_case[case].pop() for case in ready]
        return chosen[:rows]

    def _copy(self, split: str, index: int, scene: Scene, file: Path) -> Picture:
        image = open_image(file)
        suffix = file.suffix.lower() if self.size is None else ".png"
        name = picture_file(split, index, suffix)
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        if self.size is None:
            shutil.copyfile(file, self.root / name)
        else:
            scene = _resized(scene, self.size[0] / image.width, self.size[1] / image.height)
            small = image.convert("RGB").resize(self.size, Image.Resampling.LANCZOS)
            save_png(small, self.root / name)
        return Picture(label(scene, split, index, name), name)


def _resized(scene: Scene, across: float, down: float) -> Scene:
    objects = []
    for item in scene["objects"]:
        u, v, depth = item["pixel_coords"]
        objects.append({**item, "pixel_coords": [round(u * across), round(v * down), depth]})
    return {**scene, "objects": objects}


def open_image(file: Path) -> Image.Image:
    """A picture, wholly decoded.

    Raises:
        UserError: the file is missing or no whole picture.
    """
    try:
        image = Image.open(file)
        image.load()
    except PICTURE_ERRORS as error:
        raise UserError(
            f"{file}: not a whole picture ({error}); restore it or leave it out"
        ) from None
    return image


def part(items: Sequence, sizes: Sequence[int]) -> list[list]:
    """Cut items into parts of at least the given sizes, the surplus shared in proportion."""
    total, cuts, seen = sum(sizes), [0], 0
    for size in sizes:
        seen += size
        cuts.append(seen + (len(items) - total) * seen // total)
    return [list(items[a:b]) for a, b in pairwise(cuts)]
