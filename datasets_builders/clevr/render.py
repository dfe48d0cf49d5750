"""Draw a CLEVR scene by casting rays, with the exact mask of every object.

Each object is intersected analytically inside its box on the screen and merged into a depth
buffer, several rays a pixel. The result depends on the scene and the profile alone.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .camera import CLEVR, TINY, Camera, Profile, camera_of, scaled
from .ontology import RGB
from .shading import Array, Triple, encode, ground_light, shadow, shadow_step, surface

__all__ = ["CLEVR", "TINY", "Profile", "Rendered", "locate", "render", "save_png", "scaled"]

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Rendered:
    """A picture and what can be seen on it. Boxes are (left, top, right, bottom), exclusive."""

    image: Image.Image
    mask: Array  # uint8 [height, width]: 0 = ground, i + 1 = object i
    visible_pixels: list[int]
    unoccluded_pixels: list[int]
    boxes: list[Box]  # of the whole object, as if nothing stood in front of it


@dataclass(frozen=True)
class _Hits:
    """Where the rays of a window meet one object; the window is in supersampled pixels."""

    window: Box
    depth: Array  # float32 [rows, columns], inf where the ray misses
    rays: Triple  # ray directions of the window, depth 1


@dataclass(frozen=True)
class Located:
    """Visibility without colour: what ``render`` knows before it shades."""

    mask: Array
    visible_pixels: list[int]
    unoccluded_pixels: list[int]
    boxes: list[Box]


def locate(scene: dict, profile: Profile) -> Located:
    """Mask, visible pixels and boxes of a scene, one ray a pixel: the fast half of ``render``."""
    return _visibility(_intersect(scene, profile, 1), profile, 1)[0]


def render(scene: dict, profile: Profile) -> Rendered:
    """The picture of a scene in CLEVR's JSON form. Pure: equal input gives equal bytes.

    Objects take their extent from the height of their centre (``3d_coords[2]``), as CLEVR's do;
    ``rotation`` is in radians: CLEVR draws it from [0, 360) and hands it to Blender as radians;
    the camera is ``scene["camera"]["location"]``, or the profile's own where the scene has none.
    """
    scale = profile.supersample
    camera = camera_of(scene, profile, scale)
    hits = _intersect(scene, profile, scale)
    located, owner = _visibility(hits, profile, scale)
    canvas = np.repeat(np.repeat(_ground(scene, profile), scale, axis=0), scale, axis=1)
    for index, (entry, hit) in enumerate(zip(scene["objects"], hits, strict=True)):
        left, top, right, bottom = hit.window
        shown = owner[top:bottom, left:right] == index + 1
        canvas[top:bottom, left:right][shown] = encode(_shade(entry, hit, shown, camera, profile))
    image = Image.fromarray(canvas).reduce(scale)
    return Rendered(
        image, located.mask, located.visible_pixels, located.unoccluded_pixels, located.boxes
    )


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG whose bytes depend on the pixels alone (no metadata, fixed compression)."""
    temporary = path.with_name(path.name + ".part")
    image.save(temporary, format="PNG", compress_level=6, optimize=False)
    temporary.replace(path)


def _ground(scene: dict, profile: Profile) -> Array:
    """The ground with all shadows, sRGB uint8 [height, width, 3]."""
    feet = []
    for entry in scene["objects"]:
        x, y, half = entry["3d_coords"]
        feet.append((x, y, half, half * {"cube": 1.15, "sphere": 0.85}.get(entry["shape"], 1.0)))
    left = shadow(camera_of(scene, profile), profile, feet)
    if shadow_step(profile) > 1:
        size = (profile.width, profile.height)
        left = np.asarray(Image.fromarray(left).resize(size, Image.Resampling.BILINEAR))
    light = encode(ground_light(profile) * left)
    return np.repeat(light[:, :, None], 3, axis=2)


def _intersect(scene: dict, profile: Profile, scale: int) -> list[_Hits]:
    camera = camera_of(scene, profile, scale)
    limits = (profile.width * scale, profile.height * scale)
    return [_hits(entry, camera, limits) for entry in scene["objects"]]


