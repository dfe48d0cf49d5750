"""`trimpi model interpolate`: models between two, of any origin."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from trimpi.errors import UserError
from trimpi.interpolate import interpolate
from trimpi.model_source import PACKAGE, locate
from trimpi.recipe import ModelConfig


def write_between(base: str, model: str, weights: Sequence[float], output: Path) -> Iterator[str]:
    """Write a model folder for each weight and say a line of each.

    Args:
        base: folder, hub id or `package://...`.
        model: the same, of a model trained from `base`.
        weights: shares of `model`.
        output: the model folder, or of several weights the folder that gets `w0.5` and so on.

    Raises:
        UserError: no such model, folders that are there already, or models that do not match.
    """
    named = {f"w{weight:g}" if len(weights) > 1 else "": weight for weight in weights}
    if len(named) < len(weights):
        raise UserError("--weight: one is given twice; give each once")
    folders = {output / name if name else output: weight for name, weight in named.items()}
    if there := [folder for folder in folders if folder.exists()]:
        raise UserError.join([f"{folder}: is there already; choose --output" for folder in there])
    start, end = (_folder(path, name) for path, name in ((base, "BASE"), (model, "MODEL")))
    for folder, weight in folders.items():
        moved = interpolate(start, end, weight, folder)
        yield (
            f"{folder}: {weight:.0%} of {model}, which differs from the base in {moved.changed} of "
            f"{moved.tensors} tensors, by {moved.distance:.2%} of its length"
        )


def _folder(path: str, name: str) -> Path:
    """The model's folder; a hub model is downloaded."""
    local = Path(path).expanduser()
    if not path.startswith(PACKAGE) and (local.is_dir() or path.startswith((".", "/", "~"))):
        path = str(local.absolute())
    return locate(ModelConfig(path=path), name)
