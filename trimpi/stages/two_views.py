"""Log-probabilities of completions given the policy-free and the policy-bearing prompt."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from trl.models.utils import disable_gradient_checkpointing

from trimpi.batch import Encoded, collate, encode_text
from trimpi.prompt import Message

SCORED = (
    *("pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "spatial_shapes"),
    *("num_tiles", "image_sizes", "token_type_ids", "mm_token_type_ids", "image_position_ids"),
)
"""What of a scored batch goes into a forward pass beside ids and mask."""


def policy_free_logps(trainer: Any, output: dict[str, Any]) -> Tensor:
    """As the loss computes them, under the weights as they are. [B, T], no gradient."""
    if "old_per_token_logps" in output:
        logps: Tensor = output["old_per_token_logps"]
        return logps
    with (
        torch.no_grad(),
        disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs),
    ):
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].size(1),
            batch_size=trainer.args.per_device_train_batch_size,
            **{name: output[name] for name in SCORED if name in output},
        )
    return logps


def policy_bearing_logps(
    trainer: Any, prompts: Sequence[list[Message]], completions: Tensor, mask: Tensor, passes: int
) -> Tensor:
    """The same given the prompts with the policy before the request. [B, T], no gradient.

    Args:
        trainer: of the model.
        prompts: one a row, pictures by path.
        completions: ids [B, T], padded on the right.
        mask: [B, T].
        passes: forward passes to make, the same on every process since they may hold collective
            operations; those beyond the rows repeat the last.
    """
    found = completions.new_zeros(completions.shape, dtype=torch.float32)
    size = trainer.args.per_device_train_batch_size
    encoded = [encode_text(trainer.processing_class, messages) for messages in prompts]
    order = list(range(len(prompts)))
    if trainer.scoring.trim_padding:
        written = mask.sum(1).tolist()
        order.sort(key=lambda row: len(encoded[row].input_ids) + written[row])
    with trainer.weights_held():
        for number in range(passes):
            start = min(number * size, max(len(prompts) - size, 0))
            rows = order[start : start + size]
            scored = _scored(trainer, [encoded[r] for r in rows], completions[rows], mask[rows])
            found[rows] = scored.float()
    return found


def _scored(trainer: Any, encoded: Sequence[Encoded], completions: Tensor, mask: Tensor) -> Tensor:
    batch = collate(trainer.processing_class, encoded, side="left")
    del batch["labels"]
    batch = {name: value.to(completions.device) for name, value in batch.items()}
    ids, attended = batch.pop("input_ids"), batch.pop("attention_mask")
    for name in ("token_type_ids", "mm_token_type_ids"):
        if name in batch:
            batch[name] = torch.cat([batch[name], torch.zeros_like(completions)], dim=1)
    images = [len(row.pictures) for row in encoded]
    more: dict[str, Any] = dict(batch)
    if any(images):
        more["num_images"] = images
        if _by_tiles(batch, images):
            # The rows are one chunk, so all tiles may stand at its first row.
            more["num_tiles"] = [len(batch["pixel_values"])] + [0] * (len(images) - 1)
    with (
        torch.no_grad(),
        disable_gradient_checkpointing(trainer.model, trainer.args.gradient_checkpointing_kwargs),
    ):
        logps, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([ids, completions], dim=1),
            torch.cat([attended, mask.to(attended.dtype)], dim=1),
            completions.size(1),
            **more,
        )
    return logps


def _by_tiles(batch: dict[str, Tensor], images: list[int]) -> bool:
    """Whether pictures are cut into tiles that TRL counts apart (InternVL, LFM2-VL)."""
    if "image_grid_thw" in batch or "image_position_ids" in batch:
        return False
    pixels = batch["pixel_values"]
    tiled = pixels.ndim == 4 and pixels.size(0) != sum(images)
    return "spatial_shapes" in batch or tiled
