"""A data folder as JSONL and pictures for another trainer, ready to be put on the hub."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from trimpi.errors import UserError, did_you_mean
from trimpi.export.data_card import data_card
from trimpi.export.folder import staged
from trimpi.export.formats import Format, to_row
from trimpi.prompt import Target, build_messages, is_text_split, render_target, text_messages
from trimpi.sample import DataFolder, Sample

Shown = Literal["none", "context"]


def export_data(
    folder: Path,
    out: Path,
    kind: Format,
    *,
    splits: Sequence[str] = (),
    policy: Shown = "none",
    target: Target = "cot",
) -> dict[str, int]:
    """Write the splits of a data folder for another trainer; returns the rows of each.

    Args:
        folder: a data folder.
        out: a folder that does not exist yet, or is empty.
        kind: the tool.
        splits: names of splits; () takes all.
        policy: "none" leaves it out of the prompt, "context" puts it in front.
        target: "cot" writes reasoning and answer where a split has reasoning, and prompts with gold
            answers where it has none (for RL); "answer" writes the answer alone. Texts about
            policies are written as they are trained on: query and text.

    Raises:
        UserError: no such split, a split of which only some rows have reasoning, or `out` is there.
    """
    data = DataFolder(folder)
    chosen = list(splits) or list(data.splits)
    if problems := unknown_splits(data, chosen):
        raise UserError.join(problems)
    rows = {name: data.read(name) for name in chosen}
    supervised = {name: _supervised(name, samples, target) for name, samples in rows.items()}
    with staged(out) as root:
        pictured = {
            name: _write_split(root, data, name, samples, kind, policy, target, supervised[name])
            for name, samples in rows.items()
        }
        # datasets reads a folder as pictures or as JSON, never as both
        alone = {
            s for s in chosen if is_text_split(s) or (any(pictured.values()) and not pictured[s])
        }
        counts = {name: len(samples) for name, samples in rows.items()}
        if kind == "llamafactory":
            _write(root / "dataset_info.json", _dataset_info([s for s in chosen if supervised[s]]))
        licences = data.root / "LICENCES.md"
        if licences.is_file():
            shutil.copyfile(licences, root / "LICENCES.md")
        whole = licences.is_file()
        card = data_card(data, kind, counts, supervised, policy, target, whole, alone)
        (root / "README.md").write_text(card, encoding="utf-8")
    return counts


def unknown_splits(data: DataFolder, splits: Sequence[str]) -> list[str]:
    """A line for each split that the folder does not have."""
    return [
        f"--split {name}: no such split; {did_you_mean(name, data.splits)}"
        for name in splits
        if name not in data.splits
    ]


def _supervised(split: str, samples: Sequence[Sample], target: Target) -> bool:
    """Whether rows of a split get a completion."""
    if target == "answer" or is_text_split(split):
        return True
    having = sum(sample.rationale is not None for sample in samples)
    if 0 < having < len(samples):
        raise UserError(
            f"--split {split}: {having} of {len(samples)} rows have a rationale; give --target "
            "answer, or leave the split out"
        )
    return having > 0


def _write_split(
    root: Path,
    data: DataFolder,
    split: str,
    samples: Sequence[Sample],
    kind: Format,
    policy: Shown,
    target: Target,
    supervised: bool,
) -> bool:
    """Write the rows of a split; returns whether any has a picture."""
    # datasets reads a folder of pictures with metadata.jsonl beside them; the others read paths.
    base = root / split if kind == "trl" else root
    lines = []
    alone = is_text_split(split)  # texts about a policy: without it, and in no response format
    for sample in samples:
        shown = data.policy_of(sample) if policy == "context" and not alone else None
        messages = text_messages(sample) if alone else build_messages(sample, shown, target)
        pictures = [
            part["image"] for m in messages for part in m["content"] if part["type"] == "image"
        ]
        names = [_place(base, data, Path(picture)) for picture in pictures]
        completion = None
        if supervised:
            completion = sample.answer if alone else render_target(sample, target)
        facts = {"id": sample.id, "answer": sample.answer}
        lines.append(to_row(kind, messages, completion, names, facts))
    key = "images_file_names" if kind == "trl" else "images"
    pictured = any(line[key] for line in lines)
    if kind == "trl" and not pictured:  # a column that is empty in all rows has no type
        lines = [{name: value for name, value in line.items() if name != key} for line in lines]
    file = base / "metadata.jsonl" if kind == "trl" else root / f"{split}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    file.write_text(text, encoding="utf-8")
    return pictured


def _place(base: Path, data: DataFolder, picture: Path) -> str:
    """The picture's copy below `base`, and its name from there."""
    name = picture.relative_to(data.root.resolve()).as_posix()
    name = name if name.startswith("images/") else f"images/{name}"
    copy = base / name
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, copy)
    return name


def _dataset_info(splits: Sequence[str]) -> dict[str, Any]:
    """LLaMA-Factory's register of data sets: it skips rows whose turns end with the user."""
    tags = {"role_tag": "role", "content_tag": "content"}
    tags |= {"user_tag": "user", "assistant_tag": "assistant"}
    columns = {"messages": "messages", "images": "images"}
    return {
        split: {
            "file_name": f"{split}.jsonl",
            "formatting": "sharegpt",
            "columns": columns,
            "tags": tags,
        }
        for split in splits
    }


def _write(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
