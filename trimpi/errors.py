"""The one error that a user is meant to read, what to say of a mistyped name, lack of memory."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something that the user can mend: one line that names the place, the fault and the cure.

    The command line prints it without a traceback and exits with code 2. Several problems found
    in one pass are joined, one a line, so that they can be mended together.
    """

    @classmethod
    def join(cls, problems: list[str]) -> "UserError":
        """One error out of several problem lines."""
        return cls("\n".join(problems))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory could not be had; CPUs and cuBLAS say it in words alone."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(
        words in said
        for words in (
            *("out of memory", "can't allocate memory", "not enough memory"),
            "cublas_status_alloc_failed",
        )
    )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a mistyped name: the nearest known one, else all of them."""
    names = list(known)
    if not names:
        return "there are none here"
    near = difflib.get_close_matches(name, names, 1, 0.55)
    return f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(names)}"
