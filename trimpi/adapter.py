"""LoRA adapters: where they go, how they are merged, and proof that the merge is the same model."""

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trimpi.errors import UserError
from trimpi.recipe import LoraConfig

if TYPE_CHECKING:  # it imports bitsandbytes, which models that are only read do not need
    import peft

LOST, WORN = 0.1, 0.9
"""Share of an adapter's effect after merging: below `LOST` it is refused, below `WORN` told."""


def lora_config(model: Any, lora: LoraConfig) -> "peft.LoraConfig":
    """The adapter's settings for this model; its weights may be on the meta device.

    `lm_head` is never taken: TRL's fused output head reads its weight directly, so that an adapter
    there would not be trained.

    Raises:
        UserError: names in `target_modules` are no linear layers of the model, or it has none in
            the part that is asked for.
    """
    import peft

    target: Any = lora.target_modules
    if isinstance(target, str):
        names = linear_names(model, "language") if target != "vision" else []
        names += linear_names(model, "outside") if target != "language" else []
        names = [name for name in names if name.rpartition(".")[2] != "lm_head"]
        if not names:
            raise UserError(
                f"lora.target_modules: {target}: {type(model).__name__} has no linear layers "
                f"there; known here: {_known(model)}"
            )
        target = _pattern(names)
    else:
        target = list(target)
        names = linear_names(model, "language") + linear_names(model, "outside")
        missing = [
            wanted
            for wanted in target
            if not any(name == wanted or name.endswith("." + wanted) for name in names)
        ]
        if missing:
            verb = "is no linear layer" if len(missing) == 1 else "are no linear layers"
            raise UserError(
                f"lora.target_modules: {', '.join(map(repr, missing))} {verb} of this model; "
                f"known here: {_known(model)}"
            )
    return peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target,
        task_type="CAUSAL_LM",
    )


def linear_names(model: Any, part: str) -> list[str]:
    """Full names of the linear layers of the language model, or of all those outside of it.

    Args:
        model: its weights may be on the meta device.
        part: "language" or "outside" (vision tower, projector, output head).

    Raises:
        UserError: the model does not say which part is its language model.
    """
    decoder = model.get_decoder()
    inner = next((name for name, module in model.named_modules() if module is decoder), None)
    if not inner:
        raise UserError(f"{type(model).__name__}: its language model is not found")
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        # Of torch's own attention, which reads the weight and never calls the layer.
        and not isinstance(module, nn.modules.linear.NonDynamicallyQuantizableLinear)
        and name.startswith(inner + ".") == (part == "language")
    ]


def merge_adapter(model: Any) -> Any:
    """Fold the adapter into the base weights and return the plain model.

    Raises:
        UserError: the merged weights are not finite.
    """
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise UserError(f"the adapter does not merge ({error}); lower the learning rate") from None


@torch.no_grad()
def logits_of(model: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """Logits at the real positions of a batch, float32 on the CPU, shape [tokens, vocabulary]."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    inputs = {key: value.to(device) for key, value in batch.items() if key != "labels"}
    logits = model(**inputs, use_cache=False).logits
    model.train(training)
    return logits[inputs["attention_mask"].bool()].float().cpu()


def verify_reload(
    expected: Tensor,
    reload: Callable[[], Any],
    batch: Mapping[str, Tensor],
    base: Tensor | None = None,
    quantized: Tensor | None = None,
) -> dict[str, Any]:
    """Load a saved model again and compare its logits with those of the model that was trained.

    A wrong key prefix shifts logits by about their own spread. Rounding shifts them by less than
    0.001 of it in float32; in 16 bits each layer rounds, so there the mean difference is bounded,
    by 0.05 of the spread. A small adapter moves logits by less than that, and a merge into 16 bits
    may round it away, so with `base` the part of its shift that is still there is measured:
    `kept = <found - base, expected - base> / |expected - base|^2`, 1 for a perfect merge and 0 for
    a lost adapter; rounding noise has no direction and leaves it near 1.

    Args:
        expected: logits of base + adapter (or of the trained model), [tokens, vocabulary].
        reload: loads the saved folder.
        batch: the batch that `expected` was computed on.
        base: logits of the base without the adapter, [tokens, vocabulary].
        quantized: logits of quantized base + adapter, which was trained, [tokens, vocabulary].

    Returns:
        `{"max_abs", "mean_abs", "spread", "dtype", "limit"}`, with `base` also `"learned"` (mean
        shift by the adapter) and `"kept"`. With `quantized` also `"against_quantized"`: `max_abs`
        and `mean_abs` of the difference that the rounding of the base makes, and `same_token`, the
        share of positions with the same likeliest token; it is told, not bounded.

    Raises:
        UserError: the difference is beyond the limit, or the adapter's shift is gone.
    """
    model = reload()
    found = logits_of(model, batch)
    difference, spread = (found - expected).abs(), max(float(expected.std()), 1e-6)
    worst, mean = float(difference.max()), float(difference.mean())
    full = model.dtype == torch.float32
    limit = (0.001 if full else 0.05) * spread
    # `not <=` so that NaN fails as well.
    if not (worst if full else mean) <= limit:
        raise UserError(
            f"the saved model is not the trained one: reloaded logits differ by {worst:.3g} at "
            f"most and {mean:.3g} on average, allowed is {limit:.3g}; the checkpoints are kept"
        )
    dtype = str(model.dtype).removeprefix("torch.")
    result: dict[str, Any] = {"max_abs": worst, "mean_abs": mean, "spread": spread}
    result |= {"dtype": dtype, "limit": limit}
    if quantized is not None:
        apart = (found - quantized).abs()
        same = (found.argmax(-1) == quantized.argmax(-1)).float().mean()
        result["against_quantized"] = {
            "max_abs": float(apart.max()),
            "mean_abs": float(apart.mean()),
            "same_token": round(float(same), 4),
        }
    if base is None or not (moved := expected - base).any():
        return result
    kept = float(((found - base) * moved).sum() / moved.square().sum())
    if not kept >= LOST:
        raise UserError(
            f"the saved model holds {kept:.0%} of what its adapter learned: {dtype} rounds the "
            "rest away; set model.dtype to float32, or train longer or at a higher lr; the "
            "checkpoints are kept"
        )
    return {**result, "learned": float(moved.abs().mean()), "kept": kept}


def _pattern(names: list[str]) -> str:
    """A regular expression for these names; those of a stack of layers once.

    A last part that is a number stays: the neighbours of a layer in a sequence are of other kinds.
    """
    general = set()
    for name in names:
        *inner, last = name.split(".")
        parts = [r"\d+" if part.isdigit() else re.escape(part) for part in inner]
        general.add(r"\.".join([*parts, re.escape(last)]))
    return "|".join(sorted(general))


def _known(model: Any) -> str:
    """Last parts of the names of all layers that an adapter can go to, by part of the model."""
    parts = []
    for part, title in (("language", "language model"), ("outside", "vision tower and projector")):
        names = {name.rsplit(".", 1)[-1] for name in linear_names(model, part)} - {"lm_head"}
        if names:
            parts.append(f"{', '.join(sorted(names))} ({title})")
    return "; ".join(parts) + "; or one of the words language, vision, all"
