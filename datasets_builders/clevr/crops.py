"""Crops that stand for attribute values in policies of variant M (paper, ClevrPolicy-M).

A crop shows one whole, unhidden object and nothing of any other. Every window has the same size in
the world (a little more than a large object), whatever the distance, so that small and large can
be told apart from the crop alone.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from datasets_builders.clevr.ontology import ATTRIBUTES
from trimpi.errors import UserError

Box = tuple[float, float, float, float]
Value = tuple[str, str]

RADIUS_LARGE = 0.7  # world units; large objects of CLEVR
FOCAL = 35 / 32  # picture widths; CLEVR's camera (35 mm lens, 32 mm sensor)
ROOM = 1.3  # half a window over the radius of a large object
REACH = {"cube": 1.25, "sphere": 1.0, "cylinder": 1.3}  # half a box over the object's radius
GAP = 2.0  # pixels kept free between a window and other objects


@dataclass(frozen=True)
class Crop:
    """A cut-out picture of one object and the attributes of that object."""

    image: Image.Image
    attributes: Mapping[str, str]


def estimated_boxes(scene: Mapping[str, Any], width: int) -> list[Box]:
    """Boxes of a real CLEVR scene, which stores centres and depths only (CLEVR's own camera)."""
    boxes = []
    for item in scene["objects"]:
        u, v, depth = item["pixel_coords"]
        radius = RADIUS_LARGE * (1.0 if item["size"] == "large" else 0.5)
        half = REACH[item["shape"]] * radius * FOCAL * width / depth
        boxes.append((u - half, v - half, u + half, v + half))
    return boxes


def clear_crops(
    image: Image.Image,
    scene: Mapping[str, Any],
    boxes: Sequence[Box],
    *,
    focal: float = FOCAL,
    radius_large: float = RADIUS_LARGE,
) -> list[Crop]:
    """Every object of a picture whose window holds it whole and touches no other object.

    Args:
        boxes: (left, top, right, bottom) in pixels of each object as if unhidden.
        focal: focal length in picture widths.
        radius_large: world units.
    """
    crops = []
    for index, (item, box) in enumerate(zip(scene["objects"], boxes, strict=True)):
        half = ROOM * radius_large * focal * image.width / item["pixel_coords"][2]
        u, v = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        left, top, side = round(u - half), round(v - half), round(2 * half)
        window = (left, top, left + side, top + side)
        whole = _within(box, window) and _within(window, (0, 0, image.width, image.height))
        others = (other for place, other in enumerate(boxes) if place != index)
        if whole and not any(_overlap(window, other) for other in others):
            attributes = {name: item[name] for name in ATTRIBUTES}
            crops.append(Crop(image.crop(window).convert("RGB"), attributes))
    return crops


def _within(inner: Sequence[float], outer: Sequence[float]) -> bool:
    return (
        inner[0] >= outer[0]
        and inner[1] >= outer[1]
        and inner[2] <= outer[2]
        and inner[3] <= outer[3]
    )


def _overlap(window: Sequence[float], other: Sequence[float]) -> bool:
    return (
        other[0] < window[2] + GAP
        and other[2] > window[0] - GAP
        and other[1] < window[3] + GAP
        and other[3] > window[1] - GAP
    )


def collect(
    pictures: Iterable[list[Crop]], needed: Iterable[Value], variety: int = 4
) -> tuple[dict[Value, list[Crop]], int]:
    """Take crops from pictures until every needed value is shown by `variety` of them.

    Returns:
        The crops by (attribute, value), and the number of pictures that were used up.

    Raises:
        UserError: the pictures end before each needed value has one crop.
    """
    found: dict[Value, list[Crop]] = {value: [] for value in sorted(needed)}
    used = 0
    for crops in pictures:
        if all(len(shown) >= variety for shown in found.values()):
            break
        used += 1
        for crop in crops:
            for (name, value), shown in found.items():
                if crop.attributes[name] == value and len(shown) < variety:
                    shown.append(crop)
    missing = [f"{name}={value}" for (name, value), shown in found.items() if not shown]
    if missing:
        raise UserError(
            f"variant: no clear crop shows {', '.join(missing)}; give more source pictures or"
            " use variant T"
        )
    return found, used
