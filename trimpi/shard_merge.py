"""An adapter folded into weights on disk, shard by shard: the model is never whole in memory.

The base's tensors are read one by one from its safetensors files, those that carry an adapter get
`W + scale * B A` (LoRA, arXiv 2106.09685, section 4.1), and new shards are written as they fill.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimpi.errors import UserError
from trimpi.runs import read_json, write_json

SHARD_BYTES = 2**30
"""Size of a written shard; about twice as much is in memory at once."""


@dataclass(frozen=True)
class Factors:
    """An adapter of one linear layer: `a` [rank, in], `b` [out, rank], on the CPU."""

    a: Tensor
    b: Tensor
    scale: float


def factors_of(model: Any) -> dict[str, Factors]:
    """The factors of all LoRA layers of a peft model, by the weight's name in the plain model."""
    from peft.tuners.lora import LoraLayer

    def copied(layers: Any) -> Tensor:
        return layers["default"].weight.detach().float().cpu().clone()

    return {
        f"{name}.weight": Factors(
            copied(module.lora_A), copied(module.lora_B), float(module.scaling["default"])
        )
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, LoraLayer)
    }


def stored_names(base: Path, network: Any) -> dict[str, tuple[Path, str]]:
    """Where each weight of the model is stored: its name -> (file, key in it).

    Families store weights under names of their own; transformers renames them when it loads, and
    its own table is asked here. Weights that it computes from several stored ones are left out.

    Args:
        base: model folder.
        network: the model, its weights may be on the meta device.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        rename_source_key,
    )

    conversions = get_model_conversion_mapping(network)
    renamings = [c for c in conversions if isinstance(c, WeightRenaming)]
    converters = [c for c in conversions if isinstance(c, WeightConverter)]
    prefix, known = network.base_model_prefix, network.state_dict()
    found = {}
    for file in weight_files(base):
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118
                name, converted = rename_source_key(key, renamings, converters, prefix, known)
                if name not in known and key in known:
                    name, converted = key, None
                if converted is None:
                    found[name] = (file, key)
    return found


def check_mergeable(base: Path, network: Any, pattern: Any) -> None:
    """Whether all layers that an adapter will go to are stored as they are; reads no weights.

    Args:
        base: model folder.
        network: the model on the meta device.
        pattern: `target_modules` of peft: a regular expression for names, or their ends.

    Raises:
        UserError: a layer is stored in another form than it is used in.
    """
    stored = stored_names(base, network)
    apart = [
        name
        for name, module in network.named_modules()
        if isinstance(module, torch.nn.Linear)
        and _targeted(name, pattern)
        and f"{name}.weight" not in stored
    ]
    if apart:
        raise UserError(
            f"lora.target_modules: {base} stores {apart[0]} ({len(apart)} layers in all) in parts "
            "or fused, so the adapter of a quantized stage cannot be merged into it; leave them "
            "out, or set model.quantization to none"
        )


def weight_files(base: Path) -> list[Path]:
    """The safetensors files of a model folder, in order."""
    index = read_json(base / "model.safetensors.index.json")
    if isinstance(index, dict):
        return [base / name for name in sorted(set(index["weight_map"].values()))]
    return [base / "model.safetensors"]


def merge_shards(
    base: Path,
    network: Any,
    factors: Mapping[str, Factors],
    folder: Path,
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the weights of `base` with an adapter folded in, under the names of `base`.

    Args:
        base: model folder, not quantized.
        network: its model on the meta device.
        factors: the adapter (`factors_of`).
        folder: receives the safetensors files, and their index if there are several.
        dtype: precision of floating point tensors on disk; None keeps each one's own.
        shard_bytes: bound of a file's size; a single larger tensor makes a larger one.

    Raises:
        UserError: a merged weight is not finite, or an adapter's layer is not stored.
    """
    places = stored_names(base, network)
    if missing := sorted(set(factors) - set(places)):
        raise UserError(f"{base}: holds no {missing[0]}, which the adapter changes")
    by_place = {places[name]: value for name, value in factors.items()}
    plan = list(_shards(base, dtype, shard_bytes))
    names = [f"model-{n + 1:05d}-of-{len(plan):05d}.safetensors" for n in range(len(plan))]
    if len(plan) == 1:
        names = ["model.safetensors"]
    placed, total = {}, 0
    for name, places_of_shard in zip(names, plan, strict=True):
        tensors = {}
        for file, key in places_of_shard:
            # Opened for each tensor, so that the file's pages leave memory with it.
            with safe_open(file, "pt") as stored:
                tensors[key] = _merged(stored.get_tensor(key), by_place.get((file, key)), dtype)
            if not bool(torch.isfinite(tensors[key]).all()):
                raise UserError(
                    f"the adapter does not merge ({key} is not finite); lower the learning rate"
                )
            placed[key] = name
            total += tensors[key].numel() * tensors[key].element_size()
        save_file(tensors, folder / name, metadata={"format": "pt"})
    if len(plan) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": placed}
        write_json(folder / "model.safetensors.index.json", index)


def _shards(base: Path, dtype: torch.dtype | None, limit: int) -> Iterator[list[tuple[Path, str]]]:
    """(file, key) of all tensors, cut into shards by their size after conversion."""
    shard: list[tuple[Path, str]] = []
    size = 0
    for file in weight_files(base):
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118
                part = stored.get_slice(key)
                kind = _DTYPES.get(part.get_dtype())
                width = _width(kind, dtype) if kind is not None else 8
                more = width
                for length in part.get_shape():
                    more *= length
                if shard and size + more > limit:
                    yield shard
                    shard, size = [], 0
                shard.append((file, key))
                size += more
    yield shard


_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def _width(kind: torch.dtype, dtype: torch.dtype | None) -> int:
    return (dtype if dtype is not None and kind.is_floating_point else kind).itemsize


def _merged(weight: Tensor, factors: Factors | None, dtype: torch.dtype | None) -> Tensor:
    """`W + scale * B A`, added in float32 and rounded once."""
    kept = weight.dtype if dtype is None or not weight.is_floating_point() else dtype
    if factors is not None:
        weight = weight.float().addmm(factors.b, factors.a, alpha=factors.scale)
    return weight.to(kept, copy=True)


def _targeted(name: str, pattern: Any) -> bool:
    if isinstance(pattern, str):
        return re.fullmatch(pattern, name) is not None
    return any(name == end or name.endswith("." + end) for end in pattern)
