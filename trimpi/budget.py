"""Token budget: how many tokens each part of a row costs, checked before any weights are loaded."""

import weakref
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from trimpi.batch import completion_ids, encode_text, picture_paths
from trimpi.errors import UserError
from trimpi.pictures import store_of
from trimpi.policy import Policy
from trimpi.prompt import Target, build_messages, render_target, text_messages
from trimpi.sample import Sample

_SHOWN = 20
_CURE = {
    "policy": "shorten the policy or take a model with a longer context",
    "query": "shorten the query",
    "images": "lower model.max_pixels or show fewer pictures",
    "rationale": "shorten the rationale",
    "answer": "shorten the answer",
    "completion": "lower max_new_tokens",
    "template": "use a shorter chat template",
}


@dataclass(frozen=True)
class TokenBudget:
    """Tokens by part. `images` counts the pictures of policy and query; `template` is the rest.

    The sum is exact; a token that spans two parts is counted in one of them.
    """

    policy: int
    query: int
    images: int
    rationale: int
    answer: int
    template: int
    completion: int = 0
    """Room for what a model is still to write, in place of `rationale` and `answer`."""

    @property
    def total(self) -> int:
        """Length of the whole sequence."""
        return sum(asdict(self).values())


def token_budget(
    processor: Any,
    sample: Sample,
    policy: Policy | None,
    target: Target,
    max_new_tokens: int | None = None,
) -> TokenBudget:
    """Count the tokens of one row.

    Args:
        processor: of the model.
        sample: the row.
        policy: what is shown in context, or None.
        target: the form of the completion.
        max_new_tokens: for rows that a model completes: counted as `completion` in place of the
            written one.
    """
    messages = build_messages(sample, policy, target)
    prompt = encode_text(processor, messages)
    store = store_of(processor)
    images = sum(len(store.expansion(path).ids) for path in picture_paths(messages))
    if max_new_tokens is not None:
        answer = rationale = 0
    else:
        completion = len(completion_ids(processor, render_target(sample, target)))
        answer = min(completion, _count(processor, render_target(sample, "answer")) + 1)
        rationale = completion - answer
    rest = len(prompt.input_ids) - images
    shown = min(rest, _count(processor, policy.text)) if policy is not None else 0
    query = min(rest - shown, _count(processor, messages[-1]["content"][-1]["text"]))
    template = rest - shown - query
    return TokenBudget(
        shown, query, images, rationale, answer, template, completion=max_new_tokens or 0
    )


def policy_tokens(processor: Any, policy: Policy) -> tuple[int, int]:
    """Tokens of a policy, as (text, pictures).

    Raises:
        UserError: a picture cannot be read.
    """
    store = store_of(processor)
    pictures = sum(len(store.expansion(path).ids) for path in policy.images)
    return _count(processor, policy.text), pictures


def text_budget(processor: Any, sample: Sample) -> TokenBudget:
    """Count the tokens of a text about a policy, which stands alone."""
    messages = text_messages(sample)
    store = store_of(processor)
    images = sum(len(store.expansion(path).ids) for path in picture_paths(messages))
    rest = len(encode_text(processor, messages).input_ids) - images
    query = min(rest, _count(processor, sample.query))
    answer = len(completion_ids(processor, sample.answer))
    return TokenBudget(0, query, images, 0, answer, rest - query)


def check_budgets(budgets: Iterable[tuple[str, TokenBudget]], limit: int | None) -> None:
    """Refuse all rows that are longer than the model's context.

    Args:
        budgets: (where, budget) by row.
        limit: the model's context in tokens; None is unbounded.

    Raises:
        UserError: one line a row that is too long, with its tokens by part and what to do.
    """
    if limit is None:
        return
    problems = []
    for where, budget in budgets:
        if budget.total > limit:
            parts = asdict(budget)
            largest = max(parts, key=lambda name: parts[name])
            listed = ", ".join(f"{name} {count}" for name, count in parts.items() if count)
            problems.append(
                f"{where}: {budget.total} tokens ({listed}) exceed the context of {limit}; "
                f"{_CURE[largest]}"
            )
    if problems:
        more = len(problems) - _SHOWN
        tail = [f"... and {more} more rows that are too long"] if more > 0 else []
        raise UserError.join(problems[:_SHOWN] + tail)


def summarize_budgets(budgets: Iterable[TokenBudget]) -> dict[str, Mapping[str, float]]:
    """Mean and maximum by part and in total, for logs."""
    rows = list(budgets)
    names = [field.name for field in fields(TokenBudget)] + ["total"]
    return {
        name: {
            "mean": round(sum(getattr(row, name) for row in rows) / max(len(rows), 1), 1),
            "max": max((getattr(row, name) for row in rows), default=0),
        }
        for name in names
    }


def _count(processor: Any, text: str) -> int:
    """Tokens of a text; long ones (policies) are remembered, since many rows share them."""
    known = _counts.setdefault(processor, {})
    if text not in known:
        ids = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(text) < 400:
            return len(ids)
        known[text] = len(ids)
    return known[text]


_counts: "weakref.WeakKeyDictionary[Any, dict[str, int]]" = weakref.WeakKeyDictionary()
