"""What is learned from a rollout batch: other advantages, rows left out, weights of tokens.

TRL's loss takes advantages by token, [B, T], and a mask of tokens beside the completion's own
(`tool_mask`); all options here are one of the two, and ratios, clipping and normalisation stay
TRL's. Rows that are left out count neither in the tokens of a token-normalised loss (dapo, bnpo)
nor out of the rows of a row-normalised one (grpo, dr_grpo), as TRL has it for truncated ones.
"""

from typing import Any

import torch
from torch import Tensor

from trimpi.recipe_rl import Teacher
from trimpi.stages.advantages import (
    beta_parameters,
    mean_of_parts,
    most_varied,
    teacher_advantages,
    token_weights,
)
from trimpi.stages.chosen_rollouts import ChosenRolloutTrainer
from trimpi.stages.rollout_metrics import QUANTITIES, WeightedMean
from trimpi.stages.throughput import Throughput
from trimpi.stages.two_views import policy_bearing_logps, policy_free_logps


class ShapedRolloutTrainer(Throughput, ChosenRolloutTrainer):
    """The trainer of the RL stage, with all of its options."""

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if not self.model.training or self.as_given:
            return output
        config, advantages = self.config, output["advantages"]
        if config.advantage == "beta_norm":
            advantages = self._mine(self._beta_norm()).to(advantages)
        kept = torch.ones_like(output["is_aware"])
        if config.downsample is not None:
            kept &= self._mine(self._most_varied(advantages))
        if config.aware_positives_only:
            negative = output["is_aware"] & (advantages < 0)
            self._log("rollout/aware/left_out", negative.float(), output["is_aware"].float())
            kept &= ~negative
        output["advantages"] = advantages
        if config.downsample is not None or config.aware_positives_only:
            self._leave_out(output, kept)
        self._weigh_tokens(output)
        return output

    def _mine(self, rows: Tensor) -> Tensor:
        """This process' part of what belongs to the rows of all."""
        count = len(rows) // self.accelerator.num_processes
        first = self.accelerator.process_index * count
        return rows[first : first + count]

    def _beta_norm(self) -> Tensor:
        """Advantages of all rows, by part of the reward."""
        config, values = self.config, self.table.values
        column = dict(zip(QUANTITIES, values.unbind(1), strict=True))
        parts = [(config.accuracy_weight, column["accuracy"])]
        if config.format_weight:
            parts.append((config.format_weight, column["format"]))
        if config.overlong is not None:
            parts.append((config.overlong.weight, column["overlong"] + 1))
        unknown = column["reward"].isnan()
        shape = (-1, self.num_generations)
        groups = [(w, part.masked_fill(unknown, torch.nan).view(shape)) for w, part in parts]
        rates = groups[0][1].nanmean(1)
        found = beta_parameters(rates[~rates.isnan()])
        for name, value in zip(("alpha", "beta"), found or (), strict=False):
            self._metrics["train"][f"rollout/beta_norm/{name}"].append(value)
        return mean_of_parts(groups).flatten()

    def _most_varied(self, advantages: Tensor) -> Tensor:
        """Which rows of all processes D3S learns from."""
        assert self.config.downsample is not None
        keep, least = self.config.downsample.keep, self.config.downsample.min_free
        free = ~self.table.aware.cpu()
        everyone = self.accelerator.gather(advantages).cpu()
        chosen = most_varied(everyone, keep, free, least)
        log = self._metrics["train"]
        log["rollout/downsample/free_share"].append(float(free[chosen].float().mean()))
        variance = everyone[chosen].var(unbiased=False)
        log["rollout/downsample/variance"].append(float(variance))
        return chosen.to(advantages.device)

    def _leave_out(self, output: dict[str, Any], kept: Tensor) -> None:
        mask = output["completion_mask"]
        output["tool_mask"] = kept.unsqueeze(1).to(mask).expand_as(mask).clone()
        tokens = (mask * output["tool_mask"]).sum()
        output["num_items_in_batch"] = self.accelerator.gather(tokens).sum()

    def _weigh_tokens(self, output: dict[str, Any]) -> None:
        """Importance weights of aware rows, the teacher on free ones; logs what both need."""
        config, batch = self.config, self.rollout_batch
        weighs, teacher = config.aware_weighting == "importance", self._followed()
        measures = config.reliance_every > 0 and batch % config.reliance_every == 0
        aware, mask = output["is_aware"], output["completion_mask"]
        asked = torch.zeros_like(aware)
        if weighs or measures:
            asked |= aware
        if teacher is not None:
            asked |= ~aware
        rows = asked.nonzero().flatten().tolist()
        count = torch.tensor([len(rows)], device=mask.device)
        most = int(self.accelerator.gather(count).max())
        if not most:
            return
        size = self.args.per_device_train_batch_size
        # A process without such a row makes the passes of the others on its first.
        shown = rows or [0]
        prompts = [self.last_rows[row]["prompt_with_policy"] for row in shown]
        found = policy_bearing_logps(
            self, prompts, output["completion_ids"][shown], mask[shown], -(-most // size)
        )
        free = policy_free_logps(self, output).float()
        full = free.clone()
        full[rows] = found[: len(rows)]
        half = aware.unsqueeze(1) * mask
        advantages = output["advantages"]
        if weighs or teacher is not None:
            advantages = advantages.unsqueeze(1).expand_as(free).clone()
        if weighs or measures:
            self._log("rollout/aware/reliance", full - free, half)
        if weighs:
            shaping = config.importance.gamma if config.importance.shaping == "luffy" else None
            weights = token_weights(free, full, config.importance.cap, shaping)
            advantages = torch.where(aware.unsqueeze(1), advantages * weights, advantages)
            self._log("rollout/importance/weight", weights, half)
            capped = (free - full).exp() >= config.importance.cap
            self._log("rollout/importance/capped", capped.float(), half)
        if teacher is not None:
            other = (~aware).unsqueeze(1) * mask
            pull = teacher_advantages(free, full, teacher.weight, teacher.kl_clip)
            advantages = advantages + pull * other
            self._log("rollout/teacher/kl", free - full, other)
            clipped = (free - full).abs() > teacher.kl_clip
            self._log("rollout/teacher/clipped", clipped.float(), other)
        output["advantages"] = advantages

    def _followed(self) -> Teacher | None:
        """The teacher with its weight in this batch; None where there is none to follow."""
        teacher = self.config.teacher
        if teacher is None or not teacher.while_ahead:
            return teacher
        weight = teacher.weight * self.share.trust()
        self._metrics["train"]["rollout/teacher/weight"].append(weight)
        return teacher.model_copy(update={"weight": weight}) if weight else None

    def _log(self, name: str, values: Tensor, mask: Tensor) -> None:
        mean = WeightedMean()
        mean.add(values, mask)
        if (value := mean.take(self.accelerator)) is not None:
            self._metrics["train"][name].append(value)
