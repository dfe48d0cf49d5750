"""What a judge is, what it says, and what it reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from trimpi.policy import Policy
from trimpi.prompt import parse_response
from trimpi.sample import Completion, Sample

TOP = 10
"""The best score; the worst is 0."""
NO_REASONING = "no reasoning"
NO_POLICY = "the row is under no policy"


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict: `score` in 0..10, or None when there is none.

    `parts` are named sub-scores in [0, 1]; `note` says in words why, above all why there is none.
    `unreadable` marks an answer of a model that holds no score where it has to stand.
    """

    score: float | None
    note: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)
    unreadable: bool = False


@runtime_checkable
class Judge(Protocol):
    """Judges one completion against the policy that its sample is under."""

    def identity(self) -> Mapping[str, Any]:
        """What judgements depend on beside the row, as JSON; no secrets."""
        ...

    def judge(self, sample: Sample, policy: Policy, completion: Completion) -> Judgement:
        """The judgement of one completion."""
        ...


def reasoning_of(completion: Completion) -> str:
    """What is judged: the think block; without a whole one, the text before the boxed answer."""
    read = parse_response(completion.text).rationale
    if read is not None:
        return read
    return completion.text.partition("\\boxed")[0].replace("<think>", "").strip()


def at_once(policy: Policy | None, completion: Completion) -> Judgement | None:
    """What every judge says without looking: None without a policy, 0 where nothing is cited."""
    if policy is None:
        return Judgement(None, NO_POLICY)
    return None if reasoning_of(completion) else Judgement(0.0, NO_REASONING)
