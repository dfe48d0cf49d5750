"""Pictures on order: scenes whose objects lead a tree to a wanted response, drawn in parallel.

The random numbers of a picture depend on (seed, split, index) alone, so its bytes are the same
whatever the number of processes, and an interrupted build goes on where it was.
"""

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datasets_builders.base import write_text
from datasets_builders.clevr.camera import Profile
from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.clevr.render import Rendered, save_png
from datasets_builders.clevr.scenes import PlacementError, place, sample_attributes
from datasets_builders.clevr.tree import Step
from datasets_builders.parallel import spread
from trimpi.errors import UserError

Scene = dict[str, Any]
CHUNK = 16
_LAYOUTS = 60  # arrangements tried for one list of objects
_DRAWS = 40  # lists of objects tried for one picture


@dataclass(frozen=True)
class Order:
    """One picture to draw: the path that its objects must take, and where it goes."""

    split: str
    index: int
    path: tuple[Step, ...]
    file: str


@dataclass(frozen=True)
class Studio:
    """What all pictures of a data set share. `objects`: fewest and most objects a picture."""

    seed: int
    profile: Profile
    objects: tuple[int, int]
    root: Path
    renderer: str = "analytic"
    samples: int = 64

    def shoot(
        self, rng: np.random.Generator, objects: list[dict[str, str]]
    ) -> tuple[Scene, Rendered]:
        """Place objects and draw them.

        Raises:
            PlacementError: they do not fit.
        """
        scene, rendered = place(rng, objects, self.profile, max_tries=_LAYOUTS)
        if self.renderer == "mitsuba":
            # Imported here: most data sets need no Mitsuba.
            from datasets_builders.clevr import render_mitsuba

            rendered = render_mitsuba.render(scene, self.profile, self.samples)
        return scene, rendered


@dataclass(frozen=True)
class _Batch:
    studio: Studio
    orders: tuple[Order, ...]
    record: Path


def generator(seed: int, split: str, index: int) -> np.random.Generator:
    """Random numbers of one picture."""
    return np.random.default_rng([seed, zlib.crc32(split.encode()), index])


def draw_objects(
    rng: np.random.Generator, path: Sequence[Step], count: int
) -> list[dict[str, str]]:
    """`count` objects from the uniform distribution, given that they take `path`.

    Values that the path denies are left out of each attribute; lists that lack a value which the
    path needs are drawn again. That is the exact conditional distribution: nothing but the path
    itself can be told from the objects. The rarest path (four values on one object) takes 96
    draws on average.
    """
    needed = [(step.attribute, step.value) for step in path if step.outcome]
    denied = {(step.attribute, step.value) for step in path if not step.outcome}
    allowed = {
        name: [value for value in values if (name, value) not in denied]
        for name, values in ATTRIBUTES.items()
    }
    for _ in range(100_000):
        objects = sample_attributes(rng, count, allowed)
        if all(any(item[name] == value for item in objects) for name, value in needed):
            return objects
    raise ValueError(f"no {count} objects take the path {path}")


def draw(studio: Studio, order: Order) -> Scene:
    """Draw one picture into its file and return its scene (CLEVR scene JSON).

    Raises:
        UserError: the objects do not fit into the picture.
    """
    rng = generator(studio.seed, order.split, order.index)
    low, high = studio.objects
    for attempt in range(_DRAWS):
        # Where crowded scenes do not fit, fewer objects are asked for in the later half.
        top = high if attempt < _DRAWS // 2 else low
        objects = draw_objects(rng, order.path, int(rng.integers(low, top + 1)))
        try:
            scene, rendered = studio.shoot(rng, objects)
        except PlacementError:
            continue
        file = studio.root / order.file
        file.parent.mkdir(parents=True, exist_ok=True)
        save_png(rendered.image, file)
        return label(scene, order.split, order.index, order.file)
    size = f"{studio.profile.width}x{studio.profile.height}"
    raise UserError(
        f"objects: {low} to {high} objects do not fit into {size} pictures of profile"
        f" {studio.profile.name!r}; ask for fewer objects"
    )


def label(scene: Scene, split: str, index: int, file: str) -> Scene:
    """The scene with CLEVR's own keys that say which picture it belongs to."""
    head = {"split": split, "image_index": index, "image_filename": Path(file).name}
    return {**head, **{key: value for key, value in scene.items() if key not in head}}


def draw_all(studio: Studio, orders: Sequence[Order], workers: int) -> Iterator[list[Scene]]:
    """Draw all pictures of one split; yields scenes in order, a chunk at a time.

    Each finished chunk is recorded below `scenes`, which lets an interrupted build skip it.
    """
    chunks = [tuple(orders[start : start + CHUNK]) for start in range(0, len(orders), CHUNK)]
    batches = [
        _Batch(studio, chunk, studio.root / "scenes" / f"{chunk[0].split}-{number:06d}.json")
        for number, chunk in enumerate(chunks)
    ]
    return spread(_draw_batch, batches, workers)


def _draw_batch(batch: _Batch) -> list[Scene]:
    if batch.record.is_file():
        return list(json.loads(batch.record.read_text(encoding="utf-8")))
    scenes = [draw(batch.studio, order) for order in batch.orders]
    write_text(batch.record, json.dumps(scenes))
    return scenes
