"""From what a recipe says to a grader: the one place where graders are made."""

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from trimpi.errors import UserError
from trimpi.graders.config import ExactConfig, GraderConfig, Grading, JsonConfig, grader_problems
from trimpi.graders.declared import AnswerGrader, JsonGrader
from trimpi.graders.named import NamedGrader, named_grader
from trimpi.graders.reward_function import RewardGrader

MadeGrader = NamedGrader | RewardGrader | AnswerGrader | JsonGrader
"""A `trimpi.grading.Grader` with `name`, `identity`, `about` and `check()`."""

_SPEC: TypeAdapter[Any] = TypeAdapter(Grading)
EXACT = "trimpi.grading:exact_answer"


def make_grader(spec: str | Mapping[str, Any] | GraderConfig, where: str = "grader") -> MadeGrader:
    """The grader that a recipe names or declares.

    Args:
        spec: "package.module:name" of a grader or of a function of TRL's reward signature, or a
            declaration `{type: ..., ...}`.
        where: the key that holds it, for messages.

    Raises:
        UserError: all that is wrong with it, one line each.
    """
    try:
        found = _SPEC.validate_python(spec)
    except ValidationError as error:
        lines = [
            f"{where}{key}: {fault}"
            for item in error.errors()
            for key, fault in grader_problems(item, spec)
        ]
        raise UserError.join(lines) from None
    if isinstance(found, ExactConfig):  # the same grader by another name
        found = EXACT
    if isinstance(found, str):
        return named_grader(found, where)
    return JsonGrader(found) if isinstance(found, JsonConfig) else AnswerGrader(found)
