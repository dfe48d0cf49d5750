"""GTA as its authors publish it: a folder with `dataset.json`, `toolmeta.json` and `image/`.

A task is a query about pictures and the calls that solve it, each with its result. Two keys beyond
GTA's own may be given: `descriptions` of a task's pictures, and `marks` of a call.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_builders.gta.calls import Call
from datasets_builders.gta.special import MARKS
from datasets_builders.gta.tools import Tool, read_json_object, read_tools
from datasets_builders.hints import hint
from trimpi.errors import UserError


@dataclass(frozen=True)
class Step:
    """A call and what came of it; `result` is text, or the name of the picture that was made.

    `marks` say what rules ask about and a call does not show, such as "mathematical".
    """

    call: Call
    result: str
    thought: str = ""
    marks: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Task:
    """One task. `images` are absolute paths by the names that calls use, such as `image/3.jpg`.

    `closed` says that the query has one short answer; `descriptions` are those of pictures, by
    name, where they are known beside the steps.
    """

    id: str
    query: str
    images: Mapping[str, str]
    steps: tuple[Step, ...]
    closed: bool = False
    descriptions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Tasks that can be used, and the tools; `left_out` has a missing picture by task id."""

    tasks: tuple[Task, ...]
    tools: Mapping[str, Tool]
    left_out: Mapping[str, str]


def read_gta(folder: Path, skip_missing: bool = False) -> Source:
    """Read and check a GTA folder.

    Args:
        folder: holds `dataset.json`, `toolmeta.json` and `image/`.
        skip_missing: leave tasks out whose pictures are not there, instead of refusing.

    Raises:
        UserError: all faults at once, each with its task: an unknown tool, a tool without
            metadata, an argument that the tool has not, a dialogue that is none, a missing
            picture, a description of no picture, an unknown mark, an id given twice, or no task is
            left.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; give the root of a GTA release")
    tools = read_tools(folder / "toolmeta.json")
    file = folder / "dataset.json"
    tasks, left_out = [], {}
    problems: list[str] = []
    for key, record in read_json_object(file).items():
        where = f"{file}: task {key!r}"
        faults: list[str] = []
        task, absent = _task(key, record, folder, tools, faults)
        if absent and skip_missing:
            left_out[key] = absent[0]
        elif absent:
            faults += [
                f"picture {name!r} is not in {folder}; add it, or leave such tasks out with "
                "skip_missing"
                for name in absent
            ]
        elif task is not None:
            tasks.append(task)
        problems += [f"{where}: {fault}" for fault in faults]
    if problems:
        raise UserError.join(problems)
    if not tasks:
        reason = f"all {len(left_out)} lack pictures" if left_out else "there are none"
        raise UserError(f"{file}: no task is left ({reason}); give the whole release")
    return Source(tuple(tasks), tools, left_out)


def _task(
    key: str, record: Any, folder: Path, tools: Mapping[str, Tool], faults: list[str]
) -> tuple[Task | None, list[str]]:
    """The task and the pictures that are absent; what is wrong is added to `faults`."""
    if not isinstance(record, Mapping) or not isinstance(record.get("dialogs"), list):
        faults.append("must be an object with 'dialogs'; restore the file")
        return None, []
    images, absent = {}, []
    for entry in record.get("files") or []:
        name = entry.get("path") if isinstance(entry, Mapping) else None
        if not isinstance(name, str):
            faults.append("an entry of 'files' has no 'path'; restore the file")
            continue
        path = (folder / name).resolve()
        if not path.is_relative_to(folder.resolve()):
            faults.append(f"picture {name!r} leaves {folder}; keep pictures inside of it")
        elif not path.is_file():
            absent.append(name)
        else:
            images[name] = str(path)
    for listed in record.get("tools") or []:
        name = listed.get("name") if isinstance(listed, Mapping) else listed
        if name not in tools:
            faults.append(f"tool {name!r} has no entry in toolmeta.json; add one")
    turns: Sequence[Any] = record["dialogs"]
    first = turns[0] if turns else None
    if not isinstance(first, Mapping) or first.get("role") != "user":
        faults.append("the dialogue does not begin with the user; restore the file")
        return None, absent
    steps = tuple(_steps(turns[1:], tools, faults))
    if not steps:
        faults.append("the dialogue holds no tool call; drop the task")
    answer = record.get("gt_answer")
    closed = isinstance(answer, Mapping) and bool(answer.get("whitelist"))
    descriptions = _descriptions(record.get("descriptions"), (*images, *absent), faults)
    query = str(first.get("content", "")).strip()
    return Task(key, query, images, steps, closed, descriptions), absent


def _descriptions(entry: Any, pictures: Collection[str], faults: list[str]) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, Mapping):
        faults.append(f"'descriptions' must be an object of texts by picture, found {entry!r}")
        return {}
    for name, text in entry.items():
        if name not in pictures:
            cure = hint(name, pictures, "add the picture to 'files'")
            faults.append(f"'descriptions' of {name!r}, which is no picture of the task; {cure}")
        elif not isinstance(text, str) or not text.strip():
            faults.append(f"the description of {name!r} must be text, found {text!r}")
    return dict(entry)


def _steps(turns: Sequence[Any], tools: Mapping[str, Tool], faults: list[str]) -> Iterator[Step]:
    """Calls with the result that follows; an assistant turn with several calls gives several."""
    waiting: list[tuple[Call, str, frozenset[str]]] = []
    for number, turn in enumerate(turns, 2):
        role = turn.get("role") if isinstance(turn, Mapping) else None
        if role == "assistant" and turn.get("tool_calls"):
            for entry in turn["tool_calls"]:
                call = _call(entry)
                if call is None:
                    faults.append(f"turn {number}: a tool call without name and arguments")
                    continue
                if call.name not in tools:
                    cure = hint(call.name, tools, "add it to toolmeta.json")
                    faults.append(f"turn {number}: unknown tool {call.name!r}; {cure}")
                else:
                    fit = tools[call.name].faults(call)
                    faults += [f"turn {number}: {fault}" for fault in fit]
                marks = _marks(entry.get("marks"), number, faults)
                waiting.append((call, str(turn.get("thought") or ""), marks))
        elif role == "tool":
            if not waiting:
                faults.append(f"turn {number}: a result without a call; restore the file")
                continue
            call, thought, marks = waiting.pop(0)
            yield Step(call, _result(turn.get("content")), thought, marks)
        elif role not in ("assistant", "user"):
            faults.append(f"turn {number}: role {role!r} is none of user, assistant, tool")
    # The last call of a task may have no recorded result; it is a step all the same.
    for call, thought, marks in waiting:
        yield Step(call, "", thought, marks)


def _marks(entry: Any, number: int, faults: list[str]) -> frozenset[str]:
    if entry is None:
        return frozenset()
    if not isinstance(entry, list):
        faults.append(f"turn {number}: 'marks' must be a list of marks, found {entry!r}")
        return frozenset()
    for mark in entry:
        if mark not in MARKS:
            cure = hint(str(mark), MARKS, f"known: {', '.join(MARKS)}")
            faults.append(f"turn {number}: unknown mark {mark!r}; {cure}")
    return frozenset(mark for mark in entry if mark in MARKS)


def _call(entry: Any) -> Call | None:
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except ValueError:
            return None
    return Call(function["name"], dict(arguments)) if isinstance(arguments, Mapping) else None


def _result(content: Any) -> str:
    if isinstance(content, Mapping):
        content = content.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
