"""Passages against the text of a rule: quoted rightly, quoted wrongly, or not about it at all.

Texts are compared word by word, piece by piece (a piece ends with a sentence or a line). A piece
that stands in the rule is right. One that is at least half like a stretch of the rule is meant as
a quotation: it is right when function words alone differ, and wrong when a value, a number, a
negation or any other word does. All else is taken for a remark, and says nothing of the rule; so
is a sentence about the case in hand ("The profile has age 25"), unless it stands in the rule.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

LIKE = 0.5
"""From this share of like words on, a piece is meant as a quotation."""
ENOUGH = 2
"""Words with a meaning that a piece needs to say something of a rule."""
LIKE_A_RULE = 3
"""Words from which on a piece can be told for the wording of a rule, whatever they mean."""
LONGEST = 400
"""Words of a piece that are compared: a model in a loop writes more."""

_ARTICLES = frozenset(("a", "an", "the", "any"))
_GLUE = frozenset((
    "am", "is", "are", "was", "were", "be", "been", "being", "it", "its", "this", "that", "these",
    "those", "there", "here", "then", "so", "thus", "hence", "therefore", "we", "i", "you", "he",
    "she", "they", "one", "as", "for", "of", "in", "on", "at", "by", "to", "with", "from", "into",
    "if", "whether", "when", "where", "which", "who", "what", "say", "says", "said", "state",
    "states", "stated", "ask", "asks", "asked", "read", "reads", "require", "requires", "apply",
    "applies", "according", "per", "since", "because", "means", "mean", "has", "have", "do",
    "does", "did", "will", "would", "shall", "also", "first", "next", "now", "please",
))  # fmt: skip
"""Words that may differ in a quotation."""
_EDGES = _GLUE | {"and", "but", "or"}
_NEGATIONS = frozenset((
    "not", "no", "never", "without", "neither", "nor", "none", "unless", "except",
))  # fmt: skip
_NUMBERS = {
    "zero": "0", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7",
    "eight": "8", "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
"""Without "one", which is more often a pronoun."""

_CUT = "\x1f"
_VERDICT = re.compile(r":\s*(?:yes|no)\b\s*[.,;]?", re.IGNORECASE)
_LABEL = re.compile(r"\b(yes|no)\s*(?:[:.,;!]|[–—-]+(?=\s))\s*", re.IGNORECASE)
_END = re.compile(r"[.?!;]+(?=[\s\"')\]]|$)|\n")
_WORD = re.compile(r"(?i:yes|no):|\d+(?:,\d{3})+|\w+(?:[.'-]\w+)*|[<>≤≥=]+|[%$€]")

_CASE = re.compile(
    r"[\s,-]*(?:(?:since|because|as|here|now)\s+)?(?:the|this)\s+"
    r"(?:profile|picture|image|photo|scene|user|viewer|request|case)\b"
)

Words = tuple[str, ...]


class Piece(NamedTuple):
    """Words of a text that are compared as one; `remark`: of a sentence about the case in hand."""

    words: Words
    remark: bool = False


class Verdict(NamedTuple):
    """What a piece says of a rule: right, wrong (with the fault), or nothing (None)."""

    right: bool | None
    fault: str = ""


def pieces(text: str) -> Iterator[Piece]:
    """The pieces of a text.

    A yes or no before a branch is a label (`no:`) and stays with what follows it; one after a
    colon ("below 18: no,") is a verdict, which ends a piece and is left out.
    """
    text = text.replace("’", "'").replace("can't", "can not").replace("cannot", "can not")
    text = _LABEL.sub(r"\1: ", _VERDICT.sub(_CUT, text.replace("n't", " not")))
    for sentence in _END.split(text):
        remark = _CASE.match(sentence.lower()) is not None
        for piece in sentence.split(_CUT):
            if words := _words(piece):
                yield Piece(words[:LONGEST], remark)


def _words(text: str) -> Words:
    found = [
        _plain(word.lower())
        for place, word in enumerate(_WORD.findall(text))
        # "A" within a sentence is a name
        if word.lower() not in _ARTICLES or not (place == 0 or word.islower())
    ]
    for place in range(1, len(found) - 1):  # "B or A" is "A or B"
        if found[place] == "or" and found[place - 1] > found[place + 1]:
            found[place - 1], found[place + 1] = found[place + 1], found[place - 1]
    return tuple(found)


def _plain(word: str) -> str:
    word = _NUMBERS.get(word, word)
    if word[0].isdigit():
        return word.replace(",", "")
    return word[:-1] if len(word) > 3 and word.endswith("s") and word[-2] not in "su" else word


class Wording:
    """A rule's text, ready to be compared."""

    def __init__(self, text: str) -> None:
        self._pieces = [piece.words for piece in pieces(text)]
        whole = tuple(word for piece in self._pieces for word in piece)
        self._stretches = self._pieces + ([whole] if len(self._pieces) > 1 else [])
        self._vocabulary = set(_meant(whole))
        self._meaning = len(self._vocabulary)

    def holds(self, piece: Words) -> bool:
        """Whether the words stand in the rule, one after the other."""
        return any(_places(piece, stretch) for stretch in self._stretches)

    def says(self, piece: Piece) -> Verdict:
        """What a piece says of this rule."""
        words, core = piece.words, _core(piece.words)
        if not core:
            return Verdict(None)
        found = [(p, at) for p in self._stretches for at in _places(core, p)]
        if found:
            # the same words after a "not" that is left out say the opposite
            if all(_NEGATIONS & set(stretch[:at]) for stretch, at in found) and not (
                _NEGATIONS & set(core)
            ):
                return Verdict(False, f"{_text(core)!r} leaves out a negation")
            enough = len(set(_meant(core))) >= min(ENOUGH, self._meaning)
            return Verdict(
                True if enough or (len(words) >= LIKE_A_RULE and self.holds(words)) else None
            )
        likeness, stretch = self.nearest(words)
        if likeness < LIKE or piece.remark or len(words) < ENOUGH:
            return Verdict(True) if self._names(words) else Verdict(None)
        if fault := _difference(words, stretch):
            return Verdict(False, fault)
        return Verdict(True)

    def _names(self, words: Words) -> bool:
        """Whether free words name a stretch of the rule, and of its other words none.

        "makes me look for a small object" names the question "is there a small object?".
        """
        own = [at for at, word in enumerate(words) if word in self._vocabulary]
        if len(own) < ENOUGH or own[-1] - own[0] >= len(own) or _NEGATIONS & set(words):
            return False
        named = words[own[0] : own[-1] + 1]
        return len(set(named)) >= ENOUGH and self.holds(named)

    def nearest(self, piece: Words) -> tuple[float, Words]:
        """The stretch of the rule that is most like the piece, of about its length."""
        best: tuple[float, Words] = (0.0, ())
        for whole in self._stretches:
            for length in range(max(1, len(piece) - 1), len(piece) + 2):
                for at in range(max(1, len(whole) - length + 1)):
                    stretch = whole[at : at + length]
                    likeness = Levenshtein.normalized_similarity(piece, stretch)
                    if likeness > best[0]:
                        best = (likeness, stretch)
        return best


def _difference(piece: Words, stretch: Words) -> str:
    for kind, a, b, c, d in Levenshtein.opcodes(piece, stretch):
        said, meant = piece[int(a) : int(b)], stretch[int(c) : int(d)]
        # what is missing at an end is left out, not changed
        at_end = a == 0 or b == len(piece)
        if at_end and set(said) <= _EDGES and not _NEGATIONS & set(meant):
            continue
        if kind != "equal" and _meant(said) + _meant(meant):
            if not meant:
                return f"adds {_text(said)!r}"
            if not said:
                return f"leaves out {_text(meant)!r}"
            return f"says {_text(said)!r} where the policy says {_text(meant)!r}"
    return ""


def _places(words: Words, stretch: Words) -> list[int]:
    size = len(words)
    return [at for at in range(len(stretch) - size + 1) if stretch[at : at + size] == words]


def _core(piece: Words) -> Words:
    start, end = 0, len(piece)
    while start < end and piece[start] in _EDGES:
        start += 1
    while end > start and piece[end - 1] in _EDGES:
        end -= 1
    return piece[start:end]


def _meant(words: Sequence[str]) -> list[str]:
    return [word for word in words if word not in _GLUE]


def _text(words: Sequence[str]) -> str:
    return " ".join(words)
