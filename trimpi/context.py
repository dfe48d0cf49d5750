"""Does every row of every stage and of the evaluation fit the context? Asked before training.

A stage checks its own rows again when it starts. That would be late for the last stage of a chain,
and for an evaluation after days of training.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trimpi.budget import TokenBudget, check_budgets, policy_tokens, text_budget, token_budget
from trimpi.control_tokens import control_tokens, held
from trimpi.errors import UserError
from trimpi.evaluate.settings import build_requests, expand
from trimpi.memory import read_size
from trimpi.processor import load_processor
from trimpi.prompt import Target
from trimpi.quiet import quiet
from trimpi.recipe import (
    CptConfig,
    DistillConfig,
    Recipe,
    RlConfig,
    RolloutConfig,
    SftConfig,
    TrainingConfig,
)
from trimpi.replay import read_general, target_of
from trimpi.sample import DataFolder, Sample

SHOWN = 20
"""Faults that are told one by one."""


def check_context(
    recipe: Recipe,
    model: Path,
    data: DataFolder,
    skills: DataFolder | None,
    replay: DataFolder | None = None,
) -> None:
    """Count the tokens of all rows; loads the processor, no weights.

    Args:
        recipe: its stages and evaluation say which rows are read, and what is shown with them.
        model: folder of the base model.
        data: the data folder, built.
        skills: the skills folder, if the evaluation has one.
        replay: the folder of general examples, if stages mix some in.

    Raises:
        UserError: one line a policy that fills the context alone; else one line a row that is
            longer than the context, has a bad picture, or holds a control token of the model.
    """
    limit = read_size(model).context
    quiet()  # else the tokenizer warns of long rows before our own line does
    processor = load_processor(model, recipe.model)
    tokens = control_tokens(processor.tokenizer)
    budgets: list[tuple[str, str | None, TokenBudget]] = []
    faults = long_policies(recipe, processor, data, limit)
    if faults:
        raise UserError.join(faults)  # counting their rows one by one takes long and tells no more
    marked = {
        f"{where}policy {name!r}": [token for _, token in held(policy.text, tokens)]
        for where, folder in (("", data), ("replay: ", replay))
        if folder is not None
        for name, policy in folder.policies.items()
    }
    for where, sample, count in _rows(recipe, processor, data, skills, replay):
        texts = (sample.query, sample.rationale or "", sample.answer)
        found = [token for text in texts for _, token in held(text, tokens)]
        if found:
            marked[where] = found
            continue
        try:
            budgets.append((where, sample.policy, count()))
        except UserError as error:
            faults.append(f"{where}: {error}")
    faults += [
        f"{where}: {found[0]!r} is a control token of the model, not text; write it in another way"
        for where, found in marked.items()
        if found
    ]
    try:
        check_budgets(_by_policy(budgets, limit), limit)
    except UserError as error:
        faults += str(error).splitlines()
    if faults:
        more = [f"... and {len(faults) - SHOWN} more rows"] if len(faults) > SHOWN else []
        raise UserError.join([*faults[:SHOWN], *more])


def long_policies(recipe: Recipe, processor: Any, data: DataFolder, limit: int | None) -> list[str]:
    """A line for each policy that fills the context alone, with all that would show it.

    One count a policy: a document of some hundred thousand tokens is told at once.
    """
    quiet()
    used = {name for chain in recipe.chains.values() for name in chain}
    shows = {
        f"stages.{name}": stage.split
        for name, stage in recipe.trained.items()
        if name in used and _shows_policy(stage)
    }
    evaluation = recipe.evaluation
    for setting in expand(evaluation.settings):
        if setting in ("in_context", "recital_in_context", "efficiency"):
            shows[f"evaluation.{setting}"] = evaluation.split
        elif setting == "override":
            shows["evaluation.override"] = evaluation.override_split
    under = {
        split: {sample.policy for sample in data.read(split)}
        for split in set(shows.values()) & set(data.splits)
    }
    found = []
    for name, policy in data.policies.items():
        users = [key for key, split in shows.items() if name in under.get(split, ())]
        if not users or limit is None:
            continue
        try:
            text, pictures = policy_tokens(processor, policy)
        except UserError:
            continue  # a bad picture, told where the policy is read
        if text + pictures >= limit:
            parts = f"{text:,} of text, {pictures:,} of pictures"
            found.append(
                f"policy {name!r}: {text + pictures:,} tokens ({parts}) in every prompt of "
                f"{', '.join(users)}; the model's context is {limit:,}; shorten the policy, or "
                "take a model with a longer context"
            )
    return found


def _by_policy(
    budgets: Sequence[tuple[str, str | None, TokenBudget]], limit: int | None
) -> list[tuple[str, TokenBudget]]:
    """Rows to be told: of those too long for their policy, the longest of each policy and place."""
    told: list[tuple[str, TokenBudget]] = []
    groups: dict[tuple[str, str], list[tuple[str, TokenBudget]]] = {}
    for where, policy, budget in budgets:
        place, _, row = where.partition(": row ")
        rest = budget.total - budget.policy
        if policy is None or limit is None or budget.total <= limit or budget.policy < rest:
            told.append((where, budget))
        else:
            groups.setdefault((place, policy), []).append((row, budget))
    for (place, policy), rows in groups.items():
        row, budget = max(rows, key=lambda pair: pair[1].total)
        more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        told.append((f"{place}: policy {policy!r}: row {row}{more}", budget))
    return told


def _shows_policy(stage: TrainingConfig) -> bool:
    """Whether a stage puts the policy of a row into its prompts."""
    if isinstance(stage, RolloutConfig):
        return stage.shows_policy
    return bool(stage.show_policy) if isinstance(stage, SftConfig) else True


def _rows(
    recipe: Recipe,
    processor: object,
    data: DataFolder,
    skills: DataFolder | None,
    replay: DataFolder | None,
) -> Iterator[tuple[str, Sample, Callable[[], TokenBudget]]]:
    """Each use of a row: where, the row, and what counts its tokens."""
    used = {name for chain in recipe.chains.values() for name in chain}
    for sample in read_general(replay) if replay is not None else ():
        assert replay is not None
        row = (sample, replay.policy_of(sample), target_of(sample))
        yield f"replay: row {sample.id!r}", sample, partial(token_budget, processor, *row)
    for name, stage in recipe.trained.items():
        if name not in used:
            continue
        room = stage.max_new_tokens if isinstance(stage, RolloutConfig | DistillConfig) else None
        shown = _shows_policy(stage)
        if isinstance(stage, CptConfig) and stage.texts is not None:
            for sample in data.read(stage.texts):
                where = f"stages.{name}: {stage.texts}: row {sample.id!r}"
                yield where, sample, partial(text_budget, processor, sample)
        for sample in data.read(stage.split)[: stage.limit]:
            where = f"stages.{name}: {stage.split}: row {sample.id!r}"
            target: Target = stage.target if isinstance(stage, SftConfig | DistillConfig) else "cot"
            if sample.rationale is None and room is None:
                target = "answer"
            policy = data.policy_of(sample) if shown else None
            yield where, sample, partial(token_budget, processor, sample, policy, target, room)
        if isinstance(stage, RlConfig) and stage.validation is not None:
            for sample in data.read(stage.validation.split):
                where = f"stages.{name}.validation: row {sample.id!r}"
                room = stage.max_new_tokens
                yield where, sample, partial(token_budget, processor, sample, None, "cot", room)
    asked = recipe.evaluation
    for setting in expand(asked.settings):
        if setting in ("efficiency", "referral"):
            continue
        if setting == "skills" and skills is None and asked.skills is not None:
            continue  # a dry run, and they are not built yet
        requests = build_requests(
            setting,
            data,
            skills,
            target="cot",
            split=asked.split,
            override_split=asked.override_split,
            limit=asked.limit,
            retrieval=asked.retrieval,
        )
        for request in requests:
            where = f"evaluation.{setting}: row {request.sample.id!r}"
            asks = (request.sample, request.shown, request.target, asked.max_new_tokens)
            yield where, request.sample, partial(token_budget, processor, *asks)
