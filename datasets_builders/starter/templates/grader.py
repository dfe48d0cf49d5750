"""Whether an answer is right: filters rationales, rewards rollouts and measures accuracy."""

from trimpi.prompt import parse_response
from trimpi.sample import Completion, Sample, Score


def grade(sample: Sample, completion: Completion) -> Score:
    """1 for the response of the policy in a box, else 0; a value must lie in [0, 1]."""
    answer = parse_response(completion.text).answer
    if answer is None:
        return Score(0.0, note="no boxed answer")
    right = answer.strip().lower() == sample.answer.strip().lower()
    return Score(float(right), note="" if right else f"answered {answer!r}")
