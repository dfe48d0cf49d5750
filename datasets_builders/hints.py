"""What to say of a mistyped name or of a wrong value."""

import difflib
import reprlib
from collections.abc import Iterable


def hint(name: object, known: Iterable[str], otherwise: str | None = None) -> str:
    """The nearest known name as a question; else `otherwise`, or all known names."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1, 0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return otherwise or f"known: {', '.join(names) or 'none'}"


def shown(value: object) -> str:
    """A value as code has it, on one line of bounded length."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
