"""A trained model as a folder for vLLM, transformers or the hub, with a card."""

import json
import shutil
from pathlib import Path
from typing import Any

from trimpi.ask import trained_models
from trimpi.errors import UserError, did_you_mean
from trimpi.export.folder import staged
from trimpi.export.model_card import model_card
from trimpi.model_folder import check_model_folder
from trimpi.runs import read_json

DTYPES = ("float32", "bfloat16", "float16")


def export_model(
    run: Path, out: Path, *, arm: str, seed: int | None = None, dtype: str | None = None
) -> Path:
    """Write the model at the end of an arm as a folder of its own.

    Args:
        run: a run folder.
        out: a folder that does not exist yet, or is empty.
        arm: a trained arm.
        seed: of several; None takes the first.
        dtype: precision of the weights on disk; None keeps it.

    Raises:
        UserError: no such run, arm, seed or precision, a model that is not whole, or `out` is
            there.
    """
    if not (run / "run.json").is_file():
        raise UserError(f"{run}: no run.json, so not a run folder; give the --output of a run")
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"--dtype {dtype}: must be one of {', '.join(DTYPES)}")
    found = trained_models(run)
    arms = list(dict.fromkeys(name for name, _ in found))
    if arm not in arms:
        raise UserError(f"--arm {arm}: no trained arm of that name; {did_you_mean(arm, arms)}")
    seeds = [s for name, s in found if name == arm]
    if seed is not None and seed not in seeds:
        raise UserError(f"--seed {seed}: arm {arm} is trained with {', '.join(map(str, seeds))}")
    chosen = seeds[0] if seed is None else seed
    model = found[arm, chosen]
    check_model_folder(model)
    with staged(out) as root:
        for file in sorted(model.iterdir()):
            if dtype is not None and file.suffix == ".safetensors":
                _convert(file, root / file.name, dtype)
            elif file.is_file():
                shutil.copyfile(file, root / file.name)
        if dtype is not None:
            _note_dtype(root, dtype)
        (root / "README.md").write_text(model_card(run, root, arm, chosen), encoding="utf-8")
    check_model_folder(out)
    return out


def _convert(source: Path, target: Path, dtype: str) -> None:
    """One file of weights in another precision; whole numbers stay as they are."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = getattr(torch, dtype)
    with safe_open(source, framework="pt") as opened:
        metadata = opened.metadata()
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    tensors = {n: t.to(wanted) if t.is_floating_point() else t for n, t in tensors.items()}
    save_file(tensors, target, metadata)


def _note_dtype(folder: Path, dtype: str) -> None:
    file = folder / "config.json"
    config: dict[str, Any] = read_json(file) or {}
    for part in (config, *(v for v in config.values() if isinstance(v, dict))):
        for key in ("dtype", "torch_dtype"):
            if key in part:
                part[key] = dtype
    config["dtype"] = dtype
    file.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    index = folder / "model.safetensors.index.json"
    listed = read_json(index) if index.is_file() else None
    if isinstance(listed, dict) and isinstance(listed.get("metadata"), dict):
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        listed["metadata"]["total_size"] = size
        index.write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
