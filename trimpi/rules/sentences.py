"""A rule in words, both ways: `If <conditions>, the response is X.` <-> conditions and outcome."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from trimpi.rules.conditions import NotACondition, all_in_words, read_conditions
from trimpi.rules.extents import Extent
from trimpi.rules.rule_set import Rule

_IF = re.compile(r"(?:if|when)\s+", re.I)
_OTHERWISE = re.compile(r"(?:otherwise\s*,?|always\s*,)\s*(?:then\s+)?", re.I)
_THEN = re.compile(r"\s*(?:,\s*(?:then\s+)?|then\s+)", re.I)
_ANSWER = re.compile(
    r"(?:the\s+(?:response|answer)\s+(?:is|must\s+be)|answer(?:\s+with)?|respond\s+with)\s*:?\s+",
    re.I,
)
_LATER_ANSWER = re.compile(r",\s*(?:then\s+)?(?=" + _ANSWER.pattern + ")", re.I)


@dataclass(frozen=True)
class Sentence:
    """What a rule's text says.

    `when` None: not checkable, for the reason `why`; `near`: it looks like a mistake.
    """

    when: Mapping[str, Extent] | None
    outcome: str | None
    why: str = ""
    near: bool = False


def read_sentence(text: str, attributes: Mapping[str, Extent]) -> Sentence:
    """Conditions and outcome of a rule's text; without attributes there is no checkable form."""
    if begin := _OTHERWISE.match(text):
        when: dict[str, Extent] | None = {} if attributes else None
        return Sentence(when, read_outcome(text[begin.end() :]), "" if attributes else _NO_NAMES)
    begin = _IF.match(text)
    if begin is None:
        return Sentence(None, None, "begins neither with If, When nor Otherwise")
    if not attributes:
        return Sentence(None, _outcome_after(text), _NO_NAMES)
    try:
        conditions, end = read_conditions(text[begin.end() :], attributes)
        rest = text[begin.end() + end :]
        then = _THEN.match(rest)
        if then is None:
            said = " ".join(rest.split()[:4])
            raise NotACondition(
                f"after {all_in_words(conditions)!r} comes {said!r}; an 'and' or a comma and the "
                "outcome go there",
                True,
            )
    except NotACondition as error:
        return Sentence(None, _outcome_after(text), str(error), error.near)
    outcome = read_outcome(rest[then.end() :])
    if outcome is None:
        return Sentence(None, None, "no outcome follows its conditions", True)
    return Sentence(conditions, outcome)


def read_outcome(clause: str) -> str | None:
    """The outcome that a clause names, up to the end of its sentence.

    A single text in backticks is the outcome itself; else what follows `the response is` or
    `answer`, else the whole clause.
    """
    sentence = _first_sentence(clause)
    literal = re.findall(r"`([^`]+)`", sentence)
    if len(literal) == 1:
        return str(literal[0])
    if answer := _ANSWER.match(sentence):
        sentence = sentence[answer.end() :]
    sentence = sentence.strip().rstrip(".!;").strip()
    return sentence or None


def render(when: Mapping[str, Extent], outcome: str) -> str:
    """The sentence that `read_sentence` takes apart again."""
    literal = f"the response is `{outcome}`."
    return f"If {all_in_words(when)}, {literal}" if when else f"Otherwise, {literal}"


def with_sentence(rule: Rule, attributes: Mapping[str, Extent]) -> tuple[Rule, Sentence]:
    """A rule with the conditions and the outcome of its text."""
    said = read_sentence(rule.text, attributes)
    return Rule(rule.id, rule.text, rule.section, said.when, said.outcome), said


_NO_NAMES = "the front matter names no attributes"


def _outcome_after(text: str) -> str | None:
    """The outcome of a rule whose conditions are not read: known only in so many words."""
    found = _LATER_ANSWER.search(text)
    return read_outcome(text[found.end() :]) if found else None


def _first_sentence(text: str) -> str:
    """Up to a `.`, `!` or `;` outside backticks that a space or the end follows."""
    match = re.match(r"(?:`[^`]*`|[^`.!;]|[.!;](?!\s|$)|`)*", text)
    return match[0] if match else text
