"""The reward of RL: the recipe's grader plus a share for form, for TRL's trainer."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from trimpi.grading import Grader, checked_score, checked_scores, format_score
from trimpi.recipe_rl import Overlong
from trimpi.sample import Completion, Sample, Score


@dataclass(frozen=True)
class Graded:
    """One rollout's verdict; `reward` and `accuracy` are None when the grader cannot grade it."""

    reward: float | None
    accuracy: float | None
    form: float
    completion: Completion
    overlong: float | None = None
    """Penalty of length, -1 to 0; None where the stage asks for none."""


class RolloutReward:
    """`accuracy_weight` * grader + `format_weight` * well-formed (paper, stage 3).

    With `overlong`, its weight times `overlong_penalty` is added.

    The text that is graded is what evaluation would read: all tokens up to the one that ends the
    turn, special ones included.
    """

    __name__ = "rollout_reward"

    def __init__(
        self,
        samples: Sequence[Sample],
        grader: Grader,
        tokenizer: Any,
        stops: Collection[int],
        lead: str = "",
        accuracy_weight: float = 1.0,
        format_weight: float = 0.5,
        file: str = "",
        overlong: Overlong | None = None,
        max_new_tokens: int = 0,
    ) -> None:
        """
        Args:
            samples: by the `row` that a rollout carries.
            grader: value in [0, 1], or None where a completion cannot be graded.
            tokenizer: of the model.
            stops: ids that end a completion.
            lead: what the chat template puts before an assistant's text; cut off.
            accuracy_weight: weight of the grader's value.
            format_weight: weight of the form.
            file: that the samples are the first rows of, for messages.
            overlong: the recipe's section; None adds no penalty.
            max_new_tokens: longest completion, for the penalty.
        """
        self._samples, self._grader = samples, grader
        self._tokenizer, self._stops, self._lead = tokenizer, frozenset(stops), lead
        self._accuracy_weight, self._format_weight = accuracy_weight, format_weight
        self._where = {
            sample.id: f"{file}:{number}" if file else ""
            for number, sample in enumerate(samples, 1)
        }
        self._overlong, self._longest = overlong, max_new_tokens
        self.given: list[Graded] | None = None
        """Verdicts that the next calls give in place of grading: those of rows graded before."""
        self.last: list[Graded] = []
        """Verdicts of the last call, in the order of its rows."""

    def __call__(
        self, completion_ids: Sequence[Sequence[int]], row: Sequence[int], **kwargs: Any
    ) -> list[float | None]:
        """Rewards of completions; None (ungradable) takes a row out of its group's baseline.

        Raises:
            UserError: the grader failed or gave no score; names the sample.
        """
        if self.given is not None:
            self.last = list(self.given)
            return [graded.reward for graded in self.last]
        samples = [self._samples[index] for index in row]
        completions = [
            self._read(sample.id, ids) for sample, ids in zip(samples, completion_ids, strict=True)
        ]
        scores = checked_scores(
            self._grader, samples, completions, lambda place: self._where[samples[place].id]
        )
        self.last = [self._weigh(*pair) for pair in zip(scores, completions, strict=True)]
        return [graded.reward for graded in self.last]

    def grade(self, sample: Sample, completion: Completion) -> Graded:
        """Reward of one completion."""
        where = self._where[sample.id]
        return self._weigh(checked_score(self._grader, sample, completion, where), completion)

    def _weigh(self, score: Score, completion: Completion) -> Graded:
        accuracy = score.value
        form = format_score(completion)
        overlong = None
        if self._overlong is not None:
            overlong = overlong_penalty(completion.tokens, self._longest, self._overlong.cache)
        if accuracy is None:
            return Graded(None, None, form, completion, overlong)
        reward = self._accuracy_weight * accuracy + self._format_weight * form
        if self._overlong is not None and overlong is not None:
            reward += self._overlong.weight * overlong
        return Graded(reward, accuracy, form, completion, overlong)

    def _read(self, sample_id: str, ids: Sequence[int]) -> Completion:
        end = next((place for place, token in enumerate(ids) if token in self._stops), None)
        kept = list(ids[:end])
        text = self._tokenizer.decode(
            kept, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return Completion(sample_id, text.removeprefix(self._lead), len(kept), end is None)


def overlong_penalty(tokens: int, longest: int, cache: int) -> float:
    """DAPO's soft overlong punishment (arXiv 2503.14476, eq. 13).

    Args:
        tokens: of the completion, without the one that ends it.
        longest: `max_new_tokens`.
        cache: the last tokens before `longest`, over which the penalty falls from 0 to -1.
    """
    return max(-1.0, min(0.0, (longest - cache - tokens) / cache))
