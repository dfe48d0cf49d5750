"""Retrieval of policy sections by the words of a request: BM25, as Lucene scores it.

score(q, d) = sum over words w of q of  idf(w) * f / (f + k1 * (1 - b + b * |d| / mean |d|)),
idf(w) = ln(1 + (N - n + 0.5) / (n + 0.5)),    k1 = 1.2, b = 0.75

f: how often w stands in section d; n: how many of the N sections hold w (Robertson and Zaragoza
2009, section 3.2; Lucene's BM25Similarity leaves out the constant factor k1 + 1). It is written out
here because the libraries for it either import jax where that is installed and run it (bm25s), or
are no longer kept (rank-bm25), and a policy has some dozens of sections, not millions.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from trimpi.policy import Policy
from trimpi.sections import sections_of

K1, B = 1.2, 0.75
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")
"""A run of letters, digits and underscores; of scripts without spaces a single character."""


def words(text: str) -> list[str]:
    """The words of a text in lower case, in order."""
    return _WORD.findall(text.lower())


def bm25(query: str, sections: Sequence[str]) -> list[float]:
    """The score of each section for a query; 0 where they share no word."""
    counts = [Counter(words(text)) for text in sections]
    lengths = [sum(count.values()) for count in counts]
    mean = sum(lengths) / max(len(lengths), 1) or 1.0
    scores = [0.0] * len(sections)
    for word in words(query):
        holding = sum(word in count for count in counts)
        idf = math.log(1 + (len(sections) - holding + 0.5) / (holding + 0.5))
        for place, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            often = count[word]
            scores[place] += idf * often / (often + K1 * (1 - B + B * length / mean))
    return scores


@dataclass(frozen=True)
class Retrieved:
    """What a retriever shows of a policy, and how many sections out of how many that is."""

    policy: Policy | None
    sections: int
    of: int


class Retriever:
    """Finds the sections of one policy that share the most telling words with a request."""

    def __init__(self, policy: Policy, sections: int, keep_head: bool = True) -> None:
        """
        Args:
            policy: the policy to choose from.
            sections: how many to show.
            keep_head: always show what comes before the first section too.
        """
        self._sections, self._most, self._head = sections_of(policy), sections, keep_head
        self._texts = self._sections.texts

    def __call__(self, query: str) -> Retrieved:
        """The best sections in the policy's own order; of equal ones the earlier ones."""
        scores = bm25(query, self._texts)
        order = sorted(range(len(scores)), key=lambda place: (-scores[place], place))
        chosen = order[: self._most]
        shown = self._sections.shown(chosen, self._head)
        return Retrieved(shown, len(chosen), len(self._texts))
