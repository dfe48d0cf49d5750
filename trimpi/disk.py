"""Disks that are full or cannot be written, in one line."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trimpi.errors import UserError

OTHER = "choose another --output"
FAULTS = {
    errno.ENOSPC: ("cannot be written, no space is left on its disk", f"free some, or {OTHER}"),
    errno.EDQUOT: ("cannot be written, the disk quota is used up", f"free some of it, or {OTHER}"),
    errno.EROFS: (
        "cannot be written, its file system is read-only",
        f"mount it for writing, or {OTHER}",
    ),
    errno.EACCES: ("permission denied", f"grant it, or {OTHER}"),
}
"""What is wrong, and the cure."""
TORN = ("a file was not written whole", f"free some space, or {OTHER}")
"""What torch tells of any write that fails, without its cause."""


@contextmanager
def disk_faults_named(
    what: str,
    folder: Path | None = None,
    more: Callable[[], str] = lambda: "the same command goes on from what is there",
) -> Iterator[None]:
    """Turn an error of the block that a disk is to blame for into one line.

    Args:
        what: what the line begins with.
        folder: where the block writes. Where it is given, a permission that is missing elsewhere
            is another fault, which is passed on.
        more: called for the end of the line: what is needed, what is kept.

    Raises:
        UserError: names the path, what is wrong, what to do.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        found = _fault(error)
        if found is None:
            raise
        number, path = found
        if number == errno.EACCES and not (path and (folder is None or _inside(path, folder))):
            raise
        fault, cure = TORN if number is None else FAULTS[number]
        place = path or folder or Path.cwd()
        if number in (None, errno.ENOSPC):
            fault += f" ({_free(place)} free)"
        start = f"{what}: " if what else ""
        raise UserError(f"{start}{place}: {fault}; {cure}; {more()}") from None


def folder_problem(folder: Path) -> str | None:
    """Why a folder cannot be made or written, told before anything else is done; None if it can."""
    nearest = _nearest(folder)
    if not nearest.is_dir():
        return f"{folder}: {nearest} is a file, not a folder; {OTHER}"
    if not os.access(nearest, os.W_OK | os.X_OK):
        return f"{folder}: cannot write in {nearest}; make it writable, or {OTHER}"
    return None


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def bytes_text(size: float) -> str:
    """A size for people, such as 1.5 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _fault(error: BaseException) -> tuple[int | None, Path | None] | None:
    """(number of a fault of a disk, None of an unknown one; path if told); None for others."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in FAULTS:
            name = cause.filename
            return cause.errno, Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None
        said = str(cause)
        for number in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            if os.strerror(number) in said:  # safetensors has no error of its own for it
                return number, None
        if isinstance(cause, RuntimeError) and (
            "PytorchStreamWriter failed" in said
            or ("inline_container" in said and "unexpected pos" in said)
        ):
            return None, None
        cause = cause.__cause__
    return None


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if _exists(p))


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a folder above it may not be entered
        return False


def _free(path: Path) -> str:
    return bytes_text(shutil.disk_usage(_nearest(path)).free)
