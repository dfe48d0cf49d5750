"""Weights between two models: theta = (1 - w) base + w model, file by file, without loading either.

WiSE-FT (arXiv 2109.01903): on the line between a model and its fine-tuned self, what was forgotten
often comes back before what was learned goes. A pure function of two folders: each tensor is
averaged in float32 and stored in the precision that the model has it in.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from trimpi.errors import UserError
from trimpi.model_folder import LINEAGE, check_model_folder, read_lineage
from trimpi.runs import model_digest, read_json, write_json

SHOWN = 20
"""Tensors that do not match and are named one by one."""
WEIGHTS = {".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"}
"""Ends of names of files with weights."""
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Moved:
    """What an interpolation did.

    Attributes:
        tensors: number of tensors written.
        changed: those in which model and base differ.
        distance: ||model - base|| / ||base|| over all tensors, Frobenius.
    """

    tensors: int
    changed: int
    distance: float


def interpolate(base: Path, model: Path, weight: float, output: Path) -> Moved:
    """Write the model folder between `base` and `model`; all but weights is as in `model`.

    Tensors that only one folder stores are allowed where they repeat another one of it, as a tied
    output head does in some checkpoints. The folder is written under a temporary name and renamed.

    Args:
        base: model folder that `weight` 0 gives back.
        model: model folder that `weight` 1 gives back.
        weight: share of `model`, 0 to 1.
        output: the folder to write; an older one there is replaced.

    Raises:
        UserError: a folder is not whole, or the two are not of one architecture; all names and
            shapes that differ at once.
    """
    if not 0 <= weight <= 1:
        raise UserError(f"weight {weight:g}: must be from 0 (the base) to 1 (the model)")
    for folder in (base, model):
        check_model_folder(folder)
    start, end = Weights(base), Weights(model)
    partner = match_tensors(start, end)
    temporary = output.with_name(f".{output.name}.part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        moved = _fill(temporary, start, end, partner, weight)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)
    check_model_folder(output)
    return moved


def _fill(
    folder: Path, base: "Weights", model: "Weights", partner: Mapping[str, str], weight: float
) -> Moved:
    """All files of the folder between the two."""
    for other in sorted(model.folder.iterdir()):
        # Weights in another format, or beside the index, would be those of the model itself.
        ours = other.suffix in WEIGHTS or other.name in (LINEAGE, "README.md")
        if other.is_file() and not ours:
            shutil.copyfile(other, folder / other.name)
    changed, apart, length = 0, 0.0, 0.0
    hidden = not sys.stderr.isatty()
    for file in track(model.files, f"interpolate {weight:g}", transient=True, disable=hidden):
        averaged = {}
        for name in model.names(file):
            a, b = base.read(partner[name]), model.read(name)
            averaged[name] = between(a, b, weight, name)
            if b.is_floating_point():
                difference = b.float() - a.float()
                changed += bool(difference.any())
                apart += float(difference.double().square().sum())
                length += float(a.double().square().sum())
        save_file(averaged, folder / file, metadata=model.metadata(file))
    lineage = read_lineage(model.folder)
    lineage["steps"].append(
        {
            "stage": "interpolate",
            "input": model_digest(model.folder),
            "base": model_digest(base.folder),
            "config": {"weight": weight},
        }
    )
    write_json(folder / LINEAGE, lineage)
    return Moved(len(partner), changed, (apart / length) ** 0.5 if length else 0.0)


def between(base: Tensor, model: Tensor, weight: float, name: str = "tensor") -> Tensor:
    """(1 - weight) * base + weight * model in float32, in the precision of `model`.

    Raises:
        UserError: whole numbers that differ, such as quantized weights.
    """
    if not (base.is_floating_point() and model.is_floating_point()):
        if base.dtype != model.dtype or not torch.equal(base, model):
            kind = str(model.dtype).removeprefix("torch.")
            raise UserError(
                f"{name}: holds {kind} values that differ, which have no mean; give both models in "
                "full precision"
            )
        return model
    if torch.equal(base, model):  # of one precision or two: no rounding where nothing moved
        return model
    return ((1 - weight) * base.float() + weight * model.float()).to(model.dtype)


class Weights:
    """The tensors of a model folder by name, read one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        index = read_json(folder / INDEX)
        listed: Mapping[str, str] = index["weight_map"] if isinstance(index, dict) else {}
        self.files: list[str] = sorted(set(listed.values())) or [SINGLE]
        self._file_of = dict(self._located())

    def _located(self) -> Iterator[tuple[str, str]]:
        for file in self.files:
            yield from ((name, file) for name in self.names(file))

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def names(self, file: str) -> list[str]:
        """Names of the tensors of a file, in its order."""
        with safe_open(self.folder / file, "pt") as tensors:
            return list(tensors.keys())

    def metadata(self, file: str) -> dict[str, str] | None:
        """What the file says of itself; transformers wants its format."""
        with safe_open(self.folder / file, "pt") as tensors:
            found: dict[str, str] | None = tensors.metadata()
            return found

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, from the file's header."""
        with safe_open(self.folder / self._file_of[name], "pt") as tensors:
            return tuple(tensors.get_slice(name).get_shape())

    def read(self, name: str) -> Tensor:
        """A tensor, as stored."""
        with safe_open(self.folder / self._file_of[name], "pt") as tensors:
            found: Tensor = tensors.get_tensor(name)
            return found


def match_tensors(base: Weights, model: Weights) -> dict[str, str]:
    """Name in `model` -> name of its counterpart in `base`.

    Raises:
        UserError: another kind of model, or names and shapes that differ.
    """
    kinds = [_kind(weights.folder) for weights in (base, model)]
    if kinds[0] != kinds[1]:
        raise UserError(
            f"{model.folder}: is a {kinds[1]}, the base {base.folder} a {kinds[0]}; weights have a "
            "mean only within one architecture"
        )
    partner, problems = {}, []
    for name in model:
        other = name if name in base else _twin(name, model, base)
        if other is None:
            problems.append(f"{name}: in {model.folder}, not in {base.folder}")
            continue
        partner[name] = other
        if (ours := model.shape(name)) != (theirs := base.shape(other)):
            problems.append(f"{name}: {list(ours)} in {model.folder}, {list(theirs)} in the base")
    for name in base:
        if name not in model and _twin(name, base, model) is None:
            problems.append(f"{name}: in {base.folder}, not in {model.folder}")
    if problems:
        more = [f"... and {len(problems) - SHOWN} more tensors"] if len(problems) > SHOWN else []
        last = "take a model that was trained from this base"
        raise UserError.join([*problems[:SHOWN], *more, last])
    return partner


def _twin(name: str, here: Weights, there: Weights) -> str | None:
    """A tensor of both folders that `name`, which `there` does not store, repeats."""
    shape = here.shape(name)
    alike = [n for n in here if n != name and n in there and here.shape(n) == shape]
    value = here.read(name) if alike else None
    return next((n for n in alike if value is not None and torch.equal(here.read(n), value)), None)


def _kind(folder: Path) -> str:
    config: Any = read_json(folder / "config.json")
    kinds: Sequence[str] = config.get("architectures") or [str(config.get("model_type"))]
    return kinds[0]
