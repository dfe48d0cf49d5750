"""A folder that appears whole or not at all."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimpi.errors import UserError


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """A folder beside `out` to fill; it becomes `out` when the block ends without an error.

    Raises:
        UserError: `out` is there and not empty, or cannot be made.
    """
    out = Path(out).absolute()
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f"--output {out}: something is there already; choose another folder")
    part = out.with_name(f".{out.name}.part")
    try:
        if part.exists():
            shutil.rmtree(part)
        part.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"--output {out}: cannot write there ({error}); choose another") from None
    try:
        yield part
        if out.exists():
            out.rmdir()
        part.replace(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
