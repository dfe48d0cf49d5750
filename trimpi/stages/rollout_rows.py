"""Rows of RL: both views of a prompt, and the check that every row can be used."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from trimpi.budget import check_budgets, summarize_budgets, token_budget
from trimpi.errors import UserError
from trimpi.pictures import open_picture
from trimpi.prompt import Message, build_messages
from trimpi.recipe import RlConfig, RolloutConfig
from trimpi.sample import DataFolder, Sample

SHOWN = 20
"""Faulty rows that are named one by one."""


class RolloutViews:
    """What the trainer sees of a row: its prompt, and its prompt with the policy before it.

    Pictures stay paths here: a trainer fetches the rows of a rollout batch for every micro batch,
    and needs pictures only where it generates (`with_pictures`).
    """

    def __init__(self, samples: Sequence[Sample], data: DataFolder, with_policy: bool) -> None:
        self._samples, self._data, self._with_policy = samples, data, with_policy
        self._view = lru_cache(maxsize=4096)(self._make)

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """Columns of a batch that names rows."""
        views = [self._view(row) for row in batch["row"]]
        return {name: [view[name] for view in views] for name in views[0]}

    def __getstate__(self) -> dict[str, Any]:
        # `datasets` fingerprints a transform by pickling it; the rows say which one it is.
        return {"ids": [sample.id for sample in self._samples], "with_policy": self._with_policy}

    def _make(self, row: int) -> dict[str, Any]:
        sample = self._samples[row]
        view: dict[str, Any] = {"row": row, "prompt": build_messages(sample, None)}
        if self._with_policy:
            view["prompt_with_policy"] = build_messages(sample, self._data.policy_of(sample))
        return view


def with_pictures(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with pictures in place of paths; each file is opened once.

    A vLLM back end takes no paths, and TRL asks the processor for the pictures of every row.

    Raises:
        UserError: a picture cannot be read.
    """
    picture = lru_cache(maxsize=None)(open_picture)

    def shown(messages: list[Message]) -> list[Message]:
        return [
            {**message, "content": [
                {**part, "image": picture(part["image"])} if part["type"] == "image" else part
                for part in message["content"]
            ]}
            for message in messages
        ]  # fmt: skip

    prompts = ("prompt", "prompt_with_policy")
    return [{**row, **{name: shown(row[name]) for name in prompts if name in row}} for row in rows]


def check_rows(
    config: RolloutConfig,
    data: DataFolder,
    samples: list[Sample],
    processor: Any,
    limit: int | None,
) -> dict[str, Any]:
    """Refuse rows without a policy or without room for an answer; returns the token budget.

    Raises:
        UserError: all faulty rows.
    """
    problems, budgets = [], []
    for sample in samples:
        policy = data.policy_of(sample) if config.shows_policy else None
        where = f"{config.split}: row {sample.id!r}"
        if config.shows_policy and policy is None:
            problems.append(f"{where}: has no policy; name one, or {_otherwise(config)}")
            continue
        try:
            budgets.append(
                (where, token_budget(processor, sample, policy, "cot", config.max_new_tokens))
            )
        except UserError as error:
            problems.append(f"{where}: {error}")
    if problems:
        more = len(problems) - SHOWN
        raise UserError.join(problems[:SHOWN] + ([f"... and {more} more rows"] if more > 0 else []))
    check_budgets(budgets, limit)
    return dict(summarize_budgets(budget for _, budget in budgets))


def _otherwise(config: RolloutConfig) -> str:
    """What can be done where a row has no policy."""
    if not isinstance(config, RlConfig):
        return "drop the row"
    return "set policy_fraction to 0" if config.teacher is None else "drop teacher"
