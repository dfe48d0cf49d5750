"""Text of a table: UTF-8, with every line that is not named."""

import codecs
from pathlib import Path

from datasets_builders.document.findings import Findings

_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
BOM = "\ufeff"


def read_text(file: Path, found: Findings) -> str | None:
    """The text of a file without a leading byte order mark, or None where it cannot be read.

    A line that is not UTF-8 is a problem and is read as Windows-1252, so that what else is wrong
    with its row is told too.

    Problems: a file that cannot be read, one in UTF-16 or UTF-32, every line that is not UTF-8
    (as of a file that was put together from two encodings), and a byte order mark inside.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        found.add(str(file), f"cannot be read ({error.strerror or error}); check the path")
        return None
    for mark, name in _MARKS:
        if content.startswith(mark):
            found.add(f"{file}:1", f"is {name} (its first bytes say so); save the file as UTF-8")
            return None
    content = content.removeprefix(codecs.BOM_UTF8)
    lines = []
    for number, line in enumerate(content.split(b"\n"), 1):
        if b"\0" in line:
            found.add(
                f"{file}:{number}",
                "holds NUL bytes, as UTF-16 does; save the file as UTF-8",
            )
            return None
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            found.add(f"{file}:{number}", _not_utf8(line, error))
            text = line.decode("cp1252", "replace")
        lines.append(text)
        if BOM in text:
            found.add(
                f"{file}:{number}",
                "a byte order mark stands inside the file, as where two files were joined; "
                "remove it",
            )
    return "\n".join(lines)


def _not_utf8(line: bytes, error: UnicodeDecodeError) -> str:
    byte = line[error.start]
    near = line[max(error.start - 12, 0) : error.end + 12].decode("cp1252", "replace").strip()
    return (
        f"not UTF-8: byte 0x{byte:02X} at {error.start + 1} (as Windows-1252 or Latin-1 it reads "
        f"{near!r}); save the whole file as UTF-8"
    )
