"""A profile fixes the size of the pictures and the geometry; a camera projects the world."""

import math
from dataclasses import dataclass, replace
from typing import Final

from trimpi.errors import UserError

Vector = tuple[float, float, float]

# Unit vectors on the ground as seen from CLEVR's base camera (``directions`` of its scene files).
FRONT: Final[Vector] = (0.754490315914154, -0.6563112735748291, 0.0)
RIGHT: Final[Vector] = (0.6563112735748291, 0.754490315914154, 0.0)


@dataclass(frozen=True)
class Profile:
    """Everything but the scene that a picture depends on. Lengths in world units unless named."""

    name: str
    width: int  # pixels
    height: int  # pixels
    supersample: int  # rays per pixel along each axis
    focal: float  # focal length in picture widths
    distance: float  # camera to the point it looks at
    elevation: float  # of the camera above the ground, degrees
    look_at_height: float  # height of the point that the camera looks at, above the origin
    jitter: float  # largest displacement of the camera along each axis
    radius_small: float
    radius_large: float
    min_objects: int
    max_objects: int
    extent: float  # object centres lie in [-extent, extent] x [-extent, extent]
    min_distance: float  # between the surfaces of two objects' bounding circles
    margin: float  # between two centres along left-right and along front-behind
    border: int  # pixels between an object's box and the edge of the picture; negative: may leave
    min_visible_pixels: int
    min_visible_fraction: float  # of the pixels that the object covers when it stands alone
    bevel: float  # rounded part of an edge, as a share of the half side
    parallax: float  # how near the reflected surroundings are; 0 = infinitely far
    contrast: float  # 0 = studio light as in CLEVR, 1 = strong cues for very small pictures

    def radius(self, size: str) -> float:
        return self.radius_large if size == "large" else self.radius_small


CLEVR: Final = Profile(
    name="clevr",
    width=480,
    height=320,
    supersample=2,
    focal=35 / 32,
    distance=11.15,
    elevation=27.4,
    look_at_height=0.0,
    jitter=0.5,
    radius_small=0.35,
    radius_large=0.7,
    min_objects=3,
    max_objects=10,
    extent=3.0,
    min_distance=0.25,
    margin=0.4,
    border=0,
    min_visible_pixels=200,
    min_visible_fraction=0.3,
    bevel=0.13,
    parallax=0.35,
    contrast=0.0,
)

TINY: Final = replace(
    CLEVR,
    name="tiny",
    width=96,
    height=64,
    supersample=3,
    focal=2.66,
    distance=13.0,
    elevation=34.0,
    look_at_height=0.35,
    jitter=0.3,
    radius_small=0.38,
    radius_large=0.7,
    min_objects=1,
    max_objects=4,
    extent=2.3,
    min_distance=0.05,
    margin=0.15,
    border=1,
    min_visible_pixels=70,
    min_visible_fraction=0.65,
    bevel=0.12,
    parallax=0.6,
    contrast=1.0,
)


def scaled(profile: Profile, width: int, height: int) -> Profile:
    """The same geometry at another size, from 96x64 to 480x320 pixels.

    The least visible area scales with the picture. Raises UserError outside that range.
    """
    if not (96 <= width <= 480 and 64 <= height <= 320):
        raise UserError(
            f"picture size {width}x{height}: outside 96x64 to 480x320; choose a size in between"
        )
    area = width * height / (profile.width * profile.height)
    return replace(
        profile,
        width=width,
        height=height,
        supersample=2 if width >= 240 else 3,
        # The field of view follows the narrower side, so that no object is cut off.
        focal=profile.focal * min(1.0, (height / width) / (profile.height / profile.width)),
        min_visible_pixels=max(8, round(profile.min_visible_pixels * area)),
    )


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; the ray of pixel (u, v) is ``forward + x * right + y * up``, depth 1."""

    location: Vector
    forward: Vector
    right: Vector
    up: Vector
    focal: float  # pixels
    center: tuple[float, float]  # pixels

    def project(self, point: Vector) -> tuple[float, float, float]:
        """Pixel coordinates (u, v) and depth along the viewing direction."""
        relative = tuple(a - b for a, b in zip(point, self.location, strict=True))
        depth = _dot(relative, self.forward)
        scale = self.focal / depth
        u = self.center[0] + scale * _dot(relative, self.right)
        return u, self.center[1] - scale * _dot(relative, self.up), depth


def base_location(profile: Profile) -> Vector:
    """Where the camera stands without jitter."""
    elevation = math.radians(profile.elevation)
    flat = profile.distance * math.cos(elevation)
    height = profile.look_at_height + profile.distance * math.sin(elevation)
    return flat * FRONT[0], flat * FRONT[1], height


def camera_of(scene: dict, profile: Profile, scale: int = 1) -> Camera:
    """The camera of a scene: its ``camera.location`` where given, else the profile's own.

    ``scale`` multiplies the pixels along each axis (supersampling).
    """
    stored = scene.get("camera", {}).get("location")
    location: Vector = tuple(map(float, stored)) if stored else base_location(profile)  # type: ignore[assignment]
    target = (0.0, 0.0, profile.look_at_height)
    forward = _unit(tuple(a - b for a, b in zip(target, location, strict=True)))
    right = _unit((forward[1], -forward[0], 0.0))
    up = (
        right[1] * forward[2] - right[2] * forward[1],
        right[2] * forward[0] - right[0] * forward[2],
        right[0] * forward[1] - right[1] * forward[0],
    )
    return Camera(
        location,
        forward,
        right,
        up,
        profile.focal * profile.width * scale,
        (profile.width * scale / 2, profile.height * scale / 2),
    )


def _dot(a: tuple[float, ...], b: Vector) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _unit(v: tuple[float, ...]) -> Vector:
    length = math.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
    return v[0] / length, v[1] / length, v[2] / length
