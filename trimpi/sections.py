"""Sections of a policy: what retrieval chooses among, and what fades from a training prompt.

A policy with at least two Markdown headings beside its title has a section a heading. Without them
each rule (a line or list item that begins with a rule's id) is a section with the title above it,
and so is a paragraph between rules. A policy without either has a section a paragraph. What comes
before the first section is the *head*: the title, the general instruction, and whatever else all
sections share. A picture goes with the text around it.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

from trimpi.policy import ImagePart, Part, Policy, TextPart
from trimpi.rules.text import heading, said_by_rule, without_code

TITLE_LENGTH = 60
"""A longer line above a rule is text, not a title."""
_ENDS = re.compile(r"[.!?:;,)\]|`*_]\s*$")
_MARKED = re.compile(r"\s|[-*+|>]|\d+[.)]")


@dataclass(frozen=True)
class Section:
    """Lines `first` to `last` (excluded) of a policy; `above`: the headings that it stands under.

    A heading without text of its own is no section; it is shown with each section below it.
    """

    first: int
    last: int
    above: tuple[int, ...] = ()


@dataclass(frozen=True)
class Sections:
    """A policy cut into its head (the lines before `start`, maybe none) and its sections."""

    policy: Policy
    start: int
    found: tuple[Section, ...]
    _made: dict[tuple[frozenset[int], bool], Policy | None] = field(
        default_factory=dict, repr=False, compare=False
    )

    def __len__(self) -> int:
        return len(self.found)

    @property
    def head(self) -> str:
        """Text before the first section, pictures left out."""
        return self._text(range(self.start))

    @property
    def texts(self) -> tuple[str, ...]:
        """Text of each section below the headings that it stands under, pictures left out."""
        return tuple(self._text([*s.above, *range(s.first, s.last)]) for s in self.found)

    def shown(self, chosen: Collection[int], head: bool = True) -> Policy | None:
        """The policy with these sections alone, in its own order; None where nothing is left.

        Args:
            chosen: indices of sections.
            head: whether what comes before the first section is shown as well.

        Returns:
            The policy itself where all of it is shown.
        """
        key = (frozenset(chosen), head)
        if key not in self._made:  # many rows share few choices
            self._made[key] = self._cut(*key)
        return self._made[key]

    def _cut(self, chosen: frozenset[int], head: bool) -> Policy | None:
        if len(chosen) == len(self.found) and (head or not self.start):
            return self.policy
        kept = set(range(self.start)) if head else set()
        for index in chosen:
            section = self.found[index]
            kept |= {*section.above, *range(section.first, section.last)}
        parts: list[Part] = []
        pictures = iter(self.policy.images)
        mark, lines = self._lines
        for number, line in enumerate(lines):
            for piece in re.split(f"({mark})", line):
                part = ImagePart(next(pictures)) if piece == mark else TextPart(piece)
                if number in kept:
                    parts.append(part)
        parts = list(_joined(parts))
        return Policy(self.policy.name, tuple(parts), self.policy.metadata) if parts else None

    def _text(self, numbers: Iterable[int]) -> str:
        mark, lines = self._lines
        return "".join(lines[number] for number in numbers).replace(mark, " ").strip()

    @cached_property
    def _lines(self) -> tuple[str, list[str]]:
        return _lines_of(self.policy)


def sections_of(policy: Policy) -> Sections:
    """Cut a policy into head and sections; together they are the whole policy."""
    mark, whole = _lines_of(policy)
    plain = without_code("".join(whole)).replace(mark, " ").split("\n")[: len(whole)]
    # Pictures and code are something that stands on a line.
    lines = [p if p.strip() else "x" * bool(w.strip()) for p, w in zip(plain, whole, strict=True)]
    levels = {number: level for number, line in enumerate(lines) if (level := heading(line))}
    body = 0
    if _titled(lines, levels):
        body = min(levels) + 1
        del levels[body - 1]
    if len(levels) > 1:
        return Sections(policy, min(levels), _by_headings(lines, levels))
    starts = _rule_starts(lines, body)
    if not starts:
        paragraphs = [number for number in range(len(lines)) if _opens(lines, number)]
        starts = paragraphs[1:] or paragraphs
    edges = [*starts, len(lines)]
    found = tuple(Section(*pair) for pair in pairwise(edges))
    return Sections(policy, edges[0], found)


def _lines_of(policy: Policy) -> tuple[str, list[str]]:
    """A mark that stands for pictures and occurs nowhere else, and the lines with their ends."""
    private = map(chr, range(0xE000, 0xF900))
    mark = next(character for character in private if character not in policy.text)
    text = "".join(part.text if isinstance(part, TextPart) else mark for part in policy.parts)
    return mark, re.findall(r"[^\n]*\n|[^\n]+", text)  # splitlines cuts at other marks too


def _joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Text parts side by side as one, no empty ones, no blanks at the end."""
    text = ""
    for part in parts:
        if isinstance(part, TextPart):
            text += part.text
            continue
        if text:
            yield TextPart(text)
        text = ""
        yield part
    if text.rstrip():
        yield TextPart(text.rstrip())


