"""Light on surfaces: diffuse rubber, mirror-like metal, the ground and its soft shadows.

All functions work on float32 arrays, one per coordinate, in linear light. The lights stand where
CLEVR's base scene has them: a key light left of the camera, a fill light right of it and a weak
back light.
"""

from functools import lru_cache

import numpy as np

from .camera import FRONT, RIGHT, Camera, Profile

Array = np.ndarray
Triple = tuple[Array, Array, Array]


def _light(right: float, front: float, above: float) -> tuple[float, float, float]:
    x = right * RIGHT[0] + front * FRONT[0]
    y = right * RIGHT[1] + front * FRONT[1]
    length = (x * x + y * y + above * above) ** 0.5
    return x / length, y / length, above / length


KEY = _light(-0.75, 0.35, 1.0)
FILL = _light(0.85, 0.55, 0.55)
BACK = _light(-0.15, -0.8, 0.9)

# sRGB encoding as a table over linear light in 1/4095 steps.
_steps = np.arange(4096, dtype=np.float64) / 4095
SRGB = np.round(
    255 * np.where(_steps <= 0.0031308, 12.92 * _steps, 1.055 * _steps ** (1 / 2.4) - 0.055)
).astype(np.uint8)


def encode(linear: Array) -> Array:
    """sRGB bytes of linear light in [0, 1]; clips outside."""
    return SRGB[(np.clip(linear, 0.0, 1.0) * 4095 + 0.5).astype(np.int16)]


def surface(
    point: Triple,
    normal: Triple,
    view: Triple,
    albedo: tuple[float, float, float],
    metal: bool,
    half: float,
    profile: Profile,
) -> Array:
    """Linear colour [n, 3] of n surface points of one object.

    ``point`` is relative to the object's centre, ``view`` is the unit vector from the camera, and
    ``half`` is half of the object's height.
    """
    (px, py, pz), (nx, ny, nz), (vx, vy, vz) = point, normal, view
    key = _lambert(normal, KEY)
    fill = _lambert(normal, FILL)
    back = _lambert(normal, BACK)
    strong = profile.contrast
    ambient = (0.16 - 0.04 * strong) + (0.08 + 0.05 * strong) * nz
    # Light that the ground takes away near the foot of an object.
    foot = 0.72 + 0.28 * np.clip((pz / half + 1.0) * 0.8, 0.0, 1.0)
    diffuse = (ambient + _mix(0.32, 0.84, strong) * key + 0.2 * fill + 0.12 * back) * foot
    # Deeper colours: a painted surface next to others, not a light of that colour.
    base = np.asarray(albedo, dtype=np.float32) ** np.float32(_mix(1.15, 1.35, strong))
    if not metal:
        return diffuse[:, None] * base

    facing = 2.0 * (nx * vx + ny * vy + nz * vz)
    rx, ry, rz = vx - facing * nx, vy - facing * ny, vz - facing * nz
    # Surroundings at a finite distance: flat faces show a gradient, not one colour.
    near = profile.parallax / half
    ex, ey, ez = rx + near * px, ry + near * py, rz + near * pz
    scale = 1.0 / np.sqrt(ex * ex + ey * ey + ez * ez)
    ex, ey, ez = ex * scale, ey * scale, ez * scale
    # Bright ground below a sharp horizon, dark room above it, lighter towards the ceiling.
    above = np.clip((ez + _mix(0.12, 0.25, strong)) * _mix(6.0, 14.0, strong), 0.0, 1.0)
    ground = _mix(0.26, 0.64, strong) * (1.0 + 0.75 * np.clip(ez, -1.0, 0.0)) * foot
    room = _mix(0.02, 0.04, strong) + (0.22 + 0.16 * strong) * np.clip(ez, 0.0, 1.0) ** 2
    mirror = ground + above * (room - ground)
    highlight = (
        _lamp(ex, ey, ez, KEY, _mix(0.972, 0.92, strong), 40.0)
        + 0.7 * _lamp(ex, ey, ez, FILL, 0.975, 60.0)
        + 0.5 * _lamp(ex, ey, ez, BACK, 0.965, 60.0)
    )
    colour = (mirror * (1.05 + 0.25 * strong) + diffuse * (0.16 + 0.06 * strong))[:, None] * base
    return colour + np.minimum(highlight, 1.0)[:, None] * np.float32(0.85 + 0.15 * strong)


