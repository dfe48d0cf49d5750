"""Forward passes of RL without work that changes nothing: copies of pictures, and padding.

A mix-in of TRL's GRPO trainer. Losses, gradients and log-probabilities are those of TRL up to
rounding; what a pass is made of differs:

- pictures are computed once (`trimpi.picture_features`), in generation and scoring of a rollout
  batch once together, since no weight changes in between;
- `_get_per_token_logps_and_entropies` cuts padding, and sorts rows by length where it makes
  several passes;
- `_prepare_inputs` deals the rows of an update to its micro batches by prompt and length, where
  the sum over micro batches is the same however rows are dealt.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from trl.trainer.utils import (
    split_pixel_values_by_grid,
    unsplit_pixel_values_by_grid,
)

from trimpi.picture_features import PictureFeatures, draws, share_pictures
from trimpi.recipe_rl import Scoring

ADDITIVE = {"grpo", "dr_grpo", "dapo", "cispo", "sapo", "vespo", "luspo"}
"""Losses whose sum over micro batches of one size does not depend on which row is in which.
TRL's `bnpo` divides by the tokens of a micro batch."""
TOKENWISE = ("token_type_ids", "mm_token_type_ids")


class ScoringPasses:
    """Mix-in before TRL's GRPOTrainer; `scoring` says what is done, `share_pictures` begins it."""

    scoring = Scoring()
    features: Sequence[PictureFeatures] = ()
    _buffered_inputs: Any

    def share_pictures(self: Any) -> None:
        """Compute each picture once, in the model and in the reference model.

        To be called before training and after all that freezes weights or adds adapters.
        """
        if not self.scoring.share_pictures:
            return
        # Processes that hold parts of the weights must call the tower alike.
        whole = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
        limit = self.scoring.cache_mib << 20 if whole else 0
        found = [share_pictures(self.accelerator.unwrap_model(self.model), limit)]
        if self.ref_model is not None:
            reference = self.accelerator.unwrap_model(self.ref_model)
            found.append(share_pictures(reference, limit, frozen=True))
        self.features = [features for features in found if features is not None]

    def release_pictures(self) -> None:
        """Leave the models as they were."""
        for features in self.features:
            features.release()
        self.features = ()

    @contextmanager
    def weights_held(self) -> Iterator[None]:
        """A block in which no weight changes."""
        with ExitStack() as stack:
            for features in self.features:
                stack.enter_context(features.kept())
            yield

    def picture_record(self) -> dict[str, Any]:
        """For `stage.json`: how many pictures rows have shown, and how many were computed."""
        if not self.features:
            return {}
        named = zip(("model", "reference"), self.features, strict=False)
        return {
            "pictures": {
                name: {
                    "shown": features.asked,
                    "computed": features.computed,
                    "frozen": features.static,
                    **({"plain_way": features.unknown} if features.unknown else {}),
                }
                for name, features in named
            }
        }

    def _prepare_inputs(self: Any, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        with self.weights_held():
            inputs = super()._prepare_inputs(generation_batch)  # type: ignore[misc]
        if not self.model.training or self._buffered_inputs is before or not self._deals():
            return inputs
        self._buffered_inputs = deal(
            self._buffered_inputs,
            self.args.gradient_accumulation_steps,
            by_prompt=not (self.features and self.features[0].static),
        )
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _deals(self: Any) -> bool:
        """Whether losses and gradients of an update are the same however its rows are dealt."""
        micro, window = self.args.steps_per_generation, self.args.gradient_accumulation_steps
        return bool(
            self.scoring.deal_rows
            and window > 1
            and micro % window == 0
            and self.loss_type in ADDITIVE
            and self.top_entropy_quantile == 1.0
            and not self._entropy_bonus_enabled
            and not self.aux_loss_enabled
            and not any(draws(module) for module in self.model.modules())
        )

    def _get_per_token_logps_and_entropies(
        self: Any,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        compute_aux_loss: bool = False,
        **inputs: Any,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        plain = super()._get_per_token_logps_and_entropies  # type: ignore[misc]
        more: dict[str, Any] = {"compute_entropy": compute_entropy}
        more["compute_aux_loss"] = compute_aux_loss
        if not self.scoring.trim_padding or self.pad_to_multiple_of is not None:
            found: tuple[Tensor, Tensor | None, Tensor | None]
            found = plain(
                model, input_ids, attention_mask, logits_to_keep, batch_size, **more, **inputs
            )
            return found
        count = len(input_ids)
        size = batch_size or count
        whole = size >= count
        order = list(range(count)) if whole else by_length(attention_mask, logits_to_keep)
        given = {name: value for name, value in inputs.items() if value is not None}
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, **given}
        rows = batch if whole else in_rows(batch)
        logps, entropies, losses = [], list[Tensor](), []
        for start in range(0, count, size):
            chunk = batch if whole else pick(rows, order[start : start + size])
            kept, cut = trim(with_pictures_alone(chunk), logits_to_keep)
            ids, mask = kept.pop("input_ids"), kept.pop("attention_mask")
            one, entropy, loss = plain(model, ids, mask, logits_to_keep - cut, None, **more, **kept)
            logps.append(pad(one, (0, cut)))
            if entropy is not None:
                entropies.append(pad(entropy, (0, cut)))
            losses.append(loss)
        back = torch.tensor(order, device=input_ids.device).argsort()
        return (
            torch.cat(logps)[back],
            torch.cat(entropies)[back] if compute_entropy else None,
            torch.stack(losses).mean() if compute_aux_loss else None,
        )


def by_length(attention_mask: Tensor, completion: int) -> list[int]:
    """Rows in order of the length of their completions, those of equal length of their prompts.

    Args:
        attention_mask: [B, T].
        completion: columns of the completions, the last ones.
    """
    prompts = attention_mask[:, :-completion].sum(1).tolist()
    completions = attention_mask[:, -completion:].sum(1).tolist()
    return sorted(range(len(prompts)), key=lambda row: (completions[row], prompts[row]))


def in_rows(batch: dict[str, Any]) -> dict[str, Any]:
    """A scored batch with everything that is there by row, pixels too (TRL's own splitting)."""
    given = {name: value for name, value in batch.items() if value is not None}
    rows: dict[str, Any] = split_pixel_values_by_grid(given)
    return rows


def pick(rows: dict[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The batch of some rows."""
    index = torch.tensor(places)
    found = {
        name: [values[place] for place in places] if isinstance(values, list)
        else values[index.to(values.device)] if values.ndim else values
        for name, values in rows.items()
    }  # fmt: skip
    joined: dict[str, Any] = unsplit_pixel_values_by_grid(found)
    return joined


def with_pictures_alone(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without picture inputs where these are an empty list, which no tower takes."""
    pixels = batch.get("pixel_values")
    if pixels is None or len(pixels):
        return batch
    return {name: value for name, value in batch.items() if name not in _PIXELS}


_PIXELS = {
    *("pixel_values", "image_grid_thw", "image_position_ids", "pixel_attention_mask"),
    *("spatial_shapes", "image_sizes", "num_images", "num_tiles"),
}


def trim(batch: dict[str, Any], completion: int) -> tuple[dict[str, Any], int]:
    """Cut the columns at both ends that are padding in all rows.

    Args:
        batch: of one pass; prompts are padded on the left, completions on the right.
        completion: columns of the completions, the last ones; one at least is kept.

    Returns:
        The batch, and how many columns of completions are gone.
    """
    columns = batch["attention_mask"].any(0)
    places = columns.nonzero().flatten().tolist() or [0]
    width = len(columns)
    first = min(places[0], width - completion - 1)
    last = max(places[-1], width - completion)
    cut = {
        name: value[:, first : last + 1]
        if name in ("input_ids", "attention_mask", *TOKENWISE)
        else value
        for name, value in batch.items()
    }
    return cut, width - last - 1


def deal(batches: Sequence[dict[str, Any]], window: int, by_prompt: bool) -> list[dict[str, Any]]:
    """Micro batches of the same updates, rows of like length together within an update.

    Args:
        batches: micro batches in order, all of one size.
        window: micro batches of an update.
        by_prompt: rows of a prompt (`place`) stay together; for a tower that is trained, which
            takes a picture once a micro batch.
    """
    dealt = []
    for start in range(0, len(batches), window):
        rows = [in_rows(batch) for batch in batches[start : start + window]]
        whole: dict[str, Any] = {
            name: values if isinstance(values, Tensor) and not values.ndim
            else torch.cat([row[name] for row in rows]) if isinstance(values, Tensor)
            else [value for row in rows for value in row[name]]
            for name, values in rows[0].items()
        }  # fmt: skip
        lengths = whole["completion_mask"].sum(1).tolist()
        order = sorted(range(len(lengths)), key=lambda row: lengths[row])
        if by_prompt and "place" in whole:
            places = whole["place"].tolist()
            longest: dict[int, int] = {}
            for row in order:
                longest[places[row]] = lengths[row]
            order.sort(key=lambda row: (longest[places[row]], places[row]))
        size = len(order) // window
        dealt += [pick(whole, order[place * size : (place + 1) * size]) for place in range(window)]
    return dealt
