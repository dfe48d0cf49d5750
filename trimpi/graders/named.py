"""Graders that are code: a grader of this package's form, or a reward function of TRL's."""

import inspect
from collections.abc import Callable
from typing import Any

from trimpi.errors import UserError
from trimpi.graders.reward_function import RewardGrader, is_reward_function
from trimpi.resolve import resolve_callable
from trimpi.sample import Completion, Sample, Score


class NamedGrader:
    """A grader by its name; what it says of itself (`identity`, `about`) is kept."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function, self.name = function, name

    @property
    def identity(self) -> str:
        """The grader's own, which may name models; else its name in the recipe."""
        return str(getattr(self._function, "identity", self.name))

    @property
    def about(self) -> str:
        """How it compares, for reports; empty where it does not say."""
        return str(getattr(self._function, "about", ""))

    def check(self) -> None:
        """
        Raises:
            UserError: something that the grader needs is not there.
        """
        if callable(check := getattr(self._function, "check", None)):
            check()

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """What the grader gives, as it is; `trimpi.grading.checked_score` looks at it."""
        return self._function(sample, completion)  # type: ignore[no-any-return]


def named_grader(name: str, where: str) -> NamedGrader | RewardGrader:
    """The grader or reward function that `name` names, told apart by its parameters.

    Raises:
        UserError: it does not exist, or is called in neither of the two ways.
    """
    function = resolve_callable(name, where)
    if inspect.isclass(function):
        raise UserError(f"{where}: {name!r} is a class; name an object of it, or a function")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        raise UserError(
            f"{where}: {name!r} does not tell its parameters; wrap it in a function of yours"
        ) from None
    if is_reward_function(signature):
        return RewardGrader(function, name, where)
    try:
        signature.bind(None, None)
    except TypeError as error:
        raise UserError(
            f"{where}: {name!r} cannot be called with (sample, completion): {error}; neither has "
            "it TRL's parameters (prompts, completions, **kwargs)"
        ) from None
    return NamedGrader(function, name)
