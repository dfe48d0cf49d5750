"""Pictures on their way into a data folder: checked, and written whole or not at all."""

import shutil
import warnings
from pathlib import Path

from PIL import Image

from trimpi.errors import UserError
from trimpi.picture_file import PICTURE_ERRORS

MOST_PIXELS = 50_000_000


def save(root: Path, picture: Path | Image.Image, name: str) -> Path:
    """Put a picture below `root` as `name` (its suffix is added); a file already there stays.

    Raises:
        UserError: no whole picture, or more than 50 megapixels.
    """
    if isinstance(picture, Image.Image):
        target = root / f"{name}.png"
        _check_size(picture, "the picture")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        picture.save(part, format="PNG")
        part.replace(target)
        return target
    picture = Path(picture)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(picture) as opened:
                _check_size(opened, str(picture))
                opened.load()
    except PICTURE_ERRORS as error:
        raise UserError(f"{picture}: not a whole picture ({error}); restore it") from None
    inside = root in picture.parents and ".work" not in picture.relative_to(root).parts
    if inside:
        return picture
    target = root / f"{name}{picture.suffix.lower()}"
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    shutil.copyfile(picture, part)
    part.replace(target)
    return target


def _check_size(picture: Image.Image, what: str) -> None:
    if picture.width * picture.height > MOST_PIXELS:
        raise UserError(
            f"{what}: {picture.width} x {picture.height} is more than {MOST_PIXELS // 10**6} "
            "megapixels; scale it down"
        )
