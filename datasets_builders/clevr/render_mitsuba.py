"""Draw a CLEVR scene by path tracing with Mitsuba 3, behind the same call as ``render``.

Slower than the analytic renderer, with true soft shadows and mirror images of other objects.
Needs ``pip install mitsuba`` (the optional extra ``render``). Mask, boxes and visible pixels come
from the analytic renderer, which shares the camera.
"""

import math
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from trimpi.errors import UserError

from .camera import FRONT, RIGHT, Camera, Profile, camera_of
from .ontology import RGB
from .render import Rendered
from .render import render as render_analytic
from .shading import encode

# Area lights: (right, front, above) of the base camera's frame, half side, emitted radiance.
_LAMPS = (
    ((-4.5, 2.5, 6.0), 1.2, 7.5),  # key
    ((5.0, 3.5, 4.0), 0.9, 5.0),  # fill
    ((-1.0, -4.5, 5.5), 0.9, 5.0),  # back
)
_ROOM = 0.2  # radiance that arrives from everywhere else
_GROUND = 0.45  # reflectance


def render(scene: dict, profile: Profile, samples: int = 64) -> Rendered:
    """The picture of a scene, ``samples`` light paths a pixel; the same input gives the same bytes.

    Raises UserError where Mitsuba is not installed or ``samples`` is not positive.
    """
    if samples < 1:
        raise UserError(f"samples={samples}: must be 1 or more light paths a pixel")
    mi = _mitsuba()
    # Merging equal shapes would order the lamps by memory address, and so change the noise.
    world = mi.load_dict(_world(mi, scene, profile, samples), optimize=False)
    traced = mi.render(world, seed=0)
    linear = np.asarray(traced, dtype=np.float32)[:, :, :3]
    return replace(render_analytic(scene, profile), image=Image.fromarray(encode(linear)))


def _mitsuba() -> Any:
    """The module with a variant chosen: the caller's ``mitsuba.set_variant``, else scalar.

    The LLVM variant is not tried on its own: with an LLVM that is too old it ends the process.
    """
    try:
        import mitsuba as mi
    except ImportError:
        raise UserError(
            "the path-traced renderer needs Mitsuba 3: pip install 'trimpi[render]'"
        ) from None
    if mi.variant() is None:
        mi.set_variant("scalar_rgb")
    return mi


def _world(mi: Any, scene: dict, profile: Profile, samples: int) -> dict[str, Any]:
    camera = camera_of(scene, profile)
    world: dict[str, Any] = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 5},
        "sensor": _sensor(mi, camera, profile, samples),
        "room": {"type": "constant", "radiance": {"type": "rgb", "value": _ROOM}},
        "ground": {
            "type": "rectangle",
            "to_world": mi.ScalarTransform4f().scale(60.0),
            "bsdf": {"type": "diffuse", "reflectance": {"type": "rgb", "value": _GROUND}},
        },
    }
    for index, (place, half, radiance) in enumerate(_LAMPS):
        world[f"lamp{index}"] = _lamp(mi, place, half, radiance)
    for index, entry in enumerate(scene["objects"]):
        for part, shape in _shapes(mi, entry).items():
            world[f"object{index}_{part}"] = {**shape, "bsdf": _material(entry)}
    return world


def _sensor(mi: Any, camera: Camera, profile: Profile, samples: int) -> dict[str, Any]:
    target = [a + b for a, b in zip(camera.location, camera.forward, strict=True)]
    return {
        "type": "perspective",
        "fov_axis": "x",
        "fov": math.degrees(2 * math.atan(profile.width / 2 / camera.focal)),
        "to_world": mi.ScalarTransform4f().look_at(
            origin=list(camera.location), target=target, up=[0.0, 0.0, 1.0]
        ),
        "film": {
            "type": "hdrfilm",
            "width": profile.width,
            "height": profile.height,
            "pixel_format": "rgb",
            "component_format": "float32",
            "rfilter": {"type": "box"},
        },
        "sampler": {"type": "multijitter", "sample_count": samples},
    }


def _lamp(
    mi: Any, place: tuple[float, float, float], half: float, radiance: float
) -> dict[str, Any]:
    right, front, above = place
    origin = [right * RIGHT[0] + front * FRONT[0], right * RIGHT[1] + front * FRONT[1], above]
    aim = mi.ScalarTransform4f().look_at(origin=origin, target=[0.0, 0.0, 0.0], up=[0.0, 0.0, 1.0])
    return {
        "type": "rectangle",
        "to_world": aim @ mi.ScalarTransform4f().scale(half),
        "emitter": {"type": "area", "radiance": {"type": "rgb", "value": radiance}},
    }


def _shapes(mi: Any, entry: dict) -> dict[str, dict[str, Any]]:
    x, y, half = entry["3d_coords"]
    if entry["shape"] == "sphere":
        return {"body": {"type": "sphere", "center": [x, y, half], "radius": half}}
    if entry["shape"] == "cylinder":
        top = mi.ScalarTransform4f().translate([x, y, 2 * half])
        return {
            "body": {"type": "cylinder", "p0": [x, y, 0.0], "p1": [x, y, 2 * half], "radius": half},
            "top": {"type": "disk", "to_world": top @ mi.ScalarTransform4f().scale(half)},
        }
    turned = (
        mi.ScalarTransform4f()
        .translate([x, y, half])
        .rotate([0.0, 0.0, 1.0], math.degrees(entry["rotation"]))
    )
    return {"body": {"type": "cube", "to_world": turned.scale(half)}}


def _material(entry: dict) -> dict[str, Any]:
    colour = {"type": "rgb", "value": [(channel / 255) ** 1.15 for channel in RGB[entry["color"]]]}
    if entry["material"] == "metal":
        return {
            "type": "twosided",
            "bsdf": {"type": "roughconductor", "alpha": 0.1, "specular_reflectance": colour},
        }
    return {"type": "twosided", "bsdf": {"type": "diffuse", "reflectance": colour}}
