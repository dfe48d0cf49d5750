"""Crops show one object, whole and alone, in a window of constant size in the world."""

import numpy as np
import pytest
from PIL import Image

from datasets_builders.clevr.crops import Crop, clear_crops, collect, estimated_boxes
from datasets_builders.clevr.render import CLEVR
from datasets_builders.clevr.scenes import place
from trimpi.errors import UserError

RED = {"shape": "sphere", "color": "red", "size": "large", "material": "rubber"}


def scene_of(*places: tuple[float, float, float]) -> dict:
    return {"objects": [{**RED, "pixel_coords": [u, v, depth]} for u, v, depth in places]}


def crops_of(*places: tuple[float, float, float]) -> list[Crop]:
    scene = scene_of(*places)
    image = Image.new("RGB", (480, 320))
    return clear_crops(image, scene, estimated_boxes(scene, 480))


def test_an_object_alone_is_cropped_and_one_beside_another_is_not() -> None:
    assert len(crops_of((120, 160, 10.0))) == 1
    assert len(crops_of((120, 160, 10.0), (360, 160, 10.0))) == 2
    assert crops_of((120, 160, 10.0), (190, 160, 10.0)) == []


def test_an_object_at_the_edge_is_not_cropped() -> None:
    assert crops_of((30, 160, 10.0)) == []


def test_windows_have_one_size_in_the_world_so_small_stays_small() -> None:
    sizes = {}
    for size in ("small", "large"):
        rng = np.random.default_rng(3)
        scene, drawn = place(rng, [{**RED, "size": size}], CLEVR)
        (crop,) = clear_crops(drawn.image, scene, drawn.boxes)
        box = drawn.boxes[0]
        sizes[size] = (box[2] - box[0]) / crop.image.width
        assert crop.image.width == crop.image.height
        assert crop.attributes == {**RED, "size": size}
    assert sizes["large"] == pytest.approx(2 * sizes["small"], rel=0.1)


def test_estimated_boxes_of_real_scenes_match_drawn_ones() -> None:
    rng = np.random.default_rng(0)
    scene, drawn = place(rng, [RED], CLEVR)
    (guess,) = estimated_boxes(scene, 480)
    assert guess == pytest.approx(drawn.boxes[0], abs=4)


def test_collecting_stops_when_every_value_is_shown_and_counts_pictures() -> None:
    image = Image.new("RGB", (8, 8))
    red, blue = Crop(image, RED), Crop(image, {**RED, "color": "blue"})
    pictures = iter([[red], [], [blue], [red]])
    found, used = collect(pictures, {("color", "red"), ("color", "blue")}, variety=1)
    assert used == 3 and found["color", "blue"] == [blue] and next(pictures, None) is None


def test_a_value_that_nothing_shows_is_an_error() -> None:
    image = Image.new("RGB", (8, 8))
    with pytest.raises(UserError, match="no clear crop shows color=blue"):
        collect([[Crop(image, RED)]], {("color", "red"), ("color", "blue")})
