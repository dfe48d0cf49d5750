"""TRL's GRPO trainer with a data order that survives a resume, and a log of what it learns from.

Nothing here changes a number of TRL's: the overrides order the rows, look on, or leave out work
that changes nothing (`scoring_passes`).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from trimpi.stages.checkpoints import ExactResume
from trimpi.stages.failures import check_loss
from trimpi.stages.rewards import RolloutReward
from trimpi.stages.rollout_metrics import RolloutTable, WeightedMean, as_table
from trimpi.stages.sampling import EpochSampler, dealt, in_order
from trimpi.stages.scoring_passes import ScoringPasses

SHUFFLE = "shuffle_sequence_dict"
"""TRL's function that orders the rows of a rollout batch, by its name in the trainer's module."""
if not hasattr(grpo_trainer, SHUFFLE):
    raise ImportError(f"trl's grpo_trainer.{SHUFFLE} has changed; install trl>=1.16,<1.17")


class ObservedGRPOTrainer(ExactResume, ScoringPasses, GRPOTrainer):
    """GRPO that logs the two halves of its groups; the one reward function is a `RolloutReward`."""

    model: Any
    processing_class: Any
    num_generations: Any
    train_dataset: Any
    reward_funcs: Any
    _metrics: Any
    _logs: Any
    _buffered_inputs: Any
    table: RolloutTable
    """The last rollout batch, rows of all processes."""
    deals_by_place = True
    """Whether the rows of a batch are dealt to its updates by their place, not by TRL's shuffle."""
    names: Sequence[str] = ()
    """What the rows of the split are called, by `place` of a batch's rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._logps = {True: WeightedMean(), False: WeightedMean()}

    def forget_log(self) -> None:
        """Drop what was logged before the first step."""
        for log in (*self._metrics.values(), *self._logs.values()):
            log.clear()

    def log_rollout(self, output: dict[str, Any], aware: Sequence[bool]) -> None:
        """Log a rollout batch and mark its rows, so that updates can be told apart.

        Args:
            output: what `_generate_and_score_completions` returned; receives `is_aware` [B], a
                tensor, so that TRL's shuffling and splitting of rows carries it along.
            aware: which of this process' rows were generated with the policy in context.
        """
        reward = self.reward_funcs[0]
        assert isinstance(reward, RolloutReward)
        output["is_aware"] = torch.tensor(aware, device=output["completion_ids"].device)
        table = as_table(reward.last).to(output["is_aware"].device)
        rows = self.accelerator.gather(torch.cat([output["is_aware"].unsqueeze(1), table], dim=1))
        self.table = RolloutTable(rows[:, 0].bool(), rows[:, 1:], self.num_generations)
        for name, value in self.table.summary().items():
            self._metrics["train"][name].append(value)

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        with self._rows_dealt() if self.deals_by_place else nullcontext():
            return dict(super()._prepare_inputs(generation_batch))

    @contextmanager
    def _rows_dealt(self) -> Iterator[None]:
        """TRL's shuffle of a rollout batch, its order a function of seed, batch and place."""
        args: Any = self.args
        updates = args.steps_per_generation // args.gradient_accumulation_steps
        number = self.state.global_step // max(updates, 1)

        def order(batch: Mapping[str, Any]) -> dict[str, Any]:
            rows = len(batch["completion_ids"])
            first = self.accelerator.process_index * rows
            return in_order(batch, dealt(rows, first, updates, args.seed, number))

        before = getattr(grpo_trainer, SHUFFLE)
        setattr(grpo_trainer, SHUFFLE, order)
        try:
            yield
        finally:
            setattr(grpo_trainer, SHUFFLE, before)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        scored = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._scored = scored[0].detach()
        return scored

    stage = "rl"
    """What the stage is called in messages."""

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        loss = super()._compute_loss(model, inputs)
        self._check(loss, inputs)
        if self.model.training:
            self._observe(inputs, inputs.get("old_per_token_logps", self._scored))
        return loss

    def _check(self, loss: Tensor, inputs: dict[str, Any]) -> None:
        """Refuse a loss that is not finite; names the rows of the micro batch."""

        def rows() -> list[str]:
            places = inputs["place"].tolist() if "place" in inputs and self.names else []
            return [self.names[place] for place in dict.fromkeys(places)]

        folder = Path(str(self.args.output_dir))
        check_loss(loss, self.stage, self.state.global_step + 1, rows, folder)

    def _observe(self, inputs: dict[str, Any], logps: Tensor) -> None:
        """Log the mean log-probability per token, without the policy, of both halves.

        Args:
            inputs: a micro batch.
            logps: under the weights that generated the batch, [B, T].
        """
        for aware, name in ((True, "aware"), (False, "free")):
            half = (inputs["is_aware"] == aware).unsqueeze(1)
            self._logps[aware].add(logps, inputs["completion_mask"] * half)
            if self.accelerator.sync_gradients:
                mean = self._logps[aware].take(self.accelerator)
                if mean is not None:
                    self._metrics["train"][f"rollout/{name}/logp_without_policy"].append(mean)

    def _get_train_sampler(self, dataset: Any = None) -> EpochSampler:
        sampler: Any = super()._get_train_sampler(dataset)
        return EpochSampler(
            data_source=sampler.data_source,
            mini_repeat_count=sampler.mini_repeat_count,
            batch_size=sampler.batch_size,
            repeat_count=sampler.repeat_count,
            shuffle=sampler.shuffle,
            seed=sampler.seed,
        )

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints are not for publication: no card."""
