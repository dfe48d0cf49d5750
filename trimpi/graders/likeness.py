"""Likeness of two texts by their words and letters, without a model."""

import unicodedata
from collections import Counter

from rapidfuzz import fuzz


def lexical_similarity(first: str, second: str) -> float:
    """Likeness of two texts without a model, in [0, 1].

    The mean of the F1 of their words (as bags) and of the share of characters that they have in
    common in order (normalized Indel similarity); case, kinds of spaces and punctuation at the ends
    of words do not count. Texts that share no word score below 0.5, equal ones 1.
    """
    one, other = _words(first), _words(second)
    if not one or not other:  # nothing but punctuation is compared as it stands
        return float(first.strip() == second.strip())
    shared = sum((Counter(one) & Counter(other)).values())
    words = 2 * shared / (len(one) + len(other))
    return (words + fuzz.ratio(" ".join(one), " ".join(other)) / 100) / 2


_SIGNS = "+-*/=()[]{}<>"
"""Signs that mean something at the ends of a word, beside letters and digits; `%` at its end."""


def _words(text: str) -> list[str]:
    found = unicodedata.normalize("NFKC", text).casefold().split()
    return [word for word in map(_bare, found) if word]


def _bare(word: str) -> str:
    """A word without punctuation at its ends."""

    def counts(character: str, signs: str) -> bool:
        return character.isalnum() or character == "_" or character in signs

    start, end = 0, len(word)
    while start < end and not counts(word[start], _SIGNS):
        start += 1
    while end > start and not counts(word[end - 1], _SIGNS + "%"):
        end -= 1
    return word[start:end]
