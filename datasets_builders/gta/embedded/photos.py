"""Photographs under free licences: reduced copies out of packages that are installed.

    python -m datasets_builders.gta.embedded.photos

makes the copies again, and `LICENCES.md`. The packages (scikit-image, scikit-learn, matplotlib) are
needed for that alone. What the photographs show is annotated by hand in `photos.yaml`.
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from datasets_builders.gta.embedded import RELEASE
from datasets_builders.gta.embedded.annotation import Annotation
from trimpi.errors import UserError

FILE = Path(__file__).with_name("photos.yaml")
LONGEST = 384
QUALITY = 82


def photos() -> dict[str, dict[str, Any]]:
    """The records of `photos.yaml`, by name."""
    records: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return records


def photo_annotations() -> dict[str, Annotation]:
    """What the photographs show, by the names of their pictures, such as `image/coffee.jpg`."""
    return {_picture(name): Annotation.from_json(record) for name, record in photos().items()}


def reduce(record: dict[str, Any]) -> Image.Image:
    """The photograph of a record, `LONGEST` pixels on its longer side.

    Raises:
        UserError: the package is not installed, or its file is another one than expected.
    """
    module, _, inner = record["file"].partition("/")
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{record['file']}: not installed; pip install {record['package']}")
    path = Path(spec.submodule_search_locations[0]) / inner
    if not path.is_file():
        raise UserError(f"{path}: no such file; install another version of {record['package']}")
    with Image.open(path) as image:
        copy = image.convert("RGB")
    copy.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    if list(copy.size) != record["size"]:
        raise UserError(f"{path}: gives {copy.size}, expected {record['size']}; see photos.yaml")
    return copy


def licences() -> str:
    """`LICENCES.md`: origin and licence of every picture."""
    rows = [
        f"| `{_numbered(number)}` | {r['title']} | {r['author']} | {r['package']}, `{r['file']}` |"
        f" {r['licence']} |"
        for number, r in enumerate(photos().values(), 1)
    ]
    return "\n".join(
        [
            "# Licences of the pictures",
            "",
            "Photographs, each a copy reduced to at most"
            f" {LONGEST} pixels on its longer side and written as JPEG; nothing else was changed.",
            "",
            "| picture | title | author | source | licence |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "All other pictures (`*.png`) are drawn by `datasets_builders/gta/embedded/drawings`"
            " and are, like the tasks, under the licence of this project (Apache-2.0). The shops,"
            " towns and prices in them are made up.",
            "",
        ]
    )


def _picture(name: str) -> str:
    return f"image/{name}.jpg"


def _numbered(number: int) -> str:
    return f"image/image_{number}.jpg"


def main() -> None:
    """Write the copies and `LICENCES.md` into the release folder."""
    copies = [reduce(record) for record in photos().values()]
    for number, copy in enumerate(copies, 1):
        copy.save(RELEASE / _numbered(number), quality=QUALITY)
    (RELEASE / "LICENCES.md").write_text(licences(), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
