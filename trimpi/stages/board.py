"""TensorBoard's callback, with the folder of the stage."""

from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback

from trimpi.stages.inputs import StageInputs
from trimpi.trackers import board_folder


class Board(TensorBoardCallback):
    """Writes to a folder of ours; a stage that goes on takes back the steps that it makes again.

    transformers writes below `output_dir`, whose checkpoints are removed when a stage ends.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> None:
        """Called by the trainer before the first step; opens the files."""
        if not state.is_world_process_zero:
            return
        purge = state.global_step + 1 if state.global_step else None
        self.logging_dir = str(self._folder)
        self.tb_writer = self._SummaryWriter(log_dir=str(self._folder), purge_step=purge)
        super().on_train_begin(args, state, control, **kwargs)


def boards(inputs: StageInputs) -> list[Board]:
    """The callback where the recipe reports to TensorBoard."""
    tracking = inputs.tracking
    if tracking is None or "tensorboard" not in tracking.report_to:
        return []
    return [Board(board_folder(tracking, inputs.output))]
