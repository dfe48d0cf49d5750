"""A model folder on disk: where it is, whether it is whole, where it came from. No torch.

config.json  model*.safetensors  tokenizer files  processor_config.json  chat_template.jinja
lineage.json    the stages that made the weights, first to last
"""

import json
import re
from pathlib import Path
from typing import Any

from trimpi.errors import UserError
from trimpi.model_source import PACKAGE
from trimpi.model_source import locate as locate_source
from trimpi.recipe import ModelConfig
from trimpi.runs import model_digest, read_json

LINEAGE = "lineage.json"


def locate(path: str | Path, where: str = "model.path") -> str:
    """A model's path as transformers takes it: a folder, a hub id, or `package://...` resolved.

    Raises:
        UserError: `package://` names a folder that is not installed.
    """
    text = str(path)
    if text.startswith(PACKAGE):
        return str(locate_source(ModelConfig(path=text), where))
    return text


def is_hub_id(path: str | Path) -> bool:
    """Whether `path` can only be a name on the hub: `owner/name` and no such folder here."""
    text = locate(path)
    return (
        re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", text) is not None and not Path(text).exists()
    )


def check_model_folder(path: str | Path) -> None:
    """Refuse a model folder that is not whole; a hub id passes unchecked (it needs the network).

    Raises:
        UserError: all that is missing at once: folder, configuration, weights (safetensors only,
            every shard at its full length), tokenizer, processor, chat template.
    """
    if is_hub_id(path):
        return
    folder = Path(locate(path))
    if not folder.is_dir():
        raise UserError(f"{folder}: no such model folder; check model.path")
    problems = []
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        problems.append(f"{folder}/config.json: missing or not JSON; restore the model folder")
    elif not any("vision" in key or "visual" in key for key in config):
        problems.append(
            f"{folder}/config.json: model type {config.get('model_type')!r} has no vision part; "
            "take an image-text-to-text model"
        )
    problems += _weight_problems(folder)
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
        problems.append(f"{folder}: no tokenizer.json; copy the tokenizer's files into the folder")
    processor = ("processor_config.json", "preprocessor_config.json")
    if not any((folder / name).is_file() for name in processor):
        problems.append(
            f"{folder}: no processor (processor_config.json or preprocessor_config.json); copy it "
            "from the model's source"
        )
    if not _has_chat_template(folder):
        problems.append(
            f"{folder}: no chat template; add chat_template.jinja from the instruct model"
        )
    if problems:
        raise UserError.join(problems)


def read_lineage(path: str | Path) -> dict[str, Any]:
    """`{"base": ..., "base_digest": ..., "steps": [...]}`; a model of no stage is its own base."""
    name = locate(path)
    found = read_json(Path(name) / LINEAGE)
    if isinstance(found, dict) and "steps" in found:
        return found
    digest = model_digest(Path(name)) if Path(name).is_dir() else None
    return {"base": str(path), "base_digest": digest, "steps": []}


def _weight_problems(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        listed = read_json(index)
        if not isinstance(listed, dict) or not isinstance(listed.get("weight_map"), dict):
            return [f"{index}: not an index of weights; restore the model folder"]
        files = [folder / name for name in sorted(set(listed["weight_map"].values()))]
    else:
        files = [folder / "model.safetensors"]
        if not files[0].is_file():
            return [f"{folder}: no model.safetensors; weights in other formats are not read"]
    return [f"{file}: {fault}; restore the file" for file in files if (fault := _fault(file))]


def _fault(file: Path) -> str | None:
    """What is wrong with a safetensors file, judged by its header and length."""
    if not file.is_file():
        return "missing"
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > file.stat().st_size:
                return "not a whole safetensors file"
            header = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
    except (ValueError, KeyError, TypeError, AttributeError):
        return "not a safetensors file"
    return None if file.stat().st_size == 8 + length + max(ends, default=0) else "cut off"


def _has_chat_template(folder: Path) -> bool:
    for name in ("chat_template.jinja", "chat_template.json"):
        if (folder / name).is_file() and (folder / name).read_bytes().strip():
            return True
    settings = [read_json(folder / f"{name}_config.json") for name in ("processor", "tokenizer")]
    return any(isinstance(s, dict) and s.get("chat_template") for s in settings)
