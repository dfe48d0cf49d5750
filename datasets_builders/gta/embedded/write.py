"""Makes the release folder from `tasks.yaml`, the drawings and the annotations of photographs.

    python -m datasets_builders.gta.embedded.write

A task gives base calls, as GTA has them, before any rule. `$1` stands for the picture that step 1
made; `$cup` for the box of what an earlier step found as `cup`, or read as `cup`. In the release
pictures have numbers in place of names, as in GTA: a name would tell what they show.
"""

import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from datasets_builders.gta.calls import Call
from datasets_builders.gta.embedded import RELEASE
from datasets_builders.gta.embedded.annotation import Annotation
from datasets_builders.gta.embedded.drawings import DRAWINGS
from datasets_builders.gta.embedded.photos import photo_annotations
from datasets_builders.gta.embedded.results import MAKE_PICTURES, WRITTEN, derive, named_boxes
from datasets_builders.gta.tools import Tool, read_tools
from datasets_builders.hints import hint
from trimpi.errors import UserError

TASKS = Path(__file__).with_name("tasks.yaml")
ANNOTATIONS = RELEASE / "annotations.json"


def read_tasks() -> list[dict[str, Any]]:
    """The tasks as they are written by hand."""
    rows: list[dict[str, Any]] = yaml.safe_load(TASKS.read_text(encoding="utf-8"))
    return rows


def read_annotations() -> dict[str, Annotation]:
    """What all pictures of the release folder show, by name, such as `image/image_14.png`."""
    content = json.loads(ANNOTATIONS.read_text(encoding="utf-8"))
    return {name: Annotation.from_json(record) for name, record in content.items()}


def dataset(
    tasks: Sequence[Mapping[str, Any]], pictures: Mapping[str, Annotation]
) -> dict[str, dict[str, Any]]:
    """The content of `dataset.json`.

    Raises:
        UserError: all faults at once, one line a task: a key, a picture or an object that is not
            there, a call that does not fit its tool, a box that no earlier step returned, an
            expression without value, an id or a query given twice.
    """
    tools = read_tools(RELEASE / "toolmeta.json")
    records: dict[str, dict[str, Any]] = {}
    problems: list[str] = []
    queries: set[str] = set()
    made = 0
    for number, row in enumerate(tasks, 1):
        try:
            for key in ("id", "query", "images", "steps"):
                if not row.get(key):
                    raise ValueError(f"needs the key {key!r}")
            if row["id"] in records or row["query"] in queries:
                raise ValueError("id or query is given twice")
            shown = {name: _known(name, pictures) for name in map(_file, row["images"])}
            turns = list(_turns(row["steps"], shown, tools, made))
        except ValueError as error:
            problems.append(f"tasks.yaml: task {row.get('id', number)!r}: {error}; correct it")
            continue
        made += sum(turn["content"]["type"] == "image" for turn in turns[1::2])
        queries.add(row["query"])
        records[row["id"]] = _record(row, shown, turns)
    if problems:
        raise UserError.join(problems)
    return records


def picture_names() -> dict[str, str]:
    """The numbered name of every picture by its name here: photographs first, then drawings."""
    names = [*photo_annotations(), *(_file(f"{name}.png") for name in DRAWINGS)]
    return {
        name: f"image/image_{number}{Path(name).suffix}" for number, name in enumerate(names, 1)
    }


def renamed(content: Any, names: Mapping[str, str]) -> Any:
    """JSON content with other names for pictures, wherever they stand."""
    if isinstance(content, Mapping):
        return {renamed(k, names): renamed(v, names) for k, v in content.items()}
    if isinstance(content, Sequence) and not isinstance(content, str):
        return [renamed(entry, names) for entry in content]
    if isinstance(content, str):
        return re.sub(r"image/\w+\.\w+", lambda found: names.get(found[0], found[0]), content)
    return content


