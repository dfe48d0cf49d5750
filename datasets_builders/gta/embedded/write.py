"""Makes the release folder from `tasks.yaml`, the drawings and the annotations of photographs.

    python -m datasets_builders.gta.embedded.write

A task gives base calls, as GTA has them, before any rule. `$1` stands for the picture that step 1
made; `$cup` for the box of what an earlier step found as `cup`, or read as `cup`.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from datasets_builders.gta.embedded import RELEASE
from datasets_builders.gta.embedded.annotation import Annotation
from datasets_builders.gta.embedded.drawings import DRAWINGS
from datasets_builders.gta.embedded.photos import photo_annotations
from datasets_builders.gta.embedded.results import MAKE_PICTURES, derive, named_boxes
from datasets_builders.gta.source import read_gta
from trimpi.errors import UserError

TASKS = Path(__file__).with_name("tasks.yaml")
ANNOTATIONS = RELEASE / "annotations.json"


def read_tasks() -> list[dict[str, Any]]:
    """The tasks as they are written by hand."""
    rows: list[dict[str, Any]] = yaml.safe_load(TASKS.read_text(encoding="utf-8"))
    return rows


def read_annotations() -> dict[str, Annotation]:
    """What all pictures of the release folder show, by name, such as `image/receipt.png`."""
    content = json.loads(ANNOTATIONS.read_text(encoding="utf-8"))
    return {name: Annotation.from_json(record) for name, record in content.items()}


def dataset(
    tasks: list[dict[str, Any]], pictures: Mapping[str, Annotation]
) -> dict[str, dict[str, Any]]:
    """The content of `dataset.json`.

    Raises:
        UserError: all faults at once: a picture or an object that is not there, a box that no
            earlier step returned, an expression without value, an id or a query given twice.
    """
    records: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    queries: set[str] = set()
    made = 0
    for row in tasks:
        where = f"{TASKS}: task {row['id']!r}"
        if row["id"] in records or row["query"] in queries:
            problems.append(f"{where}: id or query is given twice; change one")
        queries.add(row["query"])
        names = [f"image/{name}" for name in row["images"]]
        problems += [
            f"{where}: no picture {name!r}; draw it" for name in names if name not in pictures
        ]
        shown = {name: pictures[name] for name in names if name in pictures}
        try:
            turns = list(_turns(row["steps"], shown, made))
        except ValueError as error:
            problems.append(f"{where}: {error}; correct it")
            continue
        made += sum(turn.get("content", {}).get("type") == "image" for turn in turns[1::2])
        records[row["id"]] = _record(row, shown, turns)
    if problems:
        raise UserError.join(problems)
    return records


def _record(
    row: Mapping[str, Any], shown: Mapping[str, Annotation], turns: list[dict[str, Any]]
) -> dict[str, Any]:
    answer = row.get("answer")
    used = dict.fromkeys(turn["name"] for turn in turns[1::2])
    end = [{"role": "assistant", "content": answer[0]}] if answer else []
    record = {
        "tools": [{"name": name} for name in used],
        "files": [{"type": "image", "path": name, "url": None} for name in shown],
        "dialogs": [{"role": "user", "content": row["query"]}, *turns, *end],
        "gt_answer": {"whitelist": [answer], "blacklist": None} if answer else None,
    }
    if len(shown) > 1:
        record["descriptions"] = {name: seen.description for name, seen in shown.items()}
    return record


def _turns(
    steps: list[dict[str, Any]], shown: Mapping[str, Annotation], made: int
) -> Iterator[dict[str, Any]]:
    """A call and its result for each step; `made` pictures were made before."""
    known: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        (tool,) = step.keys() - {"thought", "result", "marks"}
        arguments = {key: _meant(key, value, known) for key, value in step[tool].items()}
        marks = step.get("marks", [])
        if tool in MAKE_PICTURES:
            made += 1
            result, kind = f"image/out_{made}.png", "image"
            known[f"${number}"] = result
        else:
            kind = "text"
            result = step.get("result") or derive(tool, arguments, shown, "mathematical" in marks)
        if arguments.get("image") in shown:
            found = named_boxes(tool, arguments, shown[arguments["image"]])
            known |= {f"${name}": box for name, box in found.items()}
        entry = {"type": "function", "function": {"name": tool, "arguments": arguments}}
        call = entry | ({"marks": marks} if marks else {})
        yield {"role": "assistant", "tool_calls": [call], "thought": step["thought"]}
        yield {"role": "tool", "name": tool, "content": {"type": kind, "content": result.strip()}}


def _meant(key: str, value: Any, known: Mapping[str, str]) -> Any:
    """An argument with the name or box that it stands for."""
    if isinstance(value, str) and value.startswith("$"):
        if value not in known:
            raise ValueError(f"{key}: {value} is nothing that an earlier step returned")
        return known[value]
    if key == "bbox":
        raise ValueError(
            f"bbox: {value!r} must be a box that an earlier step returned, such as $cup"
        )
    return f"image/{value}" if key == "image" else value


def main() -> None:
    """Draw the pictures and write `annotations.json` and `dataset.json`, then read all back."""
    drawn = {f"image/{name}.png": draw() for name, draw in DRAWINGS.items()}
    pictures = photo_annotations() | {name: d.annotation for name, d in drawn.items()}
    records = dataset(read_tasks(), pictures)
    for name, drawing in drawn.items():
        drawing.image.quantize(128).save(RELEASE / name, optimize=True)
    _write(ANNOTATIONS, {name: pictures[name].to_json() for name in sorted(pictures)})
    _write(RELEASE / "dataset.json", records)
    read_gta(RELEASE)


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
