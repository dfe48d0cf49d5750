"""What every stage gets beside its configuration."""

from dataclasses import dataclass
from pathlib import Path

from trimpi.grading import Grader
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder
from trimpi.trackers import Tracking


@dataclass(frozen=True)
class StageInputs:
    """Input of a stage; `run(config, inputs)` returns `inputs.output / "model"`.

    Attributes:
        model: the model folder to start from.
        model_config: how to load it (its `path` is not used).
        data: the data folder of the recipe.
        output: the stage folder: checkpoints/, metrics.jsonl, model/, stage.json (written last).
        seed: fixes data order and initial adapters.
        grader: the recipe's grader; reward of the RL stage.
        base: the model folder that the recipe starts from, for stages that compare with it.
        replay: the recipe's general examples, for stages that mix them in.
        tracking: where the log goes beside `metrics.jsonl`; None for nowhere.
    """

    model: Path
    model_config: ModelConfig
    data: DataFolder
    output: Path
    seed: int
    grader: Grader
    base: Path | None = None
    replay: DataFolder | None = None
    tracking: Tracking | None = None
