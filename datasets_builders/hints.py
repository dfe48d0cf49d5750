"""What to say of a mistyped name."""

import difflib
from collections.abc import Iterable


def hint(name: object, known: Iterable[str], otherwise: str | None = None) -> str:
    """The nearest known name as a question; else `otherwise`, or all known names."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, 1, 0.5)
    if near:
        return f"did you mean {near[0]!r}?"
    return otherwise or f"known: {', '.join(names) or 'none'}"