def _mix(plain: float, strong: float, contrast: float) -> float:
    return plain * (1.0 - contrast) + strong * contrast


def _lambert(normal: Triple, light: tuple[float, float, float]) -> Array:
    nx, ny, nz = normal
    return np.maximum(nx * light[0] + ny * light[1] + nz * light[2], 0.0)


def _lamp(
    x: Array, y: Array, z: Array, light: tuple[float, float, float], edge: float, sharpness: float
) -> Array:
    """A lamp with a soft rim seen in direction (x, y, z): 1 inside, 0 outside."""
    cosine = x * light[0] + y * light[1] + z * light[2]
    return np.clip((cosine - edge) * sharpness, 0.0, 1.0)


@lru_cache(maxsize=8)
def ground_light(profile: Profile) -> Array:
    """Linear brightness [height, width] of the empty ground: bright in front, dark behind."""
    u = (np.arange(profile.width, dtype=np.float32) + 0.5) / profile.width - 0.5
    v = (np.arange(profile.height, dtype=np.float32) + 0.5) / profile.height
    radial = np.sqrt((u[None, :] * 1.1) ** 2 + (v[:, None] * 0.75 - 0.85) ** 2)
    reach = _mix(0.5, 0.42, profile.contrast)
    light = _mix(0.12, 0.105, profile.contrast) + 0.26 * np.exp(-((radial / reach) ** 2))
    light.setflags(write=False)
    return light


def shadow(
    camera: Camera, profile: Profile, objects: list[tuple[float, float, float, float]]
) -> Array:
    """Share of the ground's light [height/step, width/step] that the objects leave.

    ``objects``: (x, y, half height, radius of the foot). A shadow is the sweep of the foot along
    the light's direction, softer away from the foot, and a dark ring where the object stands.
    """
    step = shadow_step(profile)
    u = np.arange(step / 2, profile.width, step, dtype=np.float32)
    v = np.arange(step / 2, profile.height, step, dtype=np.float32)
    a = ((u - camera.center[0]) / camera.focal)[None, :]
    b = ((camera.center[1] - v) / camera.focal)[:, None]
    dx, dy, dz = (camera.forward[i] + a * camera.right[i] + b * camera.up[i] for i in range(3))
    depth = -camera.location[2] / np.minimum(dz, -1e-3)
    gx = camera.location[0] + depth * dx
    gy = camera.location[1] + depth * dy
    left = np.ones(gx.shape, dtype=np.float32)
    for x, y, half, radius in objects:
        qx, qy = gx - np.float32(x), gy - np.float32(y)
        for light, strength in ((KEY, 0.42), (FILL, 0.24)):
            sx, sy = -light[0] / light[2] * 1.7 * half, -light[1] / light[2] * 1.7 * half
            along = np.clip((qx * sx + qy * sy) / (sx * sx + sy * sy), 0.0, 1.0)
            away = np.hypot(qx - along * sx, qy - along * sy) / np.float32(radius)
            soft = 0.25 + 0.75 * along
            left *= 1.0 - (strength * (1.0 - 0.45 * along)) * np.clip(
                (1.0 + 0.5 * soft - away) / soft, 0.0, 1.0
            )
        left *= 1.0 - 0.4 * np.exp(-((qx * qx + qy * qy) / (1.1 * radius) ** 2))
    return left


def shadow_step(profile: Profile) -> int:
    """Pixels between two ground samples: soft shadows need no more."""
    return 2 if profile.width >= 160 and profile.width % 2 == 0 and profile.height % 2 == 0 else 1
