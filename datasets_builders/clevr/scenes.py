"""Scenes in CLEVR's JSON form: place objects at random, or read those of CLEVR itself."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from .camera import FRONT, RIGHT, Profile, base_location, camera_of
from .directory import read_clevr_directory
from .ontology import ATTRIBUTES
from .render import Located, Rendered, locate, render

__all__ = [
    "PlacementError",
    "place",
    "read_clevr_directory",
    "relationships",
    "sample_attributes",
]

_DIRECTIONS = {
    "left": [-RIGHT[0], -RIGHT[1], 0.0],
    "right": list(RIGHT),
    "above": [0.0, 0.0, 1.0],
    "front": list(FRONT),
    "behind": [-FRONT[0], -FRONT[1], 0.0],
    "below": [0.0, 0.0, -1.0],
}
_TRIES_PER_OBJECT = 40


class PlacementError(Exception):
    """No arrangement was found in which every object can be seen."""


def sample_attributes(
    rng: np.random.Generator, count: int, allowed: Mapping[str, Sequence[str]] = ATTRIBUTES
) -> list[dict[str, str]]:
    """``count`` objects with independent uniform attributes out of ``allowed``."""
    return [
        {name: str(values[int(rng.integers(len(values)))]) for name, values in allowed.items()}
        for _ in range(count)
    ]


def place(
    rng: np.random.Generator,
    attributes: list[dict[str, str]],
    profile: Profile,
    max_tries: int = 400,
) -> tuple[dict, Rendered]:
    """Put objects of the given attributes on the ground and draw them.

    Objects do not touch, keep a margin along left-right and front-behind (so that relations are
    unambiguous, as in CLEVR's generator), lie inside the picture, and show at least
    ``min_visible_pixels`` and ``min_visible_fraction`` of themselves; otherwise all are placed
    anew. Raises PlacementError after ``max_tries`` arrangements.
    """
    for _ in range(max_tries):
        scene = _arrange(rng, attributes, profile)
        if scene is not None and _clear(locate(scene, profile), profile):
            rendered = render(scene, profile)
            # The picture itself decides: its mask comes from finer rays than the quick look.
            if _clear(rendered, profile):
                scene["relationships"] = relationships(scene)
                return scene, rendered
    raise PlacementError(
        f"{len(attributes)} objects: no clear arrangement in {max_tries} tries "
        f"with profile {profile.name!r}"
    )


def _arrange(
    rng: np.random.Generator, attributes: list[dict[str, str]], profile: Profile
) -> dict | None:
    """One random arrangement without visibility checks, or None when it became too tight."""
    offset = rng.uniform(-profile.jitter, profile.jitter, size=3)
    location = [b + float(o) for b, o in zip(base_location(profile), offset, strict=True)]
    scene: dict = {
        "camera": {"location": location},
        "directions": {name: list(vector) for name, vector in _DIRECTIONS.items()},
        "objects": [],
    }
    camera = camera_of(scene, profile)
    taken: list[tuple[float, float, float]] = []
    for chosen in attributes:
        radius = profile.radius(chosen["size"])
        # A cube of side sqrt(2) r and a cylinder of radius r stand on the same circle.
        half = radius / math.sqrt(2) if chosen["shape"] == "cube" else radius
        for _ in range(_TRIES_PER_OBJECT):
            x, y = (float(value) for value in rng.uniform(-profile.extent, profile.extent, size=2))
            u, v, depth = camera.project((x, y, half))
            reach = radius * camera.focal / depth + profile.border
            inside = (
                reach <= u <= profile.width - reach and reach <= v <= profile.height - reach
            ) or profile.border < 0
            if inside and all(_apart((x, y, radius), other, profile) for other in taken):
                break
        else:
            return None
        taken.append((x, y, radius))
        scene["objects"].append(
            {
                **chosen,
                "3d_coords": [x, y, half],
                "pixel_coords": [round(u), round(v), depth],
                "rotation": math.radians(float(rng.uniform(0.0, 360.0))),
            }
        )
    return scene


def _apart(a: tuple[float, float, float], b: tuple[float, float, float], profile: Profile) -> bool:
    dx, dy = a[0] - b[0], a[1] - b[1]
    if math.hypot(dx, dy) < a[2] + b[2] + profile.min_distance:
        return False
    sideways, forward = dx * RIGHT[0] + dy * RIGHT[1], dx * FRONT[0] + dy * FRONT[1]
    return abs(sideways) > profile.margin and abs(forward) > profile.margin


def _clear(seen: Located | Rendered, profile: Profile) -> bool:
    limits = (profile.width - profile.border, profile.height - profile.border)
    for visible, alone, box in zip(
        seen.visible_pixels, seen.unoccluded_pixels, seen.boxes, strict=True
    ):
        if visible < max(profile.min_visible_pixels, profile.min_visible_fraction * alone):
            return False
        if min(box[:2]) < profile.border or box[2] > limits[0] or box[3] > limits[1]:
            return False
    return True


def relationships(scene: dict, epsilon: float = 0.2) -> dict[str, list[list[int]]]:
    """For each of left, right, front, behind and each object: the objects that lie there."""
    related: dict[str, list[list[int]]] = {}
    centers = [entry["3d_coords"] for entry in scene["objects"]]
    for name in ("left", "right", "front", "behind"):
        direction = scene["directions"][name]
        related[name] = [
            [
                j
                for j, other in enumerate(centers)
                if j != i
                and sum((b - a) * d for a, b, d in zip(center, other, direction, strict=True))
                > epsilon
            ]
            for i, center in enumerate(centers)
        ]
    return related
