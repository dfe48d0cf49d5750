"""Patterns that no text can make slow: RE2 matches in time linear in the text.

Python's own `re` backtracks: `(a+)+b` against thirty letters takes minutes, and a model that is
rewarded by a pattern writes any text. Time limits would make a score depend on the machine.
"""

from typing import Any

import re2

MAX_MATCHES = 200
"""Each match is found in linear time; more of them in one answer are no answer."""


class Pattern:
    """A pattern in RE2's syntax, and the group in it that holds the answer, if any."""

    def __init__(self, pattern: str) -> None:
        """
        Raises:
            ValueError: not a pattern of RE2, or several groups of which none is named `answer`.
        """
        options = re2.Options()
        options.log_errors = False
        try:
            self._compiled: Any = re2.compile(pattern, options)
        except re2.error as error:
            raise ValueError(
                f"not a pattern ({_words(error)}); patterns are RE2's, which has neither "
                "look-around nor references to groups"
            ) from None
        except UnicodeEncodeError:
            raise ValueError("not a pattern (half a surrogate pair); write whole letters") from None
        groups = self._compiled.groups
        self.group: int | None = self._compiled.groupindex.get("answer", 1 if groups else None)
        if groups > 1 and "answer" not in self._compiled.groupindex:
            raise ValueError(
                f"has {groups} groups; name the one that holds the answer (?P<answer>...), and "
                "write the others (?:...)"
            )

    def find(self, text: str, whole: bool) -> list[str] | None:
        """What the group holds (the match where there is none) at each match, distinct ones.

        Args:
            text: where to look.
            whole: the text as a whole must match.

        Returns:
            None where nothing matches; at most two texts, since two are no answer.
        """
        text = text.encode("utf-8", "replace").decode("utf-8")  # RE2 reads UTF-8
        if whole:
            match = self._compiled.fullmatch(text)
            return None if match is None else [match[self.group or 0] or ""]
        if self.group is None:
            match = self._compiled.search(text)
            return None if match is None else [match[0]]
        found: dict[str, None] = {}
        for count, match in enumerate(self._compiled.finditer(text)):
            found[match[self.group] or ""] = None
            if len(found) > 1 or count == MAX_MATCHES:
                return [*found, ""][:2]
        return list(found) or None


def _words(error: Exception) -> str:
    told = error.args[0] if error.args else ""
    return told.decode("utf-8", "replace") if isinstance(told, bytes) else str(told)
