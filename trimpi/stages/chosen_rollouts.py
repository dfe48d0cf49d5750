"""Which prompts, which share of the policy, and which groups a rollout batch is made of.

Where one of these is asked for, a batch is made in two steps: groups are sampled, graded and
chosen, and then TRL scores the chosen ones as if it had just generated them. It computes masks,
normalisers, old log-probabilities and advantages once, for the batch that is trained on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from trimpi.prompt import Message
from trimpi.recipe import RlConfig
from trimpi.runs import read_json, write_json
from trimpi.stages.dynamic_sampling import DynamicRecord, refill
from trimpi.stages.guided_rollouts import GuidedRolloutTrainer
from trimpi.stages.policy_share import PolicyShare
from trimpi.stages.prompt_source import PromptSource
from trimpi.stages.rollout_rows import with_pictures
from trimpi.stages.rollouts import Group, Rolled, Sampled, mean_abs_advantage

STATE = "rollouts.json"
"""File of a checkpoint: prompts taken, counts of dynamic sampling, the policy share's lead."""


class ChosenRolloutTrainer(GuidedRolloutTrainer):
    """PolicyRollout with dynamic sampling, schedules of the policy share, and a prompt source."""

    def __init__(self, *args: Any, config: RlConfig, source: PromptSource, **kwargs: Any) -> None:
        """
        Args:
            config: the stage.
            source: of prompts, where the options need one.
            args, kwargs: of TRL's trainer.
        """
        super().__init__(
            *args,
            policy_fraction=config.policy_fraction,
            generation=config.generation,
            **kwargs,
        )
        self.config, self.source = config, source
        batches = -(-self.args.max_steps // config.updates_per_rollout)
        self.share = PolicyShare(config, batches)
        self.dynamic = DynamicRecord(config.dynamic_sampling) if config.dynamic_sampling else None
        self._chooses = bool(
            config.dynamic_sampling or config.curriculum or config.aware_when == "all_failed"
        )
        self._chosen: list[Rolled] | None = None
        self.rollout_batch = 0
        self.add_callback(EndWithoutSignal(self))

    def generates_itself(self) -> bool:
        """Also without policy-aware rows, where groups are chosen or their share changes."""
        asked = self._chosen is not None or self.config.policy_share != "constant"
        return asked or super().generates_itself()

    def aware_rows(self, rows: int) -> list[bool]:
        """By the layout, or as they were chosen."""
        if self._chosen is not None:
            return [rolled.aware for rolled in self._chosen]
        return super().aware_rows(rows)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.model.training or self.as_given:
            return super()._generate_and_score_completions(inputs)
        self.rollout_batch = self.state.global_step // self.config.updates_per_rollout
        # A checkpoint falls between rollout batches, so that a resume counts tries from 0 too.
        self.draws = (self.rollout_batch, 0)
        self.layout = self.share.layout(self.rollout_batch)
        reward = self.reward_funcs[0]
        if self._chooses:
            groups = self._choose(len(inputs))
            size, first = self.num_generations, self.accelerator.process_index * len(inputs)
            mine = range(first, first + len(inputs))
            inputs = [dict(self.train_dataset[groups[place // size].row]) for place in mine]
            self._chosen = [groups[place // size].rolled[place % size] for place in mine]
            reward.given = [rolled.graded for rolled in self._chosen]
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self._chosen = reward.given = None
        log = self._metrics["train"]
        log["rollout/aware/share"].append(float(self.table.aware.float().mean()))
        self.share.observe(*self.table.mean_rewards())
        return output

    def _draw(
        self,
        prompts: list[list[Message]],
        with_policy: list[list[Message]],
        aware: Sequence[bool],
    ) -> list[Sampled]:
        if self._chosen is not None:
            return [rolled.sampled for rolled in self._chosen]
        return super()._draw(prompts, with_policy, aware)

    def _choose(self, rows: int) -> list[Group]:
        """The groups of a batch, of all processes; `rows`: of each process."""
        wanted = rows * self.accelerator.num_processes // self.num_generations
        seen: list[Group] = []

        def sample() -> list[Group]:
            found = self._roll(self.source.take(wanted))
            seen.extend(found)
            return found

        metrics: dict[str, float] = {}
        if self.config.dynamic_sampling is None or self.dynamic is None:
            groups = sample()
        else:
            batch = refill(sample, wanted, self.config.dynamic_sampling)
            groups, metrics = batch.groups, batch.metrics()
            for line in self.dynamic.add(batch):
                if self.is_world_process_zero():
                    print(f"warning: {self.config.kind}: step {self.state.global_step + 1}: {line}")
        advantages = [mean_abs_advantage(group.rewards()) for group in seen]
        metrics |= self.source.learn([group.row for group in seen], advantages)
        for name, value in metrics.items():
            self._metrics["train"][name].append(value)
        return groups

    def _roll(self, prompts: Sequence[int]) -> list[Group]:
        """Sample and grade a group of each prompt (rows of the data set); groups of all."""
        self.draws = (self.rollout_batch, self.draws[1] + 1)
        size = self.num_generations
        count = len(prompts) * size // self.accelerator.num_processes
        first = self.accelerator.process_index * count
        places = [prompts[place // size] for place in range(first, first + count)]
        inputs = with_pictures([self.train_dataset[place] for place in places])
        rows = [int(row["row"]) for row in inputs]
        free = [row["prompt"] for row in inputs]
        full = [row.get("prompt_with_policy", []) for row in inputs]
        aware = self.aware_rows(count)
        if self.config.aware_when == "all_failed" and any(self.layout):
            mine = self.draw_where_all_failed(rows, free, full, aware)
        else:
            drawn = self._draw(free, full, aware)
            graded = self.grade(rows, drawn)
            mine = [Rolled(*parts) for parts in zip(aware, drawn, graded, strict=True)]
        everyone = gather_object(mine)
        return [
            Group(row, tuple(everyone[number * size : (number + 1) * size]))
            for number, row in enumerate(prompts)
        ]

    def rollout_record(self) -> dict[str, Any]:
        """For `stage.json`: what dynamic sampling has cost, and why the stage ended early."""
        return {} if self.dynamic is None else {"dynamic_sampling": self.dynamic.state()}

    def restore_choice(self, checkpoint: str) -> bool:
        """Continue with the prompts, counts and share of a checkpoint; True if it ended there."""
        state = read_json(Path(checkpoint) / STATE)
        if not isinstance(state, dict):
            return False
        self.source.restore(state["source"])
        self.share.restore(state["share"])
        if self.dynamic is not None:
            self.dynamic.restore(state["dynamic"])
        return self.dynamic is not None and self.dynamic.stopped is not None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial))
            state = {
                "source": self.source.state(),
                "share": self.share.state(),
                "dynamic": None if self.dynamic is None else self.dynamic.state(),
            }
            write_json(folder / f"checkpoint-{self.state.global_step}" / STATE, state)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            self.restore_choice(checkpoint)


class EndWithoutSignal(TrainerCallback):
    """Ends training after the updates of a batch with which the data ran out of signal."""

    def __init__(self, trainer: ChosenRolloutTrainer) -> None:
        self._trainer = trainer

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Called by the trainer after an update."""
        trainer = self._trainer
        reason = trainer.dynamic.stopped if trainer.dynamic is not None else None
        if reason is not None and state.global_step % trainer.config.updates_per_rollout == 0:
            control.should_training_stop = True
            if state.is_world_process_zero:
                print(
                    f"{trainer.config.kind}: stopped after update {state.global_step} of "
                    f"{state.max_steps}: {reason}"
                )
