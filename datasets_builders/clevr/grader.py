"""Grading of ClevrPolicy: the case is the end task, the walk through the conditions its reasons."""

import re
from itertools import pairwise
from typing import Any, Literal, NamedTuple

from trimpi.prompt import parse_response
from trimpi.sample import Completion, Sample, Score

FirstError = Literal["none", "format", "recall", "perception", "branching", "final"]

# Bounded: a model in a loop writes numbers of thousands of digits.
_MENTION = re.compile(
    r"\bcondition\s+(\d{1,3}(?:\.\d{1,3}){0,15})(?!\.?\d)", re.IGNORECASE | re.ASCII
)
_QUESTION = re.compile(r"\bis there an? ([a-z ]{1,30}?)(?: object)?\?", re.IGNORECASE)
_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def grade(sample: Sample, completion: Completion) -> Score:
    """1 when the boxed answer is exactly the gold case (case and spacing aside), else 0.

    `\\text{...}` around the whole answer is typesetting and is taken off; nothing else is.
    """
    answer = parse_response(completion.text).answer
    if answer is None:
        return Score(0.0, note="no boxed answer")
    said = _normal(answer)
    if said == _normal(sample.answer):
        return Score(1.0)
    known = re.fullmatch(r"case \d+", said) is not None
    return Score(0.0, note=f"answered {answer!r}" if known else f"not a case: {answer!r}")


def _normal(answer: str) -> str:
    wrapped = re.fullmatch(r"\s*\\text\s*\{(.*)\}\s*", answer, re.DOTALL)
    return " ".join((wrapped[1] if wrapped else answer).lower().split())


def diagnose(sample: Sample, completion: Completion) -> dict[str, Any]:
    """Where the reasoning first leaves the gold path (paper, error analysis).

    Returns:
        `first_error`: "format" (no condition is cited, or no answer is boxed at the end of a
        right walk), "recall" (the right condition number, but a question that the policy does not
        ask there), "perception" (the right question, a wrong yes or no), "branching" (a condition
        that the verdict before it does not lead to, or a walk that stops early or goes on),
        "final" (right walk, wrong case) or "none";
        `cited` and `gold`: ids of the conditions walked and to be walked, in order;
        `steps`: gold steps done before the first error;
        `gold_path`: whether the walk is the gold walk; `correct`: whether the answer is.

    A question is read where it is written as policies write it ("is there a ...?"); other wording
    is not judged for recall. A verdict is the yes or no after the question; where there is none,
    the condition cited next tells it (X.1 is the yes branch of X, X.2 the no branch), and a bare
    yes or no counts last.
    """
    response = parse_response(completion.text)
    text = response.rationale
    if text is None:
        text = completion.text.split("\\boxed")[0]
    walk = _walk(text)
    gold = sample.facts["path"]
    correct = grade(sample, completion).value == 1.0
    error, steps = _first_error(walk, gold)
    if error == "none" and not correct:
        error = "format" if response.answer is None else "final"
    return {
        "first_error": error,
        "cited": [visit.condition for visit in walk],
        "gold": [step["condition"] for step in gold],
        "steps": steps,
        "gold_path": error in ("none", "final")
        or (steps == len(gold) == len(walk) and walk[-1].verdict is not None),
        "correct": correct,
    }


class _Visit(NamedTuple):
    """A condition of the walk, what it is said to ask (None: not told), and the verdict on it."""

    condition: str
    asked: str | None
    verdict: bool | None


def _walk(text: str) -> list[_Visit]:
    """Conditions in walking order; "go to X ... X:" is one visit."""
    visits: list[tuple[str, int]] = []
    for match in _MENTION.finditer(text):
        if not visits or visits[-1][0] != match[1]:
            visits.append((match[1], match.start()))
    walk = []
    for (name, start), (following, stop) in pairwise([*visits, ("", len(text))]):
        passage = text[start:stop]
        question = _QUESTION.search(passage)
        asked = " ".join(question[1].lower().split()) if question else None
        walk.append(_Visit(name, asked, _verdict(passage, name, following)))
    return walk


def _verdict(passage: str, name: str, following: str) -> bool | None:
    _, asks, rest = passage.partition("?")
    if asks and (match := _VERDICT.search(rest)):
        return match[1].lower() == "yes"
    if following in (f"{name}.1", f"{name}.2"):
        return following == f"{name}.1"
    match = _VERDICT.search(passage)
    return match[1].lower() == "yes" if match else None


def _first_error(walk: list[_Visit], gold: list[dict[str, Any]]) -> tuple[FirstError, int]:
    if not walk:
        return "format", 0
    for index, step in enumerate(gold):
        if index >= len(walk) or walk[index].condition != step["condition"]:
            return "branching", index
        if walk[index].asked not in (None, step["value"]):
            return "recall", index
        if walk[index].verdict not in (None, bool(step["outcome"])):
            return "perception", index
    return ("branching" if len(walk) > len(gold) else "none"), len(gold)
