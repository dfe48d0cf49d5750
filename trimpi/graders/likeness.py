"""Likeness of two texts by their words and letters, without a model."""

import re
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
    if not one or not other:
        return float(one == other)
    shared = sum((Counter(one) & Counter(other)).values())
    words = 2 * shared / (len(one) + len(other))
    return (words + fuzz.ratio(" ".join(one), " ".join(other)) / 100) / 2


def _words(text: str) -> list[str]:
    found = unicodedata.normalize("NFKC", text).casefold().split()
    stripped = (re.sub(r"^[^\w+\-*/=()\[\]{}<>]+|[^\w+\-*/=()\[\]{}<>%]+$", "", w) for w in found)
    return [word for word in stripped if word]
