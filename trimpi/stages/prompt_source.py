"""Where the prompts of a rollout batch come from when the data loader does not decide them.

Both sources are a function of the seed and of a state that a checkpoint keeps, so that a resume
draws the prompts that the uninterrupted run would have drawn.
"""

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Protocol

import torch

from trimpi.errors import UserError
from trimpi.recipe import RlConfig
from trimpi.recipe_rl import Curriculum
from trimpi.sample import Sample


class PromptSource(Protocol):
    """Gives rows of the data set, one a prompt."""

    def take(self, count: int) -> list[int]:
        """The next `count` rows."""
        ...

    def learn(self, rows: Sequence[int], advantages: Sequence[float]) -> dict[str, float]:
        """Told the mean |advantage| of each prompt that was sampled; returns what to log."""
        ...

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue where another source stood."""
        ...


class PromptStream:
    """All rows in the order of `sampling.EpochSampler`, epoch after epoch, as long as asked."""

    def __init__(self, rows: int, seed: int) -> None:
        self._rows, self._seed, self.taken = rows, seed, 0
        self._epoch, self._order = -1, list[int]()

    def take(self, count: int) -> list[int]:
        """The next `count` rows; a row comes again only after all others."""
        found = [self._row(self.taken + place) for place in range(count)]
        self.taken += count
        return found

    def learn(self, rows: Sequence[int], advantages: Sequence[float]) -> dict[str, float]:
        """Its order does not depend on what is learned."""
        return {}

    def state(self) -> dict[str, Any]:
        """How many prompts were taken."""
        return {"taken": self.taken}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue behind the prompts that were taken."""
        self.taken = int(state["taken"])

    def _row(self, position: int) -> int:
        epoch, place = divmod(position, self._rows)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed)
            for _ in range(epoch + 1):
                order = torch.randperm(self._rows, generator=generator)
            self._epoch, self._order = epoch, order.tolist()
        return self._order[place]


class BanditSource:
    """SEC: categories are arms, drawn by softmax(Q / temperature) (arXiv 2505.14970, sec. 3).

    The reward of an arm is the mean |advantage| of its completions; with standardised 0/1 rewards
    that is 2 sqrt(p (1 - p)), greatest where half of the completions are right.
    """

    def __init__(self, categories: Sequence[Hashable], options: Curriculum, seed: int) -> None:
        """
        Args:
            categories: of each row of the data set.
            options: the recipe's section.
            seed: of the draws.
        """
        self._options, self._categories = options, list(categories)
        self.arms = sorted(set(categories), key=str)
        self.q = dict.fromkeys(self.arms, 0.0)
        members = {a: [r for r, c in enumerate(categories) if c == a] for a in self.arms}
        self._members = members
        self._streams = {
            arm: PromptStream(len(rows), seed + number)
            for number, (arm, rows) in enumerate(members.items())
        }
        self._generator = torch.Generator().manual_seed(seed)

    def probabilities(self) -> list[float]:
        """Of the arms, in their order."""
        best = max(self.q.values())
        weights = [math.exp((self.q[a] - best) / self._options.temperature) for a in self.arms]
        return [weight / sum(weights) for weight in weights]

    def take(self, count: int) -> list[int]:
        """Draw an arm for each prompt, and the arm's next row."""
        drawn = torch.multinomial(
            torch.tensor(self.probabilities()), count, replacement=True, generator=self._generator
        )
        arms = [self.arms[index] for index in drawn.tolist()]
        return [self._members[arm][self._streams[arm].take(1)[0]] for arm in arms]

    def learn(self, rows: Sequence[int], advantages: Sequence[float]) -> dict[str, float]:
        """Q <- (1 - alpha) Q + alpha r, r the mean |advantage| of the category's prompts."""
        alpha = self._options.alpha
        found: dict[str, float] = {}
        for arm, probability in zip(self.arms, self.probabilities(), strict=True):
            seen = [a for r, a in zip(rows, advantages, strict=True) if self._categories[r] == arm]
            if seen or self._options.decay_unseen:
                reward = sum(seen) / len(seen) if seen else 0.0
                self.q[arm] = (1 - alpha) * self.q[arm] + alpha * reward
            found[f"rollout/curriculum/{arm}/q"] = self.q[arm]
            found[f"rollout/curriculum/{arm}/share"] = len(seen) / len(rows)
            found[f"rollout/curriculum/{arm}/probability"] = probability
        return found

    def state(self) -> dict[str, Any]:
        """Q and how far each category is, by the category's place; and the state of the draws."""
        return {
            "q": [self.q[arm] for arm in self.arms],
            "taken": [self._streams[arm].taken for arm in self.arms],
            "draws": self._generator.get_state().tolist(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue with the same values, rows and draws."""
        self.q = dict(zip(self.arms, state["q"], strict=True))
        for arm, taken in zip(self.arms, state["taken"], strict=True):
            self._streams[arm].restore({"taken": taken})
        self._generator.set_state(torch.tensor(state["draws"], dtype=torch.uint8))


def prompt_source(samples: Sequence[Sample], config: RlConfig, seed: int) -> PromptSource:
    """The source that the stage asks for.

    Raises:
        UserError: rows lack a key of the curriculum.
    """
    if config.curriculum is None:
        return PromptStream(len(samples), seed)
    categories = categories_of(samples, config.curriculum.by)
    if None in categories:
        missing = [s.id for s, c in zip(samples, categories, strict=True) if c is None]
        known = sorted({key for sample in samples for key in sample.facts})
        raise UserError(
            f"{config.kind}.curriculum.by: the facts of {len(missing)} rows of {config.split} lack "
            f"one of {', '.join(config.curriculum.by)}, the first is {missing[0]!r}; there are "
            f"{', '.join(known) or 'none'}"
        )
    return BanditSource([str(category) for category in categories], config.curriculum, seed)


def categories_of(samples: Sequence[Sample], keys: Sequence[str]) -> list[str | None]:
    """`key=value, ...` of each row's facts, a list by its length; None where a key is missing."""

    def value(fact: Any) -> Any:
        return len(fact) if isinstance(fact, list | tuple) else fact

    return [
        ", ".join(f"{key}={value(sample.facts[key])}" for key in keys)
        if all(key in sample.facts for key in keys)
        else None
        for sample in samples
    ]
