"""Policy-aware completions for the prompts alone whose policy-free ones all fail (Guide)."""

from collections.abc import Sequence

import torch
from accelerate.utils import gather_object

from trimpi.prompt import Message
from trimpi.stages.policy_rollout import Half, PolicyRolloutTrainer
from trimpi.stages.rewards import Graded
from trimpi.stages.rollouts import Rolled, Sampled

SOLVED = 0.5
"""A completion fails when its accuracy is below this (`aware_when: all_failed`)."""


class GuidedRolloutTrainer(PolicyRolloutTrainer):
    """PolicyRollout that can decide by prompt, after the free half is graded, who is guided."""

    def draw_where_all_failed(
        self,
        rows: Sequence[int],
        free: list[list[Message]],
        full: list[list[Message]],
        places: Sequence[bool],
    ) -> list[Rolled]:
        """First the free places; the others with the policy where all of a group's first failed.

        Guide (arXiv 2506.13923) with whole groups of one size: a prompt that is solved without
        the policy gets policy-free completions in the other places too.
        """
        size, first = self.num_generations, self.accelerator.process_index * len(rows)
        drawn = self._sample(Half(free, [not mark for mark in places], self.layout.count(False)))
        graded = self._graded(rows, drawn)
        solved = [
            row in graded and (graded[row].accuracy or 0.0) >= SOLVED for row in range(len(rows))
        ]
        everyone = gather_object(solved)
        groups = ((first + row) // size for row in range(len(rows)))
        failed = [not any(everyone[group * size : (group + 1) * size]) for group in groups]
        aware = [place and lost for place, lost in zip(places, failed, strict=True)]
        other = [place and not lost for place, lost in zip(places, failed, strict=True)]
        added = self._sample_some(full, aware, places)
        added |= self._sample_some(free, other, places)
        graded |= self._graded(rows, added)
        drawn |= added
        self._log_generated(drawn.values())
        return [Rolled(aware[row], drawn[row], graded[row]) for row in range(len(rows))]

    def _sample_some(
        self, prompts: list[list[Message]], wanted: Sequence[bool], places: Sequence[bool]
    ) -> dict[int, Sampled]:
        """`_sample` where processes want different numbers of rows of these `places`.

        All of them sample as many as the one that wants most, since generation may hold collective
        operations; what is over is thrown away.
        """
        asked = torch.tensor([sum(wanted)], device=self.accelerator.device)
        most = int(self.accelerator.gather(asked).max())
        chosen, missing = list(wanted), most - sum(wanted)
        for row in [row for row, place in enumerate(places) if place and not wanted[row]][:missing]:
            chosen[row] = True
        sampled = self._sample(Half(prompts, chosen, self.layout.count(True))) if most else {}
        return {row: found for row, found in sampled.items() if wanted[row]}

    def _graded(self, rows: Sequence[int], drawn: dict[int, Sampled]) -> dict[int, Graded]:
        order = sorted(drawn)
        graded = self.grade([rows[row] for row in order], [drawn[row] for row in order])
        return dict(zip(order, graded, strict=True))

    def grade(self, rows: Sequence[int], drawn: Sequence[Sampled]) -> list[Graded]:
        """Verdicts of completions; `rows`: of the data set."""
        reward = self.reward_funcs[0]
        reward([sampled.completion_ids for sampled in drawn], rows)
        return list(reward.last)
