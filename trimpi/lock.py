"""One process at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trimpi.errors import UserError


@contextmanager
def held(lock: Path, folder: Path, busy: str, cure: str) -> Iterator[None]:
    """Hold a lock file for the block; the lock goes with the process, however that ends.

    Args:
        lock: the file, made with its folder when it is not there.
        folder: what the lock is about, for the messages.
        busy: what to say while another process holds it, and what to do then.
        cure: what to do when the file cannot be written.

    Raises:
        UserError: another process holds the lock, or the file cannot be written.
    """
    import fcntl  # not on every system, and needed by runs and builds alone

    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        stream = lock.open("w")
    except OSError as error:
        raise UserError(f"{folder}: cannot write there ({error}); {cure}") from None
    with stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: {busy}") from None
        yield
