"""General examples as training sequences of CPT and SFT (replay).

A general example is a sequence of its own: the request, with its own policy where it has one, and
the response in its own format. SFT trains the response, CPT all tokens but visual ones: what is in
the loss is the stage's own mask, so that both kinds of rows pull on the weights in the same way.
"""

from typing import Any

from trimpi.batch import Encoded, encode_example
from trimpi.budget import TokenBudget, token_budget
from trimpi.errors import UserError
from trimpi.prompt import build_messages, render_target
from trimpi.recipe import CptConfig, SupervisedConfig
from trimpi.replay import check_general, draw_general, target_of
from trimpi.runs import data_digest
from trimpi.sample import DataFolder, Sample
from trimpi.stages.inputs import StageInputs


def drawn_general(config: SupervisedConfig, inputs: StageInputs, count: int) -> list[Sample]:
    """The general examples that every epoch of the stage sees; drawn by kind and seed.

    Raises:
        UserError: the stage got no general examples, or rows of them lack something.
    """
    general = check_general(replay_folder(inputs))
    return draw_general(general, count, f"{inputs.seed}/replay/{config.kind}")


def encode_general(
    config: SupervisedConfig,
    folder: DataFolder,
    processor: Any,
    sample: Sample,
    visual: frozenset[int],
) -> tuple[Encoded, TokenBudget]:
    """The training sequence of a general example, and its budget.

    Raises:
        UserError: a picture of it cannot be read.
    """
    target, policy = target_of(sample), folder.policy_of(sample)
    messages, written = build_messages(sample, policy, target), render_target(sample, target)
    supervise: Any = "text" if isinstance(config, CptConfig) else "completion"
    row = encode_example(processor, messages, written, supervise, visual)
    return row, token_budget(processor, sample, policy, target)


def replay_record(inputs: StageInputs, rows: int, share_in_loss: float) -> dict[str, Any]:
    """What `stage.json` says of replay.

    Args:
        inputs: of the stage.
        rows: general examples of an epoch.
        share_in_loss: their share in the tokens that are in the loss, which weighs them.
    """
    folder = replay_folder(inputs)
    return {
        "rows": rows,
        "of": len(check_general(folder)),
        "share_in_loss": round(share_in_loss, 4),
        "digest": data_digest(folder.root, folder.card),
    }


def replay_folder(inputs: StageInputs) -> DataFolder:
    """The folder of the general examples.

    Raises:
        UserError: the stage got none.
    """
    if inputs.replay is None:
        raise UserError("replay_ratio needs general examples; give the recipe a 'replay'")
    return inputs.replay
