"""Grader: the one object that filters rationales, rewards rollouts and measures accuracy."""

from typing import Protocol

from trimpi.prompt import Target, parse_response
from trimpi.sample import Completion, Sample, Score


class Grader(Protocol):
    """Any callable of this shape is a grader; a recipe names it as "package.module:name".

    It may also have `identity`, a text that names it with all that its scores depend on (else the
    name of the function), `about`, a phrase for reports on how it compares, and `check()`, which
    raises a UserError for what it lacks, before anything is loaded.
    """

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """Score one completion against the sample's gold answer."""
        ...


def exact_answer(sample: Sample, completion: Completion) -> Score:
    """1 when the boxed answer equals the gold answer (case and spacing aside), else 0.

    A completion without a boxed answer scores 0 with a note: it is wrong, not ungradable.
    """
    answer = parse_response(completion.text).answer
    if answer is None:
        return Score(0.0, note="no boxed answer")
    right = " ".join(answer.split()).lower() == " ".join(sample.answer.split()).lower()
    return Score(float(right), note="" if right else f"answered {answer!r}")


def format_score(completion: Completion, target: Target = "cot") -> float:
    """1 when the completion is `<think>...</think> \\boxed{...}` and nothing else (paper, RL)."""
    return float(parse_response(completion.text, target).well_formed)
