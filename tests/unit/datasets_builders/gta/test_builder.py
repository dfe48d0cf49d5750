"""The GTAPolicy builder on a small GTA folder that is made up."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets_builders.check import check
from datasets_builders.gta.builder import build, plan
from datasets_builders.gta.grader import diagnose, grade
from tests.chat_server import ChatServer, Reply, completion
from trimpi.errors import UserError
from trimpi.prompt import render_target
from trimpi.sample import Completion, DataFolder

REAL = Path(__file__).resolve().parents[5] / "shared" / "data" / "gta" / "sample"

TOOLS: dict[str, list[tuple[str, str, Any]]] = {
    "OCR": [("image", "image", None)],
    "MathOCR": [("image", "image", None)],
    "Calculator": [("expression", "text", None)],
    "GoogleSearch": [("query", "text", None), ("k", "int", 10)],
    "ImageDescription": [("image", "image", None)],
    "TextToBbox": [("image", "image", None), ("text", "text", None), ("top1", "bool", True)],
    "RegionAttributeDescription": [
        ("image", "image", None), ("bbox", "text", None), ("attribute", "text", None),
    ],
    "CountGivenObject": [("image", "image", None), ("text", "text", None)],
    "TextToImage": [("keywords", "text", None)],
    "ImageStylization": [("image", "image", None), ("instruction", "text", None)],
}  # fmt: skip


def called(name: str, result: str, **arguments: Any) -> list[dict[str, Any]]:
    function = {"name": name, "arguments": arguments}
    return [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "name": name, "content": {"type": "text", "content": result}},
    ]


@pytest.fixture(scope="module")
def gta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tasks over eleven pictures; tasks 0 and 1 share one."""
    root = tmp_path_factory.mktemp("gta")
    (root / "image").mkdir()
    meta = {}
    for name, inputs in TOOLS.items():
        rows = [
            {"name": n, "type": t, "optional": d is not None, "default": d} for n, t, d in inputs
        ]
        meta[name] = {"name": name, "description": f"Does {name}.", "inputs": rows}
    (root / "toolmeta.json").write_text(json.dumps(meta))
    tasks: dict[str, Any] = {}
    for number in range(12):
        picture = f"image/{max(number, 1)}.png"
        Image.new("RGB", (16, 16), (20 * number, 90, 10)).save(root / picture)
        turns = [
            called("OCR", "12 dollars", image=picture)
            + called("Calculator", "24", expression="12*2"),
            called("CountGivenObject", "3", image=picture, text="egg"),
            called("TextToBbox", "(1, 2, 3, 4)", image=picture, text="hat")
            + called("RegionAttributeDescription", "red", image=picture, bbox="(1, 2, 3, 4)",
                     attribute="color"),
            called("GoogleSearch", "about eggs", query="eggs"),
        ][number % 4]  # fmt: skip
        tasks[str(number)] = {
            "tools": [],
            "files": [{"type": "image", "path": picture}],
            "dialogs": [{"role": "user", "content": f"Question {number}?"}, *turns],
            "gt_answer": {"whitelist": [["x"]]} if number % 2 else None,
        }
    (root / "dataset.json").write_text(json.dumps(tasks))
    return root


