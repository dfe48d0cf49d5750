"""Placement keeps every object clear and separate; real CLEVR directories are read and checked."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_builders.clevr import scenes
from datasets_builders.clevr.camera import FRONT, RIGHT
from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.clevr.render import CLEVR, TINY, render, scaled
from datasets_builders.clevr.scenes import (
    PlacementError,
    place,
    read_clevr_directory,
    sample_attributes,
)
from trimpi.errors import UserError

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "clevr" / "sample"


def _placed(seed: int, count: int, profile=TINY):
    rng = np.random.default_rng(seed)
    return place(rng, sample_attributes(rng, count), profile)


def test_same_seed_gives_the_same_scene_and_bytes():
    (first, one), (second, two) = _placed(7, 3), _placed(7, 3)
    assert first == second
    assert one.image.tobytes() == two.image.tobytes()
    assert _placed(8, 3)[0] != first


def test_scene_survives_json_and_keeps_the_given_attributes():
    rng = np.random.default_rng(3)
    attributes = sample_attributes(rng, 4)
    scene, rendered = place(rng, attributes, TINY)
    again = json.loads(json.dumps(scene))
    assert render(again, TINY).image.tobytes() == rendered.image.tobytes()
    assert [{name: o[name] for name in ATTRIBUTES} for o in again["objects"]] == attributes


@pytest.mark.parametrize("profile", [TINY, scaled(CLEVR, 240, 160)], ids=["tiny", "clevr"])
def test_every_object_is_separate_inside_and_visible(profile):
    for seed in range(10):
        scene, rendered = _placed(seed, 4, profile)
        points = [(*o["3d_coords"][:2], profile.radius(o["size"])) for o in scene["objects"]]
        for i, a in enumerate(points):
            for b in points[:i]:
                dx, dy = a[0] - b[0], a[1] - b[1]
                assert math.hypot(dx, dy) >= a[2] + b[2] + profile.min_distance
                assert abs(dx * RIGHT[0] + dy * RIGHT[1]) > profile.margin
                assert abs(dx * FRONT[0] + dy * FRONT[1]) > profile.margin
        for visible, alone, box in zip(
            rendered.visible_pixels, rendered.unoccluded_pixels, rendered.boxes, strict=True
        ):
            assert visible >= profile.min_visible_pixels
            assert visible >= profile.min_visible_fraction * alone
            assert min(box) >= profile.border
            assert box[2] <= profile.width - profile.border
            assert box[3] <= profile.height - profile.border


def test_hidden_arrangements_are_rejected():
    """A smaller share of visible arrangements passes when more of each object must be seen."""
    rng = np.random.default_rng(0)
    attributes = sample_attributes(rng, 4)
    strict = replace(TINY, min_visible_fraction=0.95)
    counts = {"loose": 0, "strict": 0}
    for _ in range(200):
        scene = scenes._arrange(rng, attributes, TINY)
        if scene is not None:
            seen = scenes.locate(scene, TINY)
            counts["loose"] += scenes._clear(seen, replace(TINY, min_visible_fraction=0.0))
            counts["strict"] += scenes._clear(seen, strict)
    assert 0 < counts["strict"] < counts["loose"]


def test_impossible_demands_raise_placement_error():
    hopeless = replace(TINY, min_visible_pixels=10_000)
    rng = np.random.default_rng(0)
    with pytest.raises(PlacementError, match="2 objects"):
        place(rng, sample_attributes(rng, 2), hopeless, max_tries=5)


def test_relationships_mirror_each_other():
    scene, _ = _placed(5, 4)
    related = scene["relationships"]
    for one, other in (("left", "right"), ("front", "behind")):
        pairs = {(i, j) for i, found in enumerate(related[one]) for j in found}
        assert pairs == {(j, i) for i, found in enumerate(related[other]) for j in found}
    assert sum(map(len, related["left"])) > 0


def test_sampling_respects_the_allowed_values():
    allowed = {**ATTRIBUTES, "color": ("red", "blue"), "material": ("metal",)}
    drawn = sample_attributes(np.random.default_rng(0), 200, allowed)
    assert {o["color"] for o in drawn} == {"red", "blue"}
    assert {o["material"] for o in drawn} == {"metal"}
    assert {o["shape"] for o in drawn} == set(ATTRIBUTES["shape"])


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no CLEVR pictures at {REAL}")
def test_real_clevr_pictures_lie_under_our_masks():
    """Our projection of CLEVR's own scenes agrees with its pixel coordinates and its colours."""
    found = read_clevr_directory(REAL)
    assert len(found) == 4
    profile = scaled(CLEVR, 320, 240)
    for scene, path in found:
        image = np.asarray(Image.open(path).convert("RGB")).astype(float)
        rendered = render(scene, profile)
        for index, entry in enumerate(scene["objects"]):
            left, top, right, bottom = rendered.boxes[index]
            u, v, _ = entry["pixel_coords"]
            assert abs((left + right) / 2 - u) < 20  # the scene does not tell the camera's jitter
            assert abs((top + bottom) / 2 - v) < 20
            shown = rendered.mask == index + 1
            if entry["color"] == "gray" or shown.sum() < 100:
                continue
            ours = np.median(np.asarray(rendered.image)[shown].astype(float), axis=0)
            real = np.median(image[shown], axis=0)
            assert np.corrcoef(ours, real)[0, 1] > 0.9, (path.name, entry["color"])


