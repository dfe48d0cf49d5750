"""The accuracy of a model while rollouts train it: greedy, policy-free answers to held-out rows."""

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimpi.generate import Generator, TransformersGenerator
from trimpi.grading import Grader, checked_score, format_score
from trimpi.prompt import build_messages
from trimpi.recipe import RolloutConfig
from trimpi.sample import Completion, Sample
from trimpi.stages.inputs import StageInputs


def spread_rows(samples: Sequence[Sample], rows: int) -> list[Sample]:
    """So many of the samples, evenly spread: splits may be sorted by policy. All if fewer."""
    if len(samples) <= rows:
        return list(samples)
    return [samples[place * len(samples) // rows] for place in range(rows)]


def validate(
    generate: Generator, samples: Sequence[Sample], grader: Grader, max_new_tokens: int, file: str
) -> dict[str, float]:
    """Greedy answers without the policy, graded.

    Args:
        generate: answers prompts.
        samples: the rows; those that the grader cannot score count nowhere.
        grader: the recipe's.
        max_new_tokens: of an answer.
        file: of the rows, for the message of a grader that fails.

    Returns:
        `validation/accuracy` (missing if nothing could be graded), `/format`, `/length`, means.

    Raises:
        UserError: a prompt leaves no room for an answer, or the grader failed.
    """
    answers = generate(
        [build_messages(sample, None) for sample in samples], max_new_tokens=max_new_tokens
    )
    completions = [
        Completion(sample.id, answer.text, answer.tokens, answer.truncated)
        for sample, answer in zip(samples, answers, strict=True)
    ]
    scores = [
        checked_score(grader, sample, completion, file).value
        for sample, completion in zip(samples, completions, strict=True)
    ]
    graded = [score for score in scores if score is not None]
    found = {"validation/accuracy": sum(graded) / len(graded)} if graded else {}
    found["validation/format"] = sum(map(format_score, completions)) / len(completions)
    found["validation/length"] = sum(c.tokens for c in completions) / len(completions)
    return found


class ValidationCurve(TrainerCallback):
    """Logs a measurement before the first update, after every so many and after the last.

    Nothing of training depends on it: answers are greedy. `step_time` does not hold its seconds,
    which are logged beside it.
    """

    def __init__(
        self, measure: Callable[[], dict[str, float]], log: Callable[[dict[str, float]], Any],
        every: int, name: str,
    ) -> None:  # fmt: skip
        """
        Args:
            measure: e.g. `validate` with its arguments.
            log: the trainer's `log`.
            every: updates between two measurements.
            name: what the lines on the terminal begin with.
        """
        self._measure, self._log, self._every, self._name = measure, log, every, name

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Called by the trainer; a resumed stage has been measured here before."""
        if state.global_step == 0:
            self._take(state)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Called by the trainer after an update."""
        if state.global_step % self._every == 0 and state.global_step < state.max_steps:
            due = control.should_log  # is taken back by whatever is logged
            self._take(state)
            control.should_log = due

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Called by the trainer after the last update, wherever it ended."""
        self._take(state)

    def _take(self, state: TrainerState) -> None:
        started = time.perf_counter()
        found = self._measure()
        found["validation/seconds"] = time.perf_counter() - started
        self._log(found)
        if state.is_world_process_zero and "validation/accuracy" in found:
            right = found["validation/accuracy"]
            print(f"{self._name}: step {state.global_step}/{state.max_steps}: {right:.1%} right")


def validation_curve(config: RolloutConfig, inputs: StageInputs, trainer: Any) -> ValidationCurve:
    """What measures the model while it trains, as `config.validation` says."""
    asked = config.validation
    assert asked is not None
    rows = spread_rows(inputs.data.read(asked.split), asked.rows)
    file = str(inputs.data.root / f"{asked.split}.jsonl")

    def measure() -> dict[str, float]:
        model = trainer.accelerator.unwrap_model(trainer.model)
        processor = trainer.processing_class
        generate = TransformersGenerator(
            model, processor, config.micro_batch_size, sys.stderr.isatty()
        )
        return validate(generate, rows, inputs.grader, config.max_new_tokens, file)

    def log(found: dict[str, float]) -> None:
        # TRL's own would take the means that it gathers for the next logged step along.
        Trainer.log(trainer, found)

    return ValidationCurve(measure, log, asked.every, config.kind)
