"""Reward functions in TRL's form as graders.

    def reward(prompts, completions, **columns) -> list[float | None]

TRL (1.16, `GRPOTrainer._calculate_rewards`) calls them with keywords alone: `prompts` and
`completions` as conversations, and every column of the rows as a list.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

from trimpi.errors import UserError
from trimpi.prompt import build_messages
from trimpi.sample import Completion, Sample, Score

ROW = ("id", "query", "answer", "images", "policy", "rationale", "facts")
"""Columns that every row has; those in its `facts` come beside them."""

TRAINER = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""What TRL's trainer passes and a grader has not: the same function measures accuracy."""


def is_reward_function(signature: inspect.Signature) -> bool:
    """Whether the parameters are those of a reward function: `completions`, or only keywords."""
    kinds = {p.kind for p in signature.parameters.values()}
    return "completions" in signature.parameters or (
        bool(kinds) and kinds <= {inspect.Parameter.VAR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
    )


class RewardGrader:
    """Grades one row, or several in one call, by a reward function.

    A value must lie in [0, 1] and None is "cannot be graded"; `trimpi.grading.checked_scores` sees
    to it. A row's value may not depend on the rows beside it.
    """

    about = ""

    def __init__(self, function: Callable[..., Any], name: str, where: str) -> None:
        """
        Raises:
            UserError: the function asks for what only a trainer has, or takes no keywords.
        """
        self._function, self.name, self.identity = function, name, name
        parameters = inspect.signature(function).parameters.values()
        variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        self._all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        self._known = [p.name for p in parameters if p.kind not in variadic]
        self._needed = [
            p.name for p in parameters if p.kind not in variadic and p.default is p.empty
        ]
        problems = [
            f"{where}: {name!r} asks for {p!r}, which only TRL's trainer has; give it a default, "
            "or drop it"
            for p in self._needed
            if p in TRAINER
        ]
        problems += [
            f"{where}: {name!r} takes {p.name!r} by position alone; TRL's form is keywords"
            for p in parameters
            if p.kind is inspect.Parameter.POSITIONAL_ONLY
        ]
        if problems:
            raise UserError.join(problems)

    def check(self) -> None:
        """
        Raises:
            UserError: as the function's own `check()` does, where it has one.
        """
        if callable(check := getattr(self._function, "check", None)):
            check()

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """One row, as a batch of one."""
        return self.batch([sample], [completion])[0]

    def batch(self, samples: Sequence[Sample], completions: Sequence[Completion]) -> list[Score]:
        """Scores of rows in one call of the function.

        Raises:
            UserError: a row lacks a column that the function asks for, or what comes back is no
                list of as many numbers.
        """
        given = {
            "prompts": [build_messages(sample, None) for sample in samples],
            "completions": [[{"role": "assistant", "content": c.text}] for c in completions],
            **self._columns(samples),
        }
        if not self._all:
            given = {name: given[name] for name in self._known if name in given}
        found = self._function(**given)
        if inspect.isawaitable(found):
            found = asyncio.run(_awaited(found))
        if isinstance(found, str | bytes | dict) or not hasattr(found, "__len__"):
            raise UserError(
                f"gave {type(found).__name__}; a reward function returns a list, one number a row"
            )
        if len(found) != len(samples):
            raise UserError(
                f"gave {len(found)} values for {len(samples)} rows; return one for each, None for "
                "a row that cannot be graded"
            )
        return [_score(value) for value in found]

    def _columns(self, samples: Sequence[Sample]) -> dict[str, list[Any]]:
        own = dict.fromkeys(key for sample in samples for key in sample.facts)
        names = [key for key in own if key not in (*ROW, *TRAINER, "prompts", "completions")]
        columns = {name: [sample.facts.get(name) for sample in samples] for name in names}
        for name in self._needed:
            if name in ("prompts", "completions", *ROW):
                continue
            for sample in samples:
                if name not in sample.facts:
                    have = ", ".join([*ROW, *sample.facts])
                    raise UserError(
                        f"the function asks for column {name!r}, which the row has not; it has "
                        f"{have}: rename the parameter, or add the key to facts"
                    )
        columns |= {name: [getattr(sample, name) for sample in samples] for name in ROW}
        columns["images"] = [list(sample.images) for sample in samples]
        columns["facts"] = [dict(sample.facts) for sample in samples]
        return columns


async def _awaited(found: Any) -> Any:
    return await found


def _score(value: Any) -> Score:
    if value is None:
        return Score(None)
    if not isinstance(value, Real) and hasattr(value, "item"):  # a tensor of one number
        value = value.item()
    return Score(value)
