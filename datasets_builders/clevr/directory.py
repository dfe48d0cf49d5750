"""Read scenes and pictures that CLEVR's own generator wrote."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from datasets_builders.base import hash_file
from trimpi.errors import UserError
from trimpi.picture_file import PICTURE_ERRORS

from .ontology import ATTRIBUTES


def read_clevr_directory(path: Path) -> list[tuple[dict, Path]]:
    """The scenes of ``path/scenes/*.json`` with their pictures, in order of file and position.

    A file holds one scene, or many under ``"scenes"``. Pictures are looked for in ``path/images``
    and, as in the released CLEVR, in ``path/images/<split>``. Raises UserError, one line for each
    problem, on a missing folder or picture, a picture outside ``images``, an unknown attribute
    value, corrupt JSON or a corrupt picture.
    """
    images, files = path / "images", sorted((path / "scenes").glob("*.json"))
    if not images.is_dir():
        raise UserError(f"{path}: no folder 'images'; give the root of a CLEVR directory")
    if not files:
        raise UserError(f"{path}: no scenes/*.json; give the root of a CLEVR directory")
    found: list[tuple[dict, Path]] = []
    origin: dict[Path, str] = {}
    contents: dict[str, str] = {}
    problems: list[str] = []
    for file in files:
        try:
            entries = _scenes_of(file)
        except UserError as error:
            problems.append(str(error))
            continue
        for row, scene in enumerate(entries):
            where = f"{file}: scene {row}"
            try:
                _check_objects(scene, where)
                image = _image_of(scene, images, where)
                if image in origin:
                    raise UserError(f"{where}: {image.name} belongs to {origin[image]}; drop one")
                twin = contents.setdefault(hash_file(image), where)
                if twin != where:  # splits must not share a picture
                    raise UserError(f"{where}: {image.name} is the picture of {twin}; drop one")
            except UserError as error:
                problems.append(str(error))
                continue
            origin[image] = where
            found.append((scene, image))
    if problems:
        raise UserError.join(problems)
    return found


def _scenes_of(file: Path) -> list:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise UserError(f"{file}: not a readable JSON file ({error}); export it anew") from None
    if isinstance(content, dict) and isinstance(content.get("scenes"), list):
        return content["scenes"]
    if isinstance(content, dict) and "objects" in content:
        return [content]
    raise UserError(f"{file}: neither 'scenes' nor 'objects'; not a CLEVR scene file")


def _check_objects(scene: object, where: str) -> None:
    objects = scene.get("objects") if isinstance(scene, dict) else None
    if not isinstance(objects, list):
        raise UserError(f"{where}: no list 'objects'; not a CLEVR scene")
    problems = [problem for i, entry in enumerate(objects) for problem in _faults(entry, i, where)]
    if problems:
        raise UserError.join(problems)


def _faults(entry: object, index: int, where: str) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield f"{where}, object {index}: not a JSON object; export the scene anew"
        return
    for name, values in ATTRIBUTES.items():
        if entry.get(name) not in values:
            known = ", ".join(values)
            yield f"{where}, object {index}: {name} {entry.get(name)!r} is unknown; use {known}"
    for key in ("3d_coords", "pixel_coords"):
        center = entry.get(key)
        if not (isinstance(center, list) and len(center) == 3 and all(map(_finite, center))):
            yield f"{where}, object {index}: {key} must be three numbers; export the scene anew"


def _finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _image_of(scene: dict, images: Path, where: str) -> Path:
    """The scene's picture, whole and inside ``images``."""
    name = scene.get("image_filename")
    if not isinstance(name, str) or not name:
        raise UserError(f"{where}: no 'image_filename'; name a file in {images}")
    split = scene.get("split")
    folders = [images, images / split] if isinstance(split, str) and split else [images]
    for folder in folders:
        image = (folder / name).resolve()
        if not image.is_relative_to(images.resolve()):
            raise UserError(f"{where}: image {name!r} leaves {images}; name a file inside it")
        if image.is_file():
            break
    else:
        raise UserError(f"{where}: image {name!r} is not in {images}; add it or drop the scene")
    try:
        with Image.open(image) as picture:
            picture.load()
    except PICTURE_ERRORS as error:
        raise UserError(f"{image}: not a readable picture ({error}); export it anew") from None
    return image