def _hits(entry: dict, camera: Camera, limits: tuple[int, int]) -> _Hits:
    x, y, half = entry["3d_coords"]
    window = _window(camera, (x, y, half), half, entry["shape"], limits)
    left, top, right, bottom = window
    u = np.arange(left, right, dtype=np.float32) + 0.5
    v = np.arange(top, bottom, dtype=np.float32) + 0.5
    a = ((u - camera.center[0]) / camera.focal).astype(np.float32)[None, :]
    b = ((camera.center[1] - v) / camera.focal).astype(np.float32)[:, None]
    dx, dy, dz = (
        np.float32(camera.forward[i])
        + a * np.float32(camera.right[i])
        + b * np.float32(camera.up[i])
        for i in range(3)
    )
    origin = (camera.location[0] - x, camera.location[1] - y, camera.location[2] - half)
    rays = (dx, dy, dz)
    if entry["shape"] == "sphere":
        depth = _sphere(origin, rays, half)
    elif entry["shape"] == "cylinder":
        depth = _cylinder(origin, rays, half)
    else:
        depth = _cube(origin, rays, half, entry["rotation"])
    return _Hits(window, depth, rays)


def _window(
    camera: Camera, center: tuple[float, float, float], half: float, shape: str, limits: Box | tuple
) -> Box:
    """A box on the screen that holds the projected object, clipped to the picture."""
    wide = half * (math.sqrt(2) if shape == "cube" else 1.0)
    corners = [
        camera.project((center[0] + i * wide, center[1] + j * wide, center[2] + k * half))
        for i in (-1, 1)
        for j in (-1, 1)
        for k in (-1, 1)
    ]
    us, vs = [c[0] for c in corners], [c[1] for c in corners]
    left = min(max(math.floor(min(us)), 0), limits[0])
    top = min(max(math.floor(min(vs)), 0), limits[1])
    right = max(min(math.ceil(max(us)), limits[0]), left)
    bottom = max(min(math.ceil(max(vs)), limits[1]), top)
    return left, top, right, bottom


def _sphere(origin: tuple[float, float, float], rays: Triple, radius: float) -> Array:
    (ox, oy, oz), (dx, dy, dz) = origin, rays
    a = dx * dx + dy * dy + dz * dz
    b = dx * ox + dy * oy + dz * oz
    c = ox * ox + oy * oy + oz * oz - radius * radius
    inside = b * b - a * c
    return np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)


def _cylinder(origin: tuple[float, float, float], rays: Triple, half: float) -> Array:
    """An upright cylinder, radius = half height; its foot is never seen from above."""
    (ox, oy, oz), (dx, dy, dz) = origin, rays
    a = dx * dx + dy * dy
    b = dx * ox + dy * oy
    c = ox * ox + oy * oy - half * half
    inside = b * b - a * c
    side = np.where(inside > 0, (-b - np.sqrt(np.maximum(inside, 0))) / a, np.inf)
    height = oz + np.where(inside > 0, side, 0) * dz
    side = np.where(np.abs(height) <= half, side, np.inf)
    top = (half - oz) / np.minimum(dz, -1e-6)
    tx, ty = ox + top * dx, oy + top * dy
    return np.minimum(side, np.where(tx * tx + ty * ty <= half * half, top, np.inf))


def _cube(origin: tuple[float, float, float], rays: Triple, half: float, angle: float) -> Array:
    """A cube turned by ``angle`` about the vertical: the slab method in its own frame."""
    cos, sin = math.cos(angle), math.sin(angle)
    (ox, oy, oz), (dx, dy, dz) = origin, rays
    near = np.full(dx.shape, -np.inf, dtype=np.float32)
    far = np.full(dx.shape, np.inf, dtype=np.float32)
    for o, d in (
        (ox * cos + oy * sin, dx * cos + dy * sin),
        (oy * cos - ox * sin, dy * cos - dx * sin),
        (oz, dz),
    ):
        inverse = 1.0 / np.where(np.abs(d) < 1e-7, np.float32(1e-7), d)
        first, second = (-half - o) * inverse, (half - o) * inverse
        near = np.maximum(near, np.minimum(first, second))
        far = np.minimum(far, np.maximum(first, second))
    return np.where(near < far, near, np.inf)


