"""Gold answers against the grader that will be used on them."""

from collections.abc import Sequence

from trimpi.errors import UserError
from trimpi.graders.comparison import shown
from trimpi.grading import Grader, checked_score, grader_name
from trimpi.prompt import render_target
from trimpi.sample import Completion, Sample

FUNCTION_ROWS = 16
"""Rows that are put to a reward function: it may ask a model, which takes its time."""


def check_labels(grader: Grader, samples: Sequence[Sample], file: str = "") -> list[str]:
    """Gold answers that the grader does not know, or that do not score 1 with it.

    Args:
        grader: as `make_grader` gives it. Of a reward function the first rows alone are asked.
        samples: the rows, in the order of their file.
        file: their file, for messages.

    Returns:
        One line a fault, which begins with `file:row`, or `row N` without a file.
    """
    problems = []
    if hasattr(grader, "batch"):
        samples = samples[:FUNCTION_ROWS]
    for number, sample in enumerate(samples, 1):
        where = f"{file}:{number}" if file else f"row {number}"
        gold = Completion(sample.id, render_target(sample, "answer"))
        try:
            score = checked_score(grader, sample, gold, where)
        except UserError as error:
            problems += str(error).splitlines()
            continue
        if score.value != 1:
            why = f" ({score.note})" if score.note else ""
            problems.append(
                f"{where}: answer {shown(sample.answer)} scores {score.value} with grader "
                f"{grader_name(grader)}{why}, not 1; correct the answer, or the grader"
            )
    return problems
