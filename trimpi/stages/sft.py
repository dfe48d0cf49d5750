"""Stage 2, SFT: the loss is on the completion alone, the policy is not in the prompt (paper, 4.1).

`target: cot` trains C; A (CoT SFT), `target: answer` trains A alone (Direct SFT).
`show_policy: true` leaves the policy in the prompt (a baseline of the paper); `fading` takes it
out section by section, an epoch at a time, after PromptIntern (arXiv 2407.02211).
"""

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from trimpi.batch import Encoded, encode_example
from trimpi.budget import TokenBudget, token_budget
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.prompt import build_messages, render_target
from trimpi.recipe import SftConfig
from trimpi.sample import DataFolder, Sample
from trimpi.sections import Sections, sections_of
from trimpi.stages.inputs import StageInputs
from trimpi.stages.supervised import Encode, run_supervised


def run(config: SftConfig, inputs: StageInputs) -> Path:
    """Train on all rows of `config.split`; see `supervised.run_supervised`."""
    encode_first = partial(encode, config, inputs.data)
    if config.show_policy != "fading":
        return run_supervised(config, inputs, encode_first)
    fading = Fading(inputs.data, inputs.seed)

    def encode_epoch(epoch: int, epochs: int) -> Encode:
        return partial(encode, config, inputs.data, show=partial(fading.shown, epoch, epochs))

    return run_supervised(config, inputs, encode_first, encode_epoch=encode_epoch)


def encode(
    config: SftConfig,
    data: DataFolder,
    processor: Any,
    sample: Sample,
    visual: frozenset[int],
    show: Callable[[Sample], Policy | None] | None = None,
) -> tuple[Encoded, TokenBudget]:
    """The training sequence of a row, its completion in the loss, and its budget.

    Where the policy fades this is the sequence of the first epoch, unless `show` says what the row
    shows of it.

    Raises:
        UserError: the row has no rationale to train on, or a picture of it cannot be read.
    """
    if show is not None:
        policy = show(sample)
    else:
        policy = data.policy_of(sample) if config.show_policy else None
    if config.target == "cot" and sample.rationale is None:
        raise UserError("has no rationale; use another split, or target: answer")
    messages = build_messages(sample, policy, config.target)
    written = render_target(sample, config.target)
    row = encode_example(processor, messages, written, "completion")
    return row, token_budget(processor, sample, policy, config.target)


class Fading:
    """What a row shows of its policy in each epoch: 1 - e / (E - 1) of the sections in epoch e.

    Each row loses its sections in an order of its own, drawn from (seed, id), and none comes back.
    The head stays until the last epoch, which shows nothing.
    """

    def __init__(self, data: DataFolder, seed: int) -> None:
        self._data, self._seed = data, seed
        self._sections: dict[str, Sections] = {}

    def shown(self, epoch: int, epochs: int, sample: Sample) -> Policy | None:
        """The policy as it is shown with a row in `epoch` (from 0) of `epochs`, at least 2."""
        policy = self._data.policy_of(sample)
        if policy is None or sample.policy is None or epoch >= epochs - 1:
            return None
        if sample.policy not in self._sections:
            self._sections[sample.policy] = sections_of(policy)
        sections = self._sections[sample.policy]
        count = round(len(sections) * (1 - epoch / (epochs - 1)))
        order = list(range(len(sections)))
        random.Random(f"{self._seed} {sample.id}").shuffle(order)
        return sections.shown(order[:count])