def _visibility(hits: list[_Hits], profile: Profile, scale: int) -> tuple[Located, Array]:
    """Merge the objects by depth. Returns what is visible and the owner of every ray."""
    depth = np.full((profile.height * scale, profile.width * scale), np.inf, dtype=np.float32)
    owner = np.zeros(depth.shape, dtype=np.uint8)
    middle = scale // 2
    unoccluded: list[int] = []
    boxes: list[Box] = []
    for index, hit in enumerate(hits):
        left, top, right, bottom = hit.window
        found = hit.depth
        nearer = found < depth[top:bottom, left:right]
        np.copyto(depth[top:bottom, left:right], found, where=nearer)
        np.copyto(owner[top:bottom, left:right], np.uint8(index + 1), where=nearer)
        # The pixel's mask is the ray in its middle.
        first_row, first_column = (middle - top) % scale, (middle - left) % scale
        alone = np.isfinite(found[first_row::scale, first_column::scale])
        unoccluded.append(int(alone.sum()))
        row, column = (top + first_row) // scale, (left + first_column) // scale
        boxes.append(_box_of(alone, column, row))
    mask = owner[middle::scale, middle::scale].copy()
    counts = np.bincount(mask.ravel(), minlength=len(hits) + 1)
    return Located(mask, [int(n) for n in counts[1:]], unoccluded, boxes), owner


def _box_of(alone: Array, column: int, row: int) -> Box:
    rows, columns = np.flatnonzero(alone.any(axis=1)), np.flatnonzero(alone.any(axis=0))
    if rows.size == 0:
        return column, row, column, row
    return (
        column + int(columns[0]),
        row + int(rows[0]),
        column + int(columns[-1]) + 1,
        row + int(rows[-1]) + 1,
    )


def _shade(entry: dict, hit: _Hits, shown: Array, camera: Camera, profile: Profile) -> Array:
    """Linear colour [n, 3] of the rays of one object that nothing else blocks."""
    depth = hit.depth[shown]
    dx, dy, dz = (component[shown] for component in hit.rays)
    x, y, half = (np.float32(value) for value in entry["3d_coords"])
    px = np.float32(camera.location[0]) - x + depth * dx
    py = np.float32(camera.location[1]) - y + depth * dy
    pz = np.float32(camera.location[2]) - half + depth * dz
    scale = 1.0 / np.sqrt(dx * dx + dy * dy + dz * dz)
    albedo = tuple(channel / 255 for channel in RGB[entry["color"]])
    return surface(
        (px, py, pz),
        _normal(entry, (px, py, pz), float(half), profile.bevel),
        (dx * scale, dy * scale, dz * scale),
        albedo,  # type: ignore[arg-type]
        entry["material"] == "metal",
        float(half),
        profile,
    )


def _normal(entry: dict, point: Triple, half: float, bevel: float) -> Triple:
    """Unit normals; near an edge they turn towards the next face, as on CLEVR's rounded edges."""
    px, py, pz = point
    if entry["shape"] == "sphere":
        return px / half, py / half, pz / half
    flat = half * (1.0 - bevel)
    if entry["shape"] == "cylinder":
        radius = np.sqrt(px * px + py * py)
        out, up = np.maximum(radius - flat, 1e-6), np.maximum(np.abs(pz) - flat, 0.0)
        length = 1.0 / np.sqrt(out * out + up * up)
        out = out * length / np.maximum(radius, 1e-6)
        return px * out, py * out, np.copysign(up * length, pz)
    angle = entry["rotation"]
    cos, sin = np.float32(math.cos(angle)), np.float32(math.sin(angle))
    local = (px * cos + py * sin, py * cos - px * sin, pz)
    nx, ny, nz = (np.copysign(np.maximum(np.abs(c) - flat, 0.0), c) for c in local)
    length = 1.0 / np.sqrt(np.maximum(nx * nx + ny * ny + nz * nz, 1e-12))
    nx, ny, nz = nx * length, ny * length, nz * length
    return nx * cos - ny * sin, nx * sin + ny * cos, nz