def _record(
    row: Mapping[str, Any], shown: Mapping[str, Annotation], turns: list[dict[str, Any]]
) -> dict[str, Any]:
    answer = row.get("answer")
    used = dict.fromkeys(turn["name"] for turn in turns[1::2])
    end = [{"role": "assistant", "content": answer[0]}] if answer else []
    record: dict[str, Any] = {
        "tools": [{"name": name} for name in used],
        "files": [{"type": "image", "path": name, "url": None} for name in shown],
        "dialogs": [{"role": "user", "content": row["query"]}, *turns, *end],
        "gt_answer": {"whitelist": [answer], "blacklist": None} if answer else None,
    }
    if len(shown) > 1:
        record["descriptions"] = {name: seen.description for name, seen in shown.items()}
    return record


def _turns(
    steps: Sequence[Mapping[str, Any]],
    shown: Mapping[str, Annotation],
    tools: Mapping[str, Tool],
    made: int,
) -> Iterator[dict[str, Any]]:
    """A call and its result for each step; `made` pictures were made before."""
    known: dict[str, str] = {}
    for number, step in enumerate(steps, 1):
        named = [key for key in step if key not in ("thought", "result", "marks")]
        if len(named) != 1 or not step.get("thought"):
            raise ValueError(f"step {number}: needs one tool and a 'thought'")
        (tool,) = named
        if tool not in tools:
            raise ValueError(f"step {number}: unknown tool {tool!r}, {hint(tool, tools)}")
        arguments = {key: _meant(key, value, known) for key, value in step[tool].items()}
        if faults := tools[tool].faults(Call(tool, arguments)):
            raise ValueError(f"step {number}: {faults[0]}")
        if tool in MAKE_PICTURES:
            made += 1
            result = known[f"${number}"] = f"image/out_{made}.png"
        else:
            result = _result(tool, arguments, step, shown)
        if (seen := shown.get(arguments.get("image", ""))) is not None:
            boxes = named_boxes(tool, arguments, seen)
            known |= {f"${name}": box for name, box in boxes.items()}
        entry = {"type": "function", "function": {"name": tool, "arguments": arguments}}
        marks = {"marks": step["marks"]} if "marks" in step else {}
        content = {"type": "image" if tool in MAKE_PICTURES else "text", "content": result}
        yield {"role": "assistant", "tool_calls": [entry | marks], "thought": step["thought"]}
        yield {"role": "tool", "name": tool, "content": content}


def _result(
    tool: str,
    arguments: Mapping[str, Any],
    step: Mapping[str, Any],
    shown: Mapping[str, Annotation],
) -> str:
    if tool in WRITTEN:
        if not step.get("result"):
            raise ValueError(f"{tool} needs a 'result' in words")
        return str(step["result"]).strip()
    if "result" in step:
        raise ValueError(f"the result of {tool} is derived, drop 'result'")
    return derive(tool, arguments, shown, "mathematical" in step.get("marks", ()))


def _meant(key: str, value: Any, known: Mapping[str, str]) -> Any:
    """An argument with the name or the box that it stands for."""
    if isinstance(value, str) and value.startswith("$"):
        if value not in known:
            raise ValueError(f"{key}: {value} is nothing that an earlier step returned")
        return known[value]
    if key == "bbox":
        raise ValueError(f"bbox: {value!r} must be what an earlier step returned, such as $cup")
    return _file(value) if key == "image" else value


def _file(name: str) -> str:
    return f"image/{name}"


def _known(name: str, pictures: Mapping[str, Annotation]) -> Annotation:
    if name not in pictures:
        raise ValueError(f"no picture {name!r}, {hint(name, pictures, 'draw it')}")
    return pictures[name]


def main() -> None:
    """Draw the pictures and write them, `annotations.json` and `dataset.json`."""
    names = picture_names()
    drawn = {_file(f"{name}.png"): draw() for name, draw in DRAWINGS.items()}
    pictures = photo_annotations() | {name: d.annotation for name, d in drawn.items()}
    records = dataset(read_tasks(), pictures)
    for name, drawing in drawn.items():
        drawing.image.quantize(128).save(RELEASE / names[name], optimize=True)
    known = {names[name]: {"name": name, **seen.to_json()} for name, seen in pictures.items()}
    _write(ANNOTATIONS, known)
    _write(RELEASE / "dataset.json", renamed(records, names))


def _write(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
