"""Stage 1, VM-CPT: continual pretraining on (P, I, Q, C, A) with visual tokens masked (paper, 4.1).

The whole sequence is the prompt with the policy in context, then rationale and answer. Every token
is in the loss except the placeholders and boundary marks of pictures, those inside the policy too.
Texts about the policies (`texts` of the stage) are mixed in without the policy, after CAP-CPT
(arXiv 2510.11588).
"""

from functools import partial
from pathlib import Path
from typing import Any

from trimpi.batch import Encoded, encode_example
from trimpi.budget import TokenBudget, text_budget, token_budget
from trimpi.errors import UserError
from trimpi.prompt import build_messages, render_target, text_fault, text_messages
from trimpi.recipe import CptConfig
from trimpi.sample import DataFolder, Sample
from trimpi.stages.inputs import StageInputs
from trimpi.stages.supervised import run_supervised


def run(config: CptConfig, inputs: StageInputs) -> Path:
    """Train on all rows of `config.split`; see `supervised.run_supervised`."""
    read = partial(encode, config, inputs.data)
    return run_supervised(config, inputs, read, encode_text_row)


def encode(
    config: CptConfig, data: DataFolder, processor: Any, sample: Sample, visual: frozenset[int]
) -> tuple[Encoded, TokenBudget]:
    """The training sequence of a row, everything but visual tokens in the loss, and its budget.

    Raises:
        UserError: the row has no rationale, or a picture of it cannot be read.
    """
    policy = data.policy_of(sample)
    if sample.rationale is None:
        raise UserError("has no rationale; use a split with rationales (train_cot)")
    messages = build_messages(sample, policy, "cot")
    row = encode_example(processor, messages, render_target(sample, "cot"), "text", visual)
    return row, token_budget(processor, sample, policy, "cot")


def encode_text_row(
    processor: Any, sample: Sample, visual: frozenset[int]
) -> tuple[Encoded, TokenBudget]:
    """The training sequence of a text about a policy, and its budget.

    Query and answer stand alone: no policy, no response format. All non-visual tokens are in the
    loss.

    Raises:
        UserError: the query or the answer is empty, or a picture of it cannot be read.
    """
    if fault := text_fault(sample):
        raise UserError(fault)
    row = encode_example(processor, text_messages(sample), sample.answer, "text", visual)
    return row, text_budget(processor, sample)