@pytest.fixture
def directory(tmp_path):
    scene, rendered = _placed(1, 2)
    scene.update(image_index=0, image_filename="a.png", split="new")
    (tmp_path / "images").mkdir()
    (tmp_path / "scenes").mkdir()
    rendered.image.save(tmp_path / "images" / "a.png")
    return tmp_path, scene


def _write(root: Path, content) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "scenes" / "x.json").write_text(text, encoding="utf-8")


def test_directory_of_one_scene_or_many(directory):
    root, scene = directory
    for content in (scene, {"info": {}, "scenes": [scene]}):
        _write(root, content)
        [(read, image)] = read_clevr_directory(root)
        assert read == scene
        assert image == (root / "images" / "a.png").resolve()


def test_pictures_in_a_folder_per_split(directory):
    root, scene = directory
    (root / "images" / "new").mkdir()
    (root / "images" / "a.png").rename(root / "images" / "new" / "a.png")
    _write(root, scene)
    assert read_clevr_directory(root)[0][1].parent.name == "new"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_filename": "b.png"}, "'b.png' is not in"),
        ({"image_filename": "../scenes/x.json"}, "leaves"),
        ({"image_filename": "/etc/hostname"}, "leaves"),
        ({"image_filename": None}, "no 'image_filename'"),
        ({"objects": None}, "no list 'objects'"),
        ({"objects": ["cube"]}, "object 0: not a JSON object"),
    ],
)
def test_faulty_scenes_are_named(directory, change, message):
    root, scene = directory
    _write(root, {"scenes": [{**scene, **change}]})
    with pytest.raises(UserError, match=message) as raised:
        read_clevr_directory(root)
    assert "x.json: scene 0" in str(raised.value)


@pytest.mark.parametrize("key", [*ATTRIBUTES, "3d_coords"])
def test_unknown_values_are_named(directory, key):
    root, scene = directory
    scene["objects"][1][key] = "pink"
    _write(root, scene)
    with pytest.raises(UserError, match=f"object 1: {key}"):
        read_clevr_directory(root)


def test_all_problems_come_in_one_error(directory):
    root, scene = directory
    _write(root, {"scenes": [{**scene, "image_filename": f"no{i}.png"} for i in range(3)]})
    with pytest.raises(UserError) as raised:
        read_clevr_directory(root)
    assert len(str(raised.value).splitlines()) == 3


def test_corrupt_files_are_refused(directory):
    root, scene = directory
    _write(root, "{")
    with pytest.raises(UserError, match="not a readable JSON"):
        read_clevr_directory(root)
    _write(root, {"scenes": [scene, scene]})
    with pytest.raises(UserError, match="belongs to"):
        read_clevr_directory(root)
    _write(root, scene)
    whole = (root / "images" / "a.png").read_bytes()
    (root / "images" / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a readable picture"):
        read_clevr_directory(root)


def test_folders_that_are_not_clevr(tmp_path):
    with pytest.raises(UserError, match="no folder 'images'"):
        read_clevr_directory(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"no scenes/\*\.json"):
        read_clevr_directory(tmp_path)
