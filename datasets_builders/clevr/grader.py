"""Grading of ClevrPolicy: the case is the end task, the walk through the conditions its reasons."""

import re
from itertools import pairwise
from typing import Any, Literal

from trimpi.prompt import parse_response
from trimpi.sample import Completion, Sample, Score

FirstError = Literal["none", "format", "perception", "branching", "final"]

_MENTION = re.compile(r"\bcondition\s+(\d+(?:\.\d+)*)", re.IGNORECASE)
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
        right walk), "perception" (right condition, wrong yes or no), "branching" (a condition
        that the verdict before it does not lead to, or a walk that stops early or goes on),
        "final" (right walk, wrong case) or "none";
        `cited` and `gold`: ids of the conditions walked and to be walked, in order;
        `steps`: gold steps done before the first error;
        `gold_path`: whether the walk is the gold walk; `correct`: whether the answer is.

    A verdict is the yes or no written after the condition's question; where none is written, the
    condition cited next tells it (X.1 is the yes branch of X, X.2 the no branch).
    """
    response = parse_response(completion.text)
    text = response.rationale
    if text is None:
        text = completion.text.split("\\boxed")[0]
    walk = _walk(text)
    gold = [(step["condition"], bool(step["outcome"])) for step in sample.facts["path"]]
    correct = grade(sample, completion).value == 1.0
    error, steps = _first_error(walk, gold)
    if error == "none" and not correct:
        error = "format" if response.answer is None else "final"
    return {
        "first_error": error,
        "cited": [condition for condition, _ in walk],
        "gold": [condition for condition, _ in gold],
        "steps": steps,
        "gold_path": error in ("none", "final") or steps == len(gold) == len(walk),
        "correct": correct,
    }


def _walk(text: str) -> list[tuple[str, bool | None]]:
    """Conditions in walking order with the verdict on each; "go to X ... X:" is one visit."""
    visits: list[tuple[str, int]] = []
    for match in _MENTION.finditer(text):
        if not visits or visits[-1][0] != match[1]:
            visits.append((match[1], match.start()))
    walk = []
    for (name, start), (following, stop) in pairwise([*visits, ("", len(text))]):
        walk.append((name, _verdict(text[start:stop], name, following)))
    return walk


def _verdict(passage: str, name: str, following: str) -> bool | None:
    after = passage.split("?", 1)
    match = _VERDICT.search(after[1] if len(after) == 2 else passage)
    if match:
        return match[1].lower() == "yes"
    return {f"{name}.1": True, f"{name}.2": False}.get(following)


def _first_error(
    walk: list[tuple[str, bool | None]], gold: list[tuple[str, bool]]
) -> tuple[FirstError, int]:
    if not walk:
        return "format", 0
    for index, (condition, outcome) in enumerate(gold):
        if index >= len(walk) or walk[index][0] != condition:
            return "branching", index
        if walk[index][1] is not None and walk[index][1] != outcome:
            return "perception", index
    return ("branching" if len(walk) > len(gold) else "none"), len(gold)
