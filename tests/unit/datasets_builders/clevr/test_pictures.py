"""Objects drawn for a path: they take it, and nothing else about them is fixed."""

import random
from collections import Counter

import numpy as np
import pytest

from datasets_builders.clevr.pictures import Order, Studio, draw, draw_objects
from datasets_builders.clevr.render import TINY
from datasets_builders.clevr.tree import Step, grow
from trimpi.errors import UserError


@pytest.mark.parametrize("depth", [1, 2, 6, 8])
def test_objects_lead_the_tree_to_every_response(depth: int) -> None:
    tree = grow(random.Random(depth), depth)
    rng = np.random.default_rng(0)
    for case, path in tree.leaves():
        for count in (1, 4):
            assert tree.decide(draw_objects(rng, path, count)) == (path, case)


def test_the_rest_of_the_objects_is_free() -> None:
    rng = np.random.default_rng(1)
    path = [Step("1", "color", "red", True), Step("1.1", "shape", "cube", False)]
    scenes = [draw_objects(rng, path, 3) for _ in range(600)]
    reds = Counter(sum(item["color"] == "red" for item in objects) for objects in scenes)
    assert set(reds) == {1, 2, 3} and reds[1] > reds[2] > reds[3]
    # The red object stands anywhere in the list, and free attributes stay uniform.
    first = sum(objects[0]["color"] == "red" for objects in scenes)
    assert 0.3 < first / 600 < 0.48
    metal = sum(item["material"] == "metal" for objects in scenes for item in objects)
    assert 0.46 < metal / 1800 < 0.54


def test_an_impossible_path_is_refused() -> None:
    path = [Step("1", "size", "small", True), Step("1.1", "size", "small", False)]
    with pytest.raises(ValueError, match="take the path"):
        draw_objects(np.random.default_rng(0), path, 2)


def test_objects_that_do_not_fit_are_an_error(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets_builders.clevr.pictures._DRAWS", 2)
    monkeypatch.setattr("datasets_builders.clevr.pictures._LAYOUTS", 2)
    studio = Studio(0, TINY, (10, 10), tmp_path)
    with pytest.raises(UserError, match="objects: 10 to 10 objects do not fit into 96x64"):
        draw(studio, Order("test", 0, (), "images/test/000000.png"))
    assert list(tmp_path.rglob("*.png")) == []


def test_the_renderer_asked_for_draws_the_picture(
    tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from PIL import Image

    from datasets_builders.clevr import render_mitsuba
    from datasets_builders.clevr.render import render

    def gray(scene, profile, samples):
        size = (profile.width, profile.height)
        return replace(render(scene, profile), image=Image.new("RGB", size, (samples,) * 3))

    monkeypatch.setattr(render_mitsuba, "render", gray)
    studio = Studio(0, TINY, (1, 2), tmp_path, "mitsuba", 77)
    scene = draw(studio, Order("test", 0, (), "0.png"))
    with Image.open(tmp_path / "0.png") as image:
        assert image.getpixel((48, 32)) == (77, 77, 77)
    assert scene == draw(replace(studio, renderer="analytic"), Order("test", 0, (), "0.png"))
