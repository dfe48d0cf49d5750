"""Pictures in all the forms that tables hold them in."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets_builders.document.pictures import look, read_pictures, save


def png(color: str = "red", form: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (6, 4), color).save(stream, form)
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    (tmp_path / "pictures" / "b.png").write_bytes(png("blue"))
    return tmp_path


def test_every_form_gives_the_same_picture(folder: Path) -> None:
    uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    opened = Image.open(io.BytesIO(png()))
    forms = [
        "pictures/a.png",
        str(folder / "pictures" / "a.png"),
        png(),
        {"bytes": png(), "path": "x.png"},
        {"bytes": None, "path": "pictures/a.png"},
        uri,
        {"url": uri},
        opened,
    ]
    for form in forms:
        (picture,) = read_pictures(form, folder)
        with Image.open(io.BytesIO(picture.read())) as image:
            assert image.size == (6, 4) and image.getpixel((0, 0)) == (255, 0, 0)


def test_lists_and_empty_values(folder: Path) -> None:
    names = ["pictures/a.png", "pictures/b.png"]
    assert [p.name for p in read_pictures(names, folder)] == names
    assert [p.name for p in read_pictures(json.dumps(names), folder)] == names
    for empty in (None, "", [], [None]):
        assert read_pictures(empty, folder) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("https://example.org/a.png", "is an address; download the picture and give its path"),
        ("pictures/c.png", "'pictures/c.png' is not there (looked in "),
        ("data:image/png;base64,@@@", "a data URI that is not base64"),
        ("iVBORw0KGgo" * 200, "is neither a path nor a picture as data:image/png;base64,"),
        (7, "int is no picture; give a path, bytes or a data URI"),
        ({"href": "a.png"}, "an object with href is no picture; give a path"),
    ],
)
def test_what_is_no_picture(folder: Path, value: object, words: str) -> None:
    with pytest.raises(ValueError) as error:
        read_pictures(value, folder)
    assert words in str(error.value)


def test_a_look_finds_cut_files_other_files_and_huge_ones(folder: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(folder / "cut.jpg")
    whole = (folder / "cut.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "text.png").write_text("no picture")
    Image.new("1", (8000, 6251)).save(folder / "large.png")
    names = ("cut.jpg", "text.png", "large.png")
    seen = {name: look(read_pictures(name, folder)[0]).fault for name in names}
    assert seen["cut.jpg"].startswith("cut.jpg is not a whole picture (image file is truncated")
    assert seen["text.png"] == "text.png is not a whole picture (unknown kind); replace it"
    assert seen["large.png"] == ("large.png is 8000 x 6251, more than 50 megapixels; scale it down")
    good, again = (look(read_pictures(v, folder)[0]) for v in ("pictures/a.png", png()))
    assert good == again and good.fault == "" and len(good.digest) == 64


def test_saving_keeps_files_and_names_bytes_by_their_format(folder: Path) -> None:
    (own,) = read_pictures("pictures/a.png", folder)
    assert save(own, folder / "x") == folder / "pictures" / "a.png"
    for form, suffix in (("JPEG", ".jpg"), ("PNG", ".png"), ("TIFF", ".png")):
        (picture,) = read_pictures(png(form=form), None)
        file = save(picture, folder / form)
        assert file.suffix == suffix and Image.open(file).size == (6, 4)
