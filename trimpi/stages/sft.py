"""Stage 2, SFT: the loss is on the completion alone, the policy is not in the prompt (paper, 4.1).

`target: cot` trains C; A (CoT SFT), `target: answer` trains A alone (Direct SFT).
"""

from functools import partial
from pathlib import Path
from typing import Any

from trimpi.batch import Encoded, encode_example
from trimpi.budget import TokenBudget, token_budget
from trimpi.errors import UserError
from trimpi.prompt import build_messages, render_target
from trimpi.recipe import SftConfig
from trimpi.sample import DataFolder, Sample
from trimpi.stages.inputs import StageInputs
from trimpi.stages.supervised import run_supervised


def run(config: SftConfig, inputs: StageInputs) -> Path:
    """Train on all rows of `config.split`; see `supervised.run_supervised`."""
    return run_supervised(config, inputs, partial(encode, config, inputs.data))


def encode(
    config: SftConfig, data: DataFolder, processor: Any, sample: Sample, visual: frozenset[int]
) -> tuple[Encoded, TokenBudget]:
    """The training sequence of a row, its completion in the loss, and its budget.

    Raises:
        UserError: the row has no rationale to train on, or a picture of it cannot be read.
    """
    policy = data.policy_of(sample) if config.show_policy else None
    if config.target == "cot" and sample.rationale is None:
        raise UserError("has no rationale; use another split, or target: answer")
    messages = build_messages(sample, policy, config.target)
    written = render_target(sample, config.target)
    row = encode_example(processor, messages, written, "completion")
    return row, token_budget(processor, sample, policy, config.target)