def _titled(lines: Sequence[str], levels: dict[int, int]) -> bool:
    """Whether the first heading is the title of all: nothing above it, no other of its level."""
    if not levels:
        return False
    first = min(levels)
    alone = all(level > levels[first] for number, level in levels.items() if number != first)
    return alone and not "".join(lines[:first]).strip()


def _by_headings(lines: Sequence[str], levels: dict[int, int]) -> tuple[Section, ...]:
    found = []
    above: list[int] = []
    numbers = sorted(levels)
    for first, last in zip(numbers, [*numbers[1:], len(lines)], strict=True):
        while above and levels[above[-1]] >= levels[first]:
            above.pop()
        bare = not "".join(lines[first + 1 : last]).strip()
        if not (bare and last < len(lines) and levels[last] > levels[first]):
            headings = [n for number in above for n in _with_blanks(lines, number)]
            found.append(Section(first, last, tuple(headings)))
        above.append(first)
    return tuple(found)


def _with_blanks(lines: Sequence[str], number: int) -> Iterator[int]:
    """A heading, and the empty lines below it."""
    yield number
    while number + 1 < len(lines) and not lines[number + 1].strip():
        number += 1
        yield number


def _rule_starts(lines: Sequence[str], body: int) -> list[int]:
    """First lines of the sections of a policy whose rules have ids; none below two rules.

    `body` is the line below the policy's own title.
    """
    rules = [number for number, line in enumerate(lines) if said_by_rule(line) is not None]
    if len(rules) < 2:
        return []
    first = {number: _title_above(lines, number, body) for number in rules}
    inside = {n for number in rules for n in range(first[number] + 1, number)}
    starts = set(first.values())
    for number in range(min(starts), len(lines)):
        if number in starts | inside or not _opens(lines, number):
            continue
        before = next(n for n in range(number - 1, -1, -1) if lines[n].strip())
        # An id alone on its line has its text below; what is indented belongs to the item above.
        if said_by_rule(lines[before]) != "" and not lines[number][:1].isspace():
            starts.add(number)
    return sorted(starts)


def _opens(lines: Sequence[str], number: int) -> bool:
    """Whether a paragraph begins here."""
    return bool(lines[number].strip()) and not (number and lines[number - 1].strip())


def _title_above(lines: Sequence[str], number: int, body: int) -> int:
    """The first of the headings and titles that stand directly above a rule, else the rule."""
    top = above = number
    while above > body:
        above -= 1
        if heading(lines[above]) or _is_title(lines, above):
            top = above
        elif lines[above].strip():
            break
    return top


def _is_title(lines: Sequence[str], number: int) -> bool:
    """Whether a line, which is no heading, reads like one: short, no sentence, no item, no rule,
    and no more of what stands above it."""
    line = lines[number].strip()
    if not line or len(line) > TITLE_LENGTH or _ENDS.search(line) or _MARKED.match(line):
        return False
    before = lines[number - 1].strip() if number else ""
    return said_by_rule(line) is None and not (before and not _ENDS.search(before))