@pytest.fixture(scope="module")
def folder(gta: Path, tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return build(tmp_path_factory.mktemp("built") / "data", seed=0, source=str(gta))


def test_every_call_is_a_row_and_tasks_stay_on_one_side(folder: DataFolder) -> None:
    train, test = folder.read("train_cot"), folder.read("test")
    assert len(train) + len(test) == 3 * (2 + 1 + 2 + 1)
    sides = [{row.facts["source_task"] for row in rows} for rows in (train, test)]
    assert not sides[0] & sides[1] and len(sides[0] | sides[1]) == 12
    assert {"0", "1"} <= sides[0] or {"0", "1"} <= sides[1]  # they share a picture
    assert check(folder.root) == []


def test_a_row_shows_profile_history_and_policy_name_and_asks_for_the_next_call(
    folder: DataFolder,
) -> None:
    both = [*folder.read("train_cot"), *folder.read("test")]
    rows = {row.id.partition("-")[2]: row for row in both}
    second = rows["4-1-2"]
    profile = second.facts["profile"]
    assert second.query.splitlines()[:4] == [
        "Pictures: image/4.png",
        f"User profile: account_type {profile['account_type']}, age {profile['age']}, credits "
        f"{profile['credits']}",
        "Request: Question 4?",
        "Calls so far:",
    ]
    assert second.query.splitlines()[4].endswith('{"image": "image/4.png"}} -> 12 dollars')
    assert "under policy Velkar?" in second.query
    assert second.answer == '{"name": "Calculator", "arguments": {"expression": "12*2"}}'
    assert second.rationale == (
        "The next call is to Calculator.\nCalculator has no versions.\nSo the call is Calculator."
    )
    search = rows["3-1-1"]
    assert json.loads(search.answer)["arguments"] == {"query": "eggs", "k": 1}  # closed question
    assert json.loads(rows["7-1-1"].answer)["name"].startswith("GoogleSearch_v")
    assert search.rationale is not None and "Rule S4:" in search.rationale
    assert search.facts["ruled_arguments"] == {"S4": "k"} and second.facts["ruled_arguments"] == {}
    for row in both:
        found = diagnose(row, Completion("x", render_target(row, "cot")))
        assert found["first_error"] == "none" and found["gold_path"], row.id
    assert grade(second, Completion("x", f"\\boxed{{{second.answer}}}")).value == 1
    same = '{"name": "Calculator", "arguments": {"expression": "24"}}'
    assert grade(second, Completion("x", same)).value == 1


def test_override_asks_for_other_versions_of_the_same_calls(folder: DataFolder) -> None:
    test, override = folder.read("test"), folder.read("override")
    assert [r.query.splitlines()[2] for r in test] == [r.query.splitlines()[2] for r in override]
    for old, new in zip(test, override, strict=True):
        assert new.facts["original_answer"] == old.answer
        versioned = any(rule.startswith(f"{old.facts['tool']}.") for rule in old.facts["rules"])
        assert (new.answer != old.answer) == versioned
    shown, other = (folder.policies[name] for name in ("velkar", "override/velkar"))
    assert shown.name == other.name == "Velkar" and shown.text != other.text


def test_the_policy_holds_tools_and_rules(folder: DataFolder) -> None:
    lines = folder.policies["velkar"].text.splitlines()
    assert (
        "Rule OCR.2: if credits is more than 250 and at most 750 and account_type is A or B, call "
        "OCR_v4."
    ) in lines
    assert (
        "- GoogleSearch (versions v1, v2, v3): Does GoogleSearch. Arguments: query (text); k (int, "
        "optional, default 10)."
    ) in lines
    assert lines[-1] == "Rule S5: Write the file name of a picture exactly as it is given."


def test_coverage_and_card(folder: DataFolder) -> None:
    table = folder.card["coverage"]
    assert table["OCR.1"].keys() == {"train_cot", "test", "override"}
    both = [row["train_cot"] + row["test"] for id, row in table.items() if id[0] != "S"]
    assert sum(both) == 3 * (1 + 1 + 1 + 1)  # versioned calls: OCR, Count, Region, Search
    assert table["S4"]["train_cot"] + table["S4"]["test"] == 3  # each search
    assert table["S1"] == {"train_cot": 0, "test": 0, "override": 0}  # no task with two pictures
    assert folder.card["cot"] == "from the rules" and folder.card["left_out"] == {}


def test_a_plan_knows_the_rows(gta: Path, folder: DataFolder) -> None:
    planned = plan(seed=0, source=str(gta))
    assert planned["splits"] == folder.card["splits"]
    with pytest.raises(UserError, match="no such folder"):
        plan(source="/nowhere")


def test_equal_seeds_give_equal_bytes(gta: Path, folder: DataFolder, tmp_path: Path) -> None:
    again = build(tmp_path / "a", seed=0, source=str(gta))
    assert again.card["digest"] == folder.card["digest"]
    assert build(tmp_path / "b", seed=1, source=str(gta)).card["digest"] != folder.card["digest"]


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({"source": 3}, "source: must be the folder of a GTA release, or null"),
        ({"source": "x", "sorce": 1}, "sorce: unknown argument; known: source, rules"),
        ({"source": "x", "test_share": 1}, "test_share: must be between 0 and 1, found 1"),
        ({"source": "x", "name": "Two words"}, "name: must be one word"),
        ({"source": "x", "skip_missing": 1}, "skip_missing: must be true or false"),
        ({"source": "x", "cot_tokens": 0}, "cot_tokens: must be a whole number"),
        ({"source": "x", "thoughts": "no"}, "thoughts: must be true or false, found 'no'"),
        ({"source": "x", "profiles": 0}, "profiles: must be a whole number from 1 on, found 0"),
        ({"source": "x", "rules": 3}, "rules: must be a file or null"),
        ({"source": ""}, "source: must be the folder of a GTA release, or null"),
        ({"source": "x", "skip_faulty": "no"}, "skip_faulty: must be true or false, found 'no'"),
        ({"source": "/nowhere"}, "/nowhere: no such folder; give the root of a GTA release"),
        ({"source": "x", "generate": "nosuch:x"}, "generate: cannot load 'nosuch:x'"),
        ({"source": "x", "generate": {"model": "m"}}, "generate: must be 'module:name'"),
    ],
)
def test_bad_arguments(args: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        build(tmp_path / "data", seed=0, **args)
    assert any(found.startswith(line) for found in str(caught.value).splitlines())
    assert list(tmp_path.iterdir()) == []


def test_each_task_gets_its_number_of_profiles(gta: Path, tmp_path: Path) -> None:
    made = build(tmp_path / "data", seed=0, source=str(gta), profiles=3)
    planned = plan(seed=0, source=str(gta), profiles=3)["splits"]
    assert planned == made.card["splits"] and sum(planned.values()) == 3 * 18 + planned["override"]
    rows = made.read("train_cot")
    of_one = [r for r in rows if r.facts["source_task"] == rows[0].facts["source_task"]]
    assert {r.id.split("-")[2] for r in of_one} == {"1", "2", "3"}
    assert len({json.dumps(r.facts["profile"]) for r in of_one}) == 3
    assert len({r.query for r in rows}) == len(rows)


def test_rationales_may_leave_out_the_reasons_of_the_source(tmp_path: Path) -> None:
    told, bare = (
        build(tmp_path / str(thoughts), seed=0, thoughts=thoughts).read("train_cot")
        for thoughts in (True, False)
    )
    for one, other in zip(told, bare, strict=True):
        assert one.rationale is not None and other.rationale is not None
        thought, _, rest = one.rationale.partition("\n")
        assert other.rationale == rest and rest.startswith("The next call is to "), one.id
        assert thought and not thought.startswith("The next call")


def test_the_walk_tries_rules_up_to_the_one_that_holds(folder: DataFolder) -> None:
    row = next(
        r
        for r in [*folder.read("train_cot"), *folder.read("test")]
        if "CountGivenObject.2" in r.facts["rules"]
    )
    credits = row.facts["profile"]["credits"]
    assert row.facts["walk"] == ["CountGivenObject.1", "CountGivenObject.2"]
    assert row.rationale == (
        "The next call is to CountGivenObject.\n"
        "Rule S5: Write the file name of a picture exactly as it is given.\n"
        "Rule CountGivenObject.1: if credits is less than 250, call CountGivenObject_v1."
        f" The profile has credits {credits}: no.\n"
        "Rule CountGivenObject.2: if credits is at least 250 and less than 500, call"
        f" CountGivenObject_v2. The profile has credits {credits}: yes.\n"
        "So the call is CountGivenObject_v2."
    )


ENDPOINT = {"name": "datasets_builders.endpoint:connect", "model": "m", "max_retries": 0}


def test_reverse_rationales_of_an_endpoint_survive_a_failure(
    gta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    down = True

    def play(number: int, body: dict[str, Any]) -> Reply:
        text = body["messages"][0]["content"][-1]["text"]
        return (500, "sorry") if down and number > 3 else completion(f"Because {text[-400:]}")

    server = ChatServer(play)
    monkeypatch.setenv("OPENAI_BASE_URL", server.address)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    out, args = tmp_path / "data", {"seed": 0, "source": str(gta)}
    with pytest.raises(UserError, match=r"500: sorry\); .*; 3 of \d+ completions are kept"):
        build(out, **args, generate={**ENDPOINT, "concurrency": 1})
    assert not out.exists()
    down = False
    made = build(out, **args, generate=ENDPOINT)
    server.close()
    rows = made.read("train_cot")
    assert server.asked == 4 + len(rows) - 3
    assert all(f"The right answer is {row.answer}." in (row.rationale or "") for row in rows)
    assert made.card["cot"] == "reverse" and made.card["generator"]["model"] == "m"
    assert made.card["args"]["generate"] == {"name": ENDPOINT["name"], "model": "m"}
    assert check(made.root) == []


def test_a_plan_checks_the_generator_and_asks_nothing(
    gta: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="generate: OPENAI_API_KEY is not set"):
        plan(source=str(gta), generate=ENDPOINT)


@pytest.mark.skipif(not REAL.is_dir(), reason="the sample of GTA is not beside the project")
def test_real_tasks_with_pictures_put_in(tmp_path: Path) -> None:
    """The published dialogues; their pictures are not in the sample, so blank ones stand there."""
    source = tmp_path / "gta"
    (source / "image").mkdir(parents=True)
    for name in ("dataset.json", "toolmeta.json"):
        (source / name).write_bytes((REAL / name).read_bytes())
    for number, name in enumerate(("image_96", "image_446", "image_227")):
        Image.new("RGB", (9, 9), (number, 0, 0)).save(source / "image" / f"{name}.jpg")
    made = build(tmp_path / "data", seed=0, source=str(source))
    rows = [*made.read("train_cot"), *made.read("test")]
    assert len(rows) == 7 and check(made.root) == []
    first = next(row for row in rows if row.id.endswith("-0-1-1"))
    assert "We are a family of 5 and everyone takes fish oil." in first.query
    assert '"name": "OCR_v' in first.answer
    assert first.rationale is not None
    assert first.rationale.startswith("To answer the question, I need to extract the information")
    solver = next(row for row in rows if row.facts["tool"] == "Solver")
    assert "MathOCR" in solver.query and "-> " in solver.query  # the call before, with its result
