"""Reading a GTA folder: the real pieces, and every fault by its task."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets_builders.gta.calls import Call
from datasets_builders.gta.source import read_gta
from datasets_builders.gta.tools import read_tools
from trimpi.errors import UserError

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "gta" / "sample"

TOOLS: dict[str, Any] = {
    "OCR": {
        "name": "OCR",
        "description": "Reads text.",
        "inputs": [{"name": "image", "type": "image", "optional": False, "default": None}],
    },
    "GoogleSearch": {
        "name": "GoogleSearch",
        "description": "Searches.",
        "inputs": [
            {"name": "query", "type": "text", "optional": False, "default": None},
            {"name": "k", "type": "int", "optional": True, "default": 10},
        ],
    },
}


def calls(name: str, **arguments: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


def task(*turns: Any, files: tuple[str, ...] = ("image/a.png",)) -> dict[str, Any]:
    return {
        "tools": [{"name": "OCR"}],
        "files": [{"type": "image", "path": name} for name in files],
        "dialogs": [{"role": "user", "content": "What is written?"}, *turns],
    }


RESULT = {"role": "tool", "name": "OCR", "content": {"type": "text", "content": "HELLO"}}
GOOD = task(calls("OCR", image="image/a.png"), RESULT, {"role": "assistant", "content": "HELLO"})


def folder(root: Path, tasks: Any, tools: Any = TOOLS) -> Path:
    (root / "image").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8)).save(root / "image" / "a.png")
    (root / "toolmeta.json").write_text(json.dumps(tools))
    text = tasks if isinstance(tasks, str) else json.dumps(tasks)
    (root / "dataset.json").write_text(text)
    return root


def test_a_task_becomes_steps(tmp_path: Path) -> None:
    source = read_gta(folder(tmp_path, {"7": GOOD}))
    (only,) = source.tasks
    assert only.id == "7" and only.query == "What is written?"
    assert only.images == {"image/a.png": str(tmp_path / "image" / "a.png")}
    assert [(s.call, s.result) for s in only.steps] == [
        (Call("OCR", {"image": "image/a.png"}), "HELLO")
    ]
    assert source.tools["GoogleSearch"].defaults == {"k": 10} and source.left_out == {}


def test_several_calls_of_a_turn_and_a_last_call_without_result(tmp_path: Path) -> None:
    two = calls("OCR", image="image/a.png")
    two["tool_calls"] *= 2
    source = read_gta(
        folder(tmp_path, {"1": task(two, RESULT, RESULT, calls("GoogleSearch", query="x"))})
    )
    assert [s.call.name for s in source.tasks[0].steps] == ["OCR", "OCR", "GoogleSearch"]
    assert source.tasks[0].steps[2].result == ""


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            task(calls("OCRR", image="a"), RESULT),
            "turn 2: tool 'OCRR' has no entry in toolmeta.json; add one (did you mean 'OCR'?)",
        ),
        (
            task(calls("Paint", image="a"), RESULT),
            "turn 2: tool 'Paint' has no entry in toolmeta.json; add one",
        ),
        (task(calls("OCR", imag="a"), RESULT), "turn 2: OCR has no argument 'imag'; did you mean"),
        (task(calls("OCR"), RESULT), "turn 2: OCR needs the argument 'image'; add it"),
        (task(calls("OCR", image=3), RESULT), "turn 2: OCR.image must be of type image, found 3"),
        (
            task(calls("GoogleSearch", query="x", k="4"), RESULT),
            "turn 2: GoogleSearch.k must be of type int, found '4'",
        ),
        ({**GOOD, "tools": [{"name": "Solver"}]}, "tool 'Solver' has no entry in toolmeta.json"),
        (task(RESULT), "turn 2: a result without a call"),
        (task(), "the dialogue holds no tool call"),
        ({"dialogs": [RESULT]}, "the dialogue does not begin with the user"),
        ({"dialogs": 3}, "must be an object with 'dialogs'"),
        (task({"role": "system"}), "turn 2: role 'system' is none of"),
        (task({"role": "assistant", "tool_calls": [{}]}), "turn 2: a tool call without name"),
        ({**GOOD, "files": [{"path": "image/b.png"}]}, "picture 'image/b.png' is not in"),
        ({**GOOD, "files": [{"path": "../b.png"}]}, "picture '../b.png' leaves"),
    ],
)
def test_faults_name_their_task(tmp_path: Path, record: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_gta(folder(tmp_path, {"7": record, "8": GOOD}))
    lines = str(caught.value).splitlines()
    assert any(found.startswith(f"{tmp_path}/dataset.json: task '7': {line}") for found in lines)
    assert not any("task '8'" in found for found in lines)


def marked(marks: Any) -> dict[str, Any]:
    turn = calls("OCR", image="image/a.png")
    turn["tool_calls"][0]["marks"] = marks
    return task(turn, RESULT)


def test_descriptions_and_marks_are_read(tmp_path: Path) -> None:
    record = {**marked(["mathematical"]), "descriptions": {"image/a.png": "a black square"}}
    (only,) = read_gta(folder(tmp_path, {"7": record})).tasks
    assert only.descriptions == {"image/a.png": "a black square"}
    assert [step.marks for step in only.steps] == [frozenset({"mathematical"})]
    (plain,) = read_gta(folder(tmp_path, {"8": GOOD})).tasks
    assert plain.descriptions == {} and plain.steps[0].marks == frozenset()


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (
            {**GOOD, "descriptions": ["a square"]},
            "'descriptions' must be an object of texts by picture, found ['a square']",
        ),
        (
            {**GOOD, "descriptions": {"image/aa.png": "x"}},
            "'descriptions' of 'image/aa.png', which is no picture of the task; did you mean "
            "'image/a.png'?",
        ),
        (
            {**GOOD, "descriptions": {"image/a.png": 3}},
            "the description of 'image/a.png' must be text, found 3",
        ),
        (
            marked("mathematical"),
            "turn 2: 'marks' must be a list of marks, found 'mathematical'",
        ),
        (
            marked(["mathematica"]),
            "turn 2: unknown mark 'mathematica'; did you mean 'mathematical'?",
        ),
        (marked([{}]), "turn 2: unknown mark {}; known: mathematical"),
    ],
)
def test_faulty_descriptions_and_marks(tmp_path: Path, record: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_gta(folder(tmp_path, {"7": record}))
    assert str(caught.value) == f"{tmp_path}/dataset.json: task '7': {line}"


def test_tasks_without_their_pictures_are_left_out_when_asked(tmp_path: Path) -> None:
    root = folder(tmp_path, {"7": {**GOOD, "files": [{"path": "image/b.png"}]}, "8": GOOD})
    source = read_gta(root, skip_missing=True)
    assert [t.id for t in source.tasks] == ["8"] and source.left_out == {"7": "image/b.png"}
    (root / "image" / "a.png").unlink()
    with pytest.raises(
        UserError, match=r"no task is left \(all 2 are left out, '7' for image/b\.png\)"
    ):
        read_gta(root, skip_missing=True)


def test_ids_given_twice_and_files_that_are_none(tmp_path: Path) -> None:
    text = json.dumps(GOOD)
    with pytest.raises(UserError, match=r"dataset\.json: not readable JSON \(key '7' is given"):
        read_gta(folder(tmp_path, f'{{"7": {text}, "7": {text}}}'))
    with pytest.raises(UserError, match=r"dataset\.json: must hold a JSON object"):
        read_gta(folder(tmp_path, "[]"))
    with pytest.raises(UserError, match="no such folder; give the root of a GTA release"):
        read_gta(tmp_path / "none")


@pytest.mark.parametrize(
    ("tools", "line"),
    [
        ({}, "holds no tool"),
        ({"A": {"name": "B"}}, "A: must be an object with this 'name'"),
        ({"A": {"name": "A", "inputs": []}}, "A: 'description' must be text"),
        ({"A": {"name": "A", "description": ""}}, "A: 'inputs' must be a list"),
        (
            {"A": {"name": "A", "description": "", "inputs": [{"name": "x", "type": "box"}]}},
            "A: input 'x': type 'box' is none of text, image",
        ),
        (
            {"A": {"name": "A", "description": "", "inputs": [
                {"name": "x", "type": "int", "optional": True, "default": "4"}]}},
            "A: input 'x': default '4' is no int",
        ),
    ],
)  # fmt: skip
def test_tools_that_are_none(tmp_path: Path, tools: Any, line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_tools(folder(tmp_path, {}, tools) / "toolmeta.json")
    assert line in str(caught.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="the sample of GTA is not beside the project")
def test_the_real_pieces() -> None:
    tools = read_tools(REAL / "toolmeta.json")
    assert len(tools) == 14 and tools["TextToBbox"].defaults == {"top1": True}
    with pytest.raises(UserError) as caught:  # their pictures are not part of the sample
        read_gta(REAL)
    assert len(str(caught.value).splitlines()) == 3
    assert all(
        "is not in" in line and "skip_missing" in line for line in str(caught.value).splitlines()
    )
