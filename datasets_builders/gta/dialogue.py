"""The turns of a task: calls with their results, and what is wrong with them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets_builders.gta.boxes import parse_box
from datasets_builders.gta.calls import Call
from datasets_builders.gta.expression import value_of
from datasets_builders.gta.faults import Fault
from datasets_builders.gta.scoring import KINDS
from datasets_builders.gta.special import MARKS
from datasets_builders.gta.tools import Tool
from datasets_builders.hints import hint, shown

MARGIN = 2.0
"""Pixels that a box may reach beyond its picture: detectors round."""


@dataclass(frozen=True)
class Step:
    """A call and what came of it; `result` is text, or the name of the picture that was made.

    `marks` say what rules ask about and a call does not show, such as "mathematical".
    """

    call: Call
    result: str
    thought: str = ""
    marks: frozenset[str] = frozenset()


def read_steps(
    turns: Sequence[Any],
    tools: Mapping[str, Tool],
    pictures: Mapping[str, tuple[int, int] | None] | None,
    faults: list[Fault],
) -> tuple[Step, ...]:
    """Calls with the result that follows; an assistant turn with several calls gives several.

    Args:
        turns: those after the request, the second of the dialogue first.
        tools: by name.
        pictures: of the request, by name: width and height in pixels, None where not known; None
            where not even the names are.
        faults: gets what is wrong.
    """
    before = len(faults)
    steps = list(_steps(turns, tools, faults))
    if not steps and len(faults) == before:
        faults.append(Fault("the dialogue holds no tool call; drop the task"))
    made = ""
    for step, turn in steps:
        if step.call.name in tools and pictures is not None:
            faults += [Fault(words, turn) for words in _argument_faults(step.call, pictures, made)]
        made += f"\n{step.result}"
    return tuple(step for step, _ in steps)


def _steps(
    turns: Sequence[Any], tools: Mapping[str, Tool], faults: list[Fault]
) -> Iterator[tuple[Step, int]]:
    """Each with the turn of its call."""
    waiting: list[tuple[Step, int]] = []
    before = len(faults)
    for number, turn in enumerate(turns, 2):
        role = turn.get("role") if isinstance(turn, Mapping) else None
        if role == "assistant" and turn.get("tool_calls"):
            waiting += [(step, number) for step in _calls(turn, number, tools, faults)]
        elif role == "tool":
            if not waiting:
                if len(faults) == before:  # else its call may be the one that is faulty
                    faults.append(Fault("a result without a call; restore the file", number))
                continue
            step, at = waiting.pop(0)
            result = _result(turn.get("content"))
            yield Step(step.call, result, step.thought, step.marks), at
        elif role not in ("assistant", "user"):
            faults.append(Fault(f"role {shown(role)} is none of user, assistant, tool", number))
    # The last call of a task may have no recorded result; it is a step all the same.
    yield from waiting


def _calls(
    turn: Mapping[str, Any], number: int, tools: Mapping[str, Tool], faults: list[Fault]
) -> Iterator[Step]:
    entries, thought = turn["tool_calls"], turn.get("thought")
    if not isinstance(entries, list):
        faults.append(Fault(f"'tool_calls' must be a list, found {shown(entries)}", number))
        return
    if not isinstance(thought, str | None):
        faults.append(Fault(f"'thought' must be text, found {shown(thought)}", number))
        thought = None
    for entry in entries:
        call = _call(entry)
        if call is None:
            faults.append(Fault("a tool call without name and arguments; restore it", number))
            yield Step(Call("", {}), "")  # for the result that belongs to it
            continue
        if call.name not in tools:
            faults.append(no_metadata(call.name, tools, number))
        else:
            faults += [Fault(words, number) for words in tools[call.name].faults(call)]
        yield Step(call, "", thought or "", _marks(entry.get("marks"), number, faults))


def no_metadata(name: object, tools: Mapping[str, Tool], turn: int = 0) -> Fault:
    """The fault of a tool that is called or listed and has no entry."""
    near = hint(name, tools, " ")
    words = f"tool {shown(name)} has no entry in toolmeta.json; add one"
    return Fault(words, turn, f" ({near})" if near.strip() else "")


def _argument_faults(
    call: Call, pictures: Mapping[str, tuple[int, int] | None], made: str
) -> Iterator[str]:
    """Values of the right type that a gold call cannot have; `made` holds the earlier results."""
    image = call.arguments.get("image")
    if isinstance(image, str) and image not in pictures and (not image or image not in made):
        yield (
            f"{call.name}.image: {shown(image)} is no picture of the task, and no earlier call made"
            " it; correct the name"
        )
    for name, value in call.arguments.items():
        if KINDS.get(name) == "value" and value_of(value) is None:
            yield (
                f"{call.name}.{name}: {shown(value)} has no value that the grader can compute;"
                " write it as plain arithmetic"
            )
        if KINDS.get(name) == "box":
            if (box := parse_box(value)) is None:
                yield f"{call.name}.{name}: {shown(value)} is no box (x1, y1, x2, y2); correct it"
            elif (size := pictures.get(str(image))) is not None and (
                min(box) < -MARGIN or box[2] > size[0] + MARGIN or box[3] > size[1] + MARGIN
            ):
                yield (
                    f"{call.name}.{name}: {shown(value)} reaches out of {image}, which is "
                    f"{size[0]} x {size[1]}; correct it"
                )


def _marks(entry: Any, number: int, faults: list[Fault]) -> frozenset[str]:
    if entry is None:
        return frozenset()
    if not isinstance(entry, list):
        faults.append(Fault(f"'marks' must be a list of marks, found {shown(entry)}", number))
        return frozenset()
    for mark in entry:
        if mark not in MARKS:
            cure = hint(str(mark), MARKS, f"known: {', '.join(MARKS)}")
            faults.append(Fault(f"unknown mark {shown(mark)}; {cure}", number))
    return frozenset(mark for mark in entry if mark in MARKS)


def _call(entry: Any) -> Call | None:
    function = entry.get("function") if isinstance(entry, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        return None
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return Call(function["name"], dict(arguments)) if isinstance(arguments, Mapping) else None


def _result(content: Any) -> str:
    if isinstance(content, Mapping):
        content = content.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
