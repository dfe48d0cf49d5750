"""Citations: the rule ids that reasoning names, each with what it says of that rule."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from trimpi.evaluate.referral.wording import LIKE_A_RULE, Piece, Wording, pieces
from trimpi.policy import Policy

CLOSE = 0.75
"""From this share of like words on, a piece is taken for the wording of another rule."""
UNITS = ("rule", "condition", "clause", "section", "article")
_NUMBER = r"\d{1,3}(?:\.\d{1,3}){0,15}"  # bounded: a model in a loop writes thousands of digits
_AFTER = r"(?![\w]|[.-]\d)"
_MOVES = re.compile(
    r"\b(?:go|goes|going|proceed|proceeds|continue|continues|move|moves|leads?|jump|skip|turn|on)"
    r"\s+(?:on\s+)?(?:to|with)\s+$",
    re.IGNORECASE,
)
_SENTENCE = re.compile(r"[.?!;]\s+|\n")


class Citation(NamedTuple):
    """A cited rule: whether the policy has it, and whether its content is right.

    `right` is None where nothing is said of the rule; `fault` says what is wrong.
    """

    id: str
    known: bool
    right: bool | None
    fault: str = ""


@dataclass(frozen=True)
class _Mention:
    ids: tuple[str, ...]
    start: int
    end: int


def has_rules(policy: Policy) -> bool:
    """Whether a policy has rules by id."""
    texts = policy.metadata.get("conditions")
    return isinstance(texts, Mapping) and bool(texts)


class Rules:
    """The rules of a policy by id, as `metadata.conditions` has them, and the word before an id."""

    def __init__(self, texts: Mapping[str, str], unit: str = "Condition") -> None:
        self.texts = {str(id): str(text) for id, text in texts.items()}
        self._by_lower = {id.lower(): id for id in self.texts}
        self._wordings = {id: Wording(text) for id, text in self.texts.items()}
        self._pattern = self._mentions(unit)
        self._named = {
            id: {i for m in self._found(text) for i in m.ids} for id, text in self.texts.items()
        }

    @classmethod
    def of(cls, policy: Policy) -> "Rules | None":
        """The rules of a policy; None for one without ids to check."""
        if not has_rules(policy):
            return None
        texts = policy.metadata["conditions"]
        unit = str(policy.metadata.get("unit", "Condition"))
        return _made(tuple((str(id), str(text)) for id, text in texts.items()), unit)

    def citations(self, reasoning: str) -> list[Citation]:
        """Every rule that is cited, once, in the order of first citation.

        What is said of a rule goes from its id to the next id that begins a citation; of an id in
        brackets it is the sentence before. An id that one is sent to ("go to Condition 1.2"), or
        on the same line one that the rule just cited names itself, belongs to what is said of
        that rule. All passages about a rule count together: one wrong piece makes its content
        wrong.
        """
        said: dict[str, list[str]] = {}
        for ids, passage in self._passages(re.sub(r"[*`]|__", "", reasoning)):
            for id in ids:
                said.setdefault(id, []).append(passage if len(ids) == 1 else "")
        return [self._citation(id, passages) for id, passages in said.items()]

    def _citation(self, id: str, passages: list[str]) -> Citation:
        wording = self._wordings.get(id)
        if wording is None:
            return Citation(id, False, False, "is not in the policy")
        right: bool | None = None
        for piece in (piece for passage in passages for piece in pieces(passage)):
            verdict = wording.says(piece)
            if verdict.right is False:
                return Citation(id, True, False, verdict.fault)
            if verdict.right:
                right = True
            elif other := self._worded_as(id, piece):
                return Citation(id, True, False, f"has words of {other}, not its own")
        return Citation(id, True, right, "" if right else "is named without its content")

    def _worded_as(self, id: str, piece: Piece) -> str:
        """The other rule whose wording a piece that is not of this rule has; "" without one."""
        if len(piece.words) < LIKE_A_RULE or piece.remark:
            return ""
        return next(
            (
                o
                for o, w in self._wordings.items()
                if o != id and w.nearest(piece.words)[0] >= CLOSE
            ),
            "",
        )

    def _passages(self, text: str) -> Iterator[tuple[tuple[str, ...], str]]:
        current: tuple[str, ...] = ()
        start = 0  # of what is said of the current ids
        for mention in self._found(text):
            before, after = text[: mention.start], text[mention.end : mention.end + 4].lstrip()
            if before.endswith(("(", "[")) and after[:1] in (")", "]"):
                begin = max([start, *(m.end() for m in _SENTENCE.finditer(before[:-1], start))])
                yield current, text[start:begin]
                yield mention.ids, before[begin:-1]
                current, start = (), mention.end
                continue
            sent = _MOVES.search(before[-24:]) is not None
            own = len(current) == 1 and set(mention.ids) <= self._named.get(current[0], set())
            own = own and "\n" not in text[start : mention.start]
            heads = after.startswith(":") or (not sent and _begins(before))
            if (sent or own) and not heads:
                continue
            yield current, text[start : mention.end if sent else mention.start]
            current, start = mention.ids, mention.end
        yield current, text[start:]

    def _found(self, text: str) -> Iterator[_Mention]:
        for match in self._pattern.finditer(text):
            if match["bare"]:
                names = [match["bare"]]
            elif match["plural"]:
                names = self._one.findall(match["list"])
            else:
                names = [match["one"]]
            end = match.start("one") + len(match["one"]) if match["one"] else match.end()
            ids = tuple(dict.fromkeys(self._by_lower.get(n.lower(), n) for n in names))
            yield _Mention(ids, match.start(), end)

    def _mentions(self, unit: str) -> re.Pattern[str]:
        known = sorted(map(re.escape, self.texts), key=len, reverse=True)
        one = rf"(?:{'|'.join([*known, rf'(?:[A-Za-z][A-Za-z_]{{0,40}}[.-]?)?{_NUMBER}'])}){_AFTER}"
        self._one = re.compile(one, re.IGNORECASE)
        units = "|".join(sorted({re.escape(unit.lower()), *UNITS}, key=len, reverse=True))
        also = r"(?:\s*,\s*and\s+|\s*,\s*|\s+and\s+|\s+or\s+|\s*&\s*)"
        heads = {m[0] for id in self.texts if (m := re.match(r"[A-Za-z]+[.-]?(?=\d)", id))}
        bare = "|".join(re.escape(head) for head in sorted(heads, key=len, reverse=True))
        pattern = (
            rf"\b(?i:(?:{units})(?:(?P<plural>s)\s+(?P<list>{one}(?:{also}{one})*)"
            rf"|\s+(?P<one>{one})))"
        )
        own = rf"(?<![\w.-])(?P<bare>(?:{bare}){_NUMBER}){_AFTER}" if bare else r"(?P<bare>(?!))"
        return re.compile(f"{pattern}|{own}", re.ASCII)


def _begins(before: str) -> bool:
    """Whether what follows begins a line or a sentence."""
    return re.search(r"(?:^|[.?!:;\n])[\s>-]*$", before[-8:]) is not None


@lru_cache(maxsize=256)
def _made(texts: tuple[tuple[str, str], ...], unit: str) -> Rules:
    return Rules(dict(texts), unit)
