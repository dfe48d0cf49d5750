"""The picture follows the scene: occlusion, perspective, materials, and the same bytes again."""

import copy
import importlib.util
import math

import numpy as np
import pytest

from datasets_builders.clevr import render_mitsuba
from datasets_builders.clevr.camera import FRONT, RIGHT, camera_of
from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.clevr.render import CLEVR, TINY, locate, render, save_png, scaled
from trimpi.errors import UserError


def _object(right: float = 0.0, front: float = 0.0, half: float = 0.7, **attributes: str) -> dict:
    x = right * RIGHT[0] + front * FRONT[0]
    y = right * RIGHT[1] + front * FRONT[1]
    default = {"shape": "sphere", "color": "red", "size": "large", "material": "rubber"}
    return {**default, **attributes, "3d_coords": [x, y, half], "rotation": 0.3}


def _scene(*objects: dict) -> dict:
    return {"objects": list(objects)}


SHAPES = _scene(
    _object(-1.2, 0.8, shape="cube", half=0.5),
    _object(0.2, -0.5, shape="sphere", color="blue", material="metal"),
    _object(1.4, 0.9, shape="cylinder", color="yellow"),
)


def test_render_is_pure(tmp_path):
    before = copy.deepcopy(SHAPES)
    first, second = render(SHAPES, TINY), render(SHAPES, TINY)
    assert before == SHAPES
    assert first.image.tobytes() == second.image.tobytes()
    save_png(first.image, tmp_path / "a.png")
    save_png(second.image, tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize("size", [(96, 64), (128, 128), (161, 107), (320, 240), (480, 320)])
@pytest.mark.parametrize("profile", [TINY, CLEVR], ids=["tiny", "clevr"])
def test_any_size(profile, size):
    rendered = render(SHAPES, scaled(profile, *size))
    assert rendered.image.size == size
    assert rendered.image.mode == "RGB"
    assert rendered.mask.shape == (size[1], size[0])
    assert rendered.mask.dtype == np.uint8
    assert set(np.unique(rendered.mask)) == {0, 1, 2, 3}


@pytest.mark.parametrize("size", [(95, 64), (96, 63), (481, 320), (480, 321)])
def test_sizes_outside_the_range_are_refused(size):
    with pytest.raises(UserError, match="picture size"):
        scaled(CLEVR, *size)


def test_nearer_object_hides_the_farther_whatever_the_order():
    behind, before = _object(0, -1, color="blue"), _object(0.2, 0.9, color="green")
    for objects, front in (((behind, before), 1), ((before, behind), 0)):
        rendered = render(_scene(*objects), TINY)
        back = 1 - front
        assert rendered.visible_pixels[front] == rendered.unoccluded_pixels[front]
        assert 0 < rendered.visible_pixels[back] < rendered.unoccluded_pixels[back]
        left, top, right, bottom = rendered.boxes[front]
        middle = rendered.mask[(top + bottom) // 2, (left + right) // 2]
        assert middle == front + 1


def test_counts_and_boxes_describe_the_mask():
    rendered = render(SHAPES, TINY)
    for index, (left, top, right, bottom) in enumerate(rendered.boxes):
        shown = rendered.mask == index + 1
        assert int(shown.sum()) == rendered.visible_pixels[index]
        alone = render(_scene(SHAPES["objects"][index]), TINY)
        assert alone.visible_pixels == [rendered.unoccluded_pixels[index]]
        rows, columns = np.nonzero(alone.mask)
        assert (columns.min(), rows.min()) == (left, top)
        assert (columns.max() + 1, rows.max() + 1) == (right, bottom)


def test_quick_look_agrees_with_the_picture():
    quick, full = locate(SHAPES, TINY), render(SHAPES, TINY)
    for a, b in zip(quick.visible_pixels, full.visible_pixels, strict=True):
        assert abs(a - b) <= 0.05 * b
    assert np.mean(quick.mask != full.mask) < 0.02


@pytest.mark.parametrize("shape", ATTRIBUTES["shape"])
def test_nearer_is_larger(shape):
    far, near = _object(-1, -0.9, shape=shape), _object(1, 0.9, shape=shape)
    rendered = render(_scene(far, near), TINY)
    assert rendered.unoccluded_pixels[1] > 1.1 * rendered.unoccluded_pixels[0]


@pytest.mark.parametrize("angle", [0.0, 0.3, 0.8, 1.4])
def test_cube_turns_by_its_rotation_in_radians(angle):
    """The box on the picture is that of the eight turned corners, projected one by one."""
    entry = {**_object(0.4, 0.2, half=0.5, shape="cube"), "rotation": angle}
    camera = camera_of(_scene(entry), CLEVR)
    x, y, half = entry["3d_coords"]
    corners = [
        camera.project(
            (
                x + half * (i * math.cos(angle) - j * math.sin(angle)),
                y + half * (i * math.sin(angle) + j * math.cos(angle)),
                half + k * half,
            )
        )
        for i in (-1, 1)
        for j in (-1, 1)
        for k in (-1, 1)
    ]
    us, vs = [c[0] for c in corners], [c[1] for c in corners]
    expected = (min(us), min(vs), max(us), max(vs))
    assert np.allclose(render(_scene(entry), CLEVR).boxes[0], expected, atol=1.2)


def test_sizes_of_the_tiny_profile_in_pixels():
    small = TINY.radius_small
    rendered = render(_scene(_object(-1), _object(1, half=small, size="small")), TINY)
    widths = [box[2] - box[0] for box in rendered.boxes]
    assert 26 <= widths[0] <= 30
    assert 14 <= widths[1] <= 16


@pytest.mark.parametrize("shape", ATTRIBUTES["shape"])
@pytest.mark.parametrize("half", [TINY.radius_small, TINY.radius_large])
@pytest.mark.parametrize("color", ["gray", "green", "yellow"])
def test_metal_differs_from_rubber_and_has_white_highlights(shape, half, color):
    pixels = {}
    for material in ATTRIBUTES["material"]:
        entry = _object(half=half, shape=shape, color=color, material=material)
        rendered = render(_scene(entry), TINY)
        pixels[material] = np.asarray(rendered.image)[rendered.mask == 1].astype(float)
    assert np.abs(pixels["metal"] - pixels["rubber"]).mean() > 15
    whitest = {name: np.sort(found.min(axis=1))[-4:].mean() for name, found in pixels.items()}
    assert whitest["metal"] > whitest["rubber"] + 50


def test_cylinder_has_a_flat_bright_top_and_sphere_has_not():
    cylinder = render(_scene(_object(shape="cylinder")), TINY)
    left, top, right, bottom = cylinder.boxes[0]
    middle = (left + right) // 2
    column = np.asarray(cylinder.image.convert("L")).astype(float)[top + 2 : bottom - 2, middle]
    assert np.ptp(column[:8]) <= 4
    assert column[:8].min() > 1.3 * column[14:].max()
    edge = np.abs(np.diff(column)).max()
    sphere = render(_scene(_object()), TINY)
    left, top, right, bottom = sphere.boxes[0]
    middle = (left + right) // 2
    column = np.asarray(sphere.image.convert("L")).astype(float)[top + 2 : bottom - 4, middle]
    assert np.abs(np.diff(column)).max() < 0.7 * edge


def test_colors_come_out_distinct():
    pictures = [
        np.median(np.asarray(r.image)[r.mask == 1], axis=0).astype(float)
        for r in (render(_scene(_object(color=color)), TINY) for color in ATTRIBUTES["color"])
    ]
    for i, a in enumerate(pictures):
        for b in pictures[:i]:
            assert np.abs(a - b).sum() > 40


def test_objects_cast_a_shadow_on_the_ground():
    empty = np.asarray(render(_scene(), TINY).image).astype(int)
    rendered = render(_scene(_object()), TINY)
    lost = (empty - np.asarray(rendered.image).astype(int))[:, :, 0]
    left, _, right, bottom = rendered.boxes[0]
    foot = (bottom + 1, (left + right) // 2)
    assert lost[foot] > 0.35 * empty[foot][0]  # under the object, where no lamp reaches
    assert abs(lost[2, 2]) <= 2


def test_camera_of_the_scene_moves_the_picture():
    moved = {**SHAPES, "camera": {"location": [8.0, -5.0, 6.0]}}
    assert render(moved, TINY).boxes != render(SHAPES, TINY).boxes


def test_mitsuba_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "mitsuba", None)
    with pytest.raises(UserError, match=r"pip install 'trimpi\[render\]'"):
        render_mitsuba.render(SHAPES, TINY)
    with pytest.raises(UserError, match="samples=0"):
        render_mitsuba.render(SHAPES, TINY, samples=0)


@pytest.mark.skipif(importlib.util.find_spec("mitsuba") is None, reason="mitsuba not installed")
def test_mitsuba_draws_the_same_scene():
    traced, ours = render_mitsuba.render(SHAPES, TINY, samples=8), render(SHAPES, TINY)
    for _ in range(8):
        again = render_mitsuba.render(SHAPES, TINY, samples=8)
        assert traced.image.tobytes() == again.image.tobytes()
    assert traced.image.size == ours.image.size
    assert np.array_equal(traced.mask, ours.mask)
    for index in range(3):
        shown = ours.mask == index + 1
        a = np.median(np.asarray(traced.image)[shown].astype(float), axis=0)
        b = np.median(np.asarray(ours.image)[shown].astype(float), axis=0)
        assert np.corrcoef(a, b)[0, 1] > 0.8
