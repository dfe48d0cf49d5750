"""The document builder from end to end: files in, data folder out, or all faults and nothing."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from datasets_builders.check import check
from datasets_builders.document.arguments import located, parse
from datasets_builders.document.builder import build, identity, in_recipe, plan
from trimpi.data_step import prepare_data
from trimpi.errors import UserError
from trimpi.recipe import DataConfig
from trimpi.recipe_file import load_recipe
from trimpi.sample import DataFolder, Sample, Score

POLICY = """---
name: Ostrel
attributes:
  item: [knife, bottle]
---
# Things ![](demo.png)
- **R1.** If item is knife, the response is `block`.
- **R2.** Otherwise, the response is `allow`.
"""
CHOICE = {"type": "choice", "options": ["block", "allow", "warn"]}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """policy.md with a picture, examples.jsonl with 20 pictures."""
    (tmp_path / "policy.md").write_text(POLICY)
    Image.new("RGB", (5, 5), "white").save(tmp_path / "demo.png")
    rows = []
    for number in range(20):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
        item, answer = (("knife", "block"), ("bottle", "allow"))[number % 2]
        rows.append({"images": f"{number}.png", "query": "May Ostrel show it?", "answer": answer,
                     "facts": {"item": item}})  # fmt: skip
    write(tmp_path, rows)
    return tmp_path


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "examples.jsonl").read_text().splitlines()]


def arguments(folder: Path, **more: Any) -> dict[str, Any]:
    files = {"policy": str(folder / "policy.md"), "examples": str(folder / "examples.jsonl")}
    return {**files, "grader": CHOICE, **more}


def built(folder: Path, **more: Any) -> DataFolder:
    return build(folder / "data", seed=0, progress=False, **arguments(folder, **more))


def refused(folder: Path, **more: Any) -> list[str]:
    with pytest.raises(UserError) as error:
        built(folder, **more)
    assert not [p.name for p in folder.iterdir() if p.name.endswith((".partial", "data"))]
    with pytest.raises(UserError):
        plan(**arguments(folder, **more))
    return str(error.value).splitlines()


def test_a_data_folder_that_checks(project: Path) -> None:
    data = built(project)
    assert check(data.root) == []
    assert data.splits == ("test", "train_cot")
    assert data.card["splits"] == {"test": 4, "train_cot": 16}
    assert data.card["rationales"] == {"given": 0, "from the rules": 20, "none": 0}
    assert data.card["cot"] == "gold walk"
    first = data.read("train_cot")[0]
    assert first.policy == "ostrel" and first.facts["rules"] in (["R1"], ["R2"])
    assert first.rationale is not None and first.rationale.startswith("Rule R1: If item is knife")
    assert len(data.policies["ostrel"].images) == 1
    assert str(project) not in (data.root / "card.json").read_text()


def test_the_plan_is_what_is_built(project: Path) -> None:
    planned = plan(**arguments(project), seed=0)
    assert planned["splits"] == built(project).card["splits"]
    assert planned["notes"] == []


def test_equal_content_gives_equal_bytes_from_other_files(project: Path, tmp_path: Path) -> None:
    first = built(project).card["digest"]
    rows = [{**row, "images": [row["images"]]} for row in rows_of(project)]
    write(project, rows)
    second = build(project / "again", seed=0, progress=False, **arguments(project))
    assert second.card["digest"] == first


def test_check_finds_an_answer_that_the_rules_do_not_give(project: Path) -> None:
    data = built(project)
    file = data.root / "test.jsonl"
    row, *rest = [json.loads(line) for line in file.read_text().splitlines()]
    row["facts"]["item"] = {"knife": "bottle", "bottle": "knife"}[row["facts"]["item"]]
    file.write_text("\n".join(json.dumps(r) for r in [row, *rest]) + "\n")
    problems = check(data.root)
    assert any("test.jsonl:1: decided by R" in problem for problem in problems)


def test_labels_alone_train_by_their_answers(project: Path) -> None:
    (project / "policy.md").write_text("---\nname: Ostrel\n---\nNo knives.\n")
    data = built(project)
    assert data.splits == ("test", "train")
    assert data.card["rationales"] == {"given": 0, "from the rules": 0, "none": 20}
    (note,) = data.card["notes"]
    assert note.startswith(str(project / "policy.md") + ": no rules with ids")


def test_all_faults_at_once_and_nothing_written(project: Path) -> None:
    rows = rows_of(project)
    whole = (project / "0.png").read_bytes()
    (project / "0.png").write_bytes(whole[: len(whole) // 2])
    rows[1]["answer"] = "alow"
    rows[2]["answer"] = "warn"
    rows[3]["images"] = "none.png"
    write(project, rows)
    file = project / "examples.jsonl"
    faults = refused(project)
    assert [fault.split(": ")[0].removeprefix(str(file)) for fault in faults] == [
        ":1", ":2", ":3", ":4"]  # fmt: skip
    text = "\n".join(faults)
    assert "images: 'none.png' is not there" in text
    assert "images: 0.png is not a whole picture" in text
    assert "answer 'warn', but rule R1 gives 'block' for item knife" in text
    assert "'alow'" in text


def test_faults_of_the_policy_and_of_the_rows_are_told_together(project: Path) -> None:
    policy = project / "policy.md"
    policy.write_bytes(POLICY.encode() + "Große Messer.\n".encode("latin-1"))
    rows = rows_of(project)
    rows[1]["answer"] = "alow"
    rows[3]["images"] = "none.png"
    rows[5]["query"] = ""
    rows[7]["policy"] = "Ostrel"  # it may well be: its file does not say
    write(project, rows)
    file = project / "examples.jsonl"
    file.write_bytes(file.read_bytes().replace(b"May Ostrel show it?", b"Gr\xf6\xdfe?", 1))
    assert [fault.split(": ")[0].rpartition("/")[2] for fault in refused(project)] == [
        "policy.md:9", "examples.jsonl:1", "examples.jsonl:2", "examples.jsonl:4",
        "examples.jsonl:6"]  # fmt: skip


def test_conversations_wait_for_their_policy(project: Path) -> None:
    (project / "policy.md").write_bytes(b"---\nname: \xff\n---\nNo knives.\n")
    turn = {"role": "user", "content": "No knives.\nMay it be shown?"}
    said = {"role": "assistant", "content": "block"}
    write(project, [{"messages": [turn, said], "images": []}])
    assert [fault.split(": ")[0] for fault in refused(project)] == [f"{project}/policy.md:2"]


def raises(sample: Sample, completion: object) -> Score:
    raise RuntimeError("lost its model")


def generous(sample: Sample, completion: object) -> Score:
    return Score(1.0)


def odd(sample: Sample, completion: object) -> Score:
    return Score(float("nan"))


@pytest.mark.parametrize(
    ("grader", "words"),
    [
        (f"{__name__}:raises", "failed with RuntimeError: lost its model; mend the grader"),
        (f"{__name__}:odd", "gave the value nan"),
        (f"{__name__}:generous", "grader: gives 1 to any label ("),
        ({"type": "choice", "options": ["block", "warn"]}, "'allow'"),
        ("no.such:grader", "grader: no module 'no'"),
    ],
)
def test_graders_that_do_not_do(project: Path, grader: Any, words: str) -> None:
    faults = refused(project, grader=grader)
    assert words in faults[0]
    if not faults[0].startswith("grader"):
        assert faults[0].startswith(f"{project / 'examples.jsonl'}:")


def test_contradictory_labels_are_told(project: Path) -> None:
    rows = rows_of(project)
    for row in rows:
        del row["facts"]
    rows.append({**rows[0], "answer": "allow"})
    write(project, rows)
    notes = plan(**arguments(project))["notes"]
    file = project / "examples.jsonl"
    assert notes[-1] == (
        f"{file}:1: contradictory labels for the same request and pictures: 'block' in {file}:1; "
        f"'allow' in {file}:21"
    )


def test_requests_that_do_not_name_their_policy(project: Path) -> None:
    (project / "other.md").write_text("---\nname: Pernik\n---\nAll is fine.\n")
    rows = [{"images": r["images"], "query": "May it be shown?", "answer": a, "policy": p}
            for r in rows_of(project) for p, a in (("o", r["answer"]), ("p", "allow"))]  # fmt: skip
    write(project, rows)
    policies = {"o": str(project / "policy.md"), "p": str(project / "other.md")}
    notes = plan(**arguments(project, policy=policies))["notes"]
    assert any(note.startswith("query: 20 rows have the request and pictures") for note in notes)


def test_an_override_by_rules(project: Path) -> None:
    (project / "v2.md").write_text(POLICY.replace("`block`", "`warn`"))
    data = built(project, override=str(project / "v2.md"))
    assert check(data.root) == []
    rows = data.read("override")
    assert {row.policy for row in rows} == {"override/ostrel"} and len(rows) == 4
    assert {(r.facts["original_answer"], r.answer, r.facts["changed"]) for r in rows} == {
        ("block", "warn", True), ("allow", "allow", False)}  # fmt: skip


def test_an_override_with_rows_of_its_own(project: Path) -> None:
    (project / "v2.md").write_text("---\nname: Ostrel\n---\nAll is forbidden.\n")
    rows = [{**row, "answer": "block", "facts": {}} for row in rows_of(project)[:3]]
    (project / "v2.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for row in range(3):
        Image.new("RGB", (8, 8), (row, 9, 0)).save(project / f"v{row}.png")
    text = (project / "v2.jsonl").read_text()
    for row in range(3):
        text = text.replace(f'"{row}.png"', f'"v{row}.png"')
    (project / "v2.jsonl").write_text(text)
    over = {"policy": str(project / "v2.md"), "examples": str(project / "v2.jsonl")}
    assert [row.answer for row in built(project, override=over).read("override")] == ["block"] * 3
    (project / "v2.md").write_text("---\nname: Pernik\n---\nAll is forbidden.\n")
    with pytest.raises(UserError, match="an override is another version of a policy, of the same"):
        plan(**arguments(project, override=over))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "policy: required argument is missing"),
        ({"policy": {"a/b": "x"}}, "policy.a/b: 'a/b' must be letters, digits, '-' and '_'"),
        ({"examples": 3}, "examples: must be a path or a mapping of names to paths, found 3"),
        ({"splits": {"test": 0.5}}, "splits: the shares add up to 0.5; make them 1"),
        ({"splits": {"test": 2}}, "splits.test: must be a number above 0 and up to 1, found 2"),
        ({"trust": "me"}, "trust: must be rules or labels, found 'me'"),
        ({"polisy": "x"}, "polisy: unknown argument; did you mean 'policy'?"),
        ({"delimiter": "x"}, "delimiter: must be one of ',', ';', a tab, '|' or null, found 'x'"),
        ({"override": {"policies": "x"}}, "override.policies: unknown key; did you mean 'policy'?"),
        ({"cot_tokens": 0}, "cot_tokens: must be a whole number from 1 on, found 0"),
        ({"generate": 3}, "generate: must be 'module:name'"),
    ],
)
def test_wrong_arguments(args: Mapping[str, Any], words: str) -> None:
    with pytest.raises(UserError) as error:
        parse(args)
    assert any(line.startswith(words) for line in str(error.value).splitlines())


def test_paths_are_relative_to_the_recipe_and_hub_ids_stay(tmp_path: Path) -> None:
    args = {"policy": {"p": "p.md"}, "examples": {"train": "owner/name", "test": "data/t.csv"},
            "override": {"policy": "v2.md", "examples": "o/n.jsonl"}, "query": "p.md"}  # fmt: skip
    assert located(args, tmp_path) == {
        "policy": {"p": f"{tmp_path}/p.md"},
        "examples": {"train": "owner/name", "test": f"{tmp_path}/data/t.csv"},
        "override": {"policy": f"{tmp_path}/v2.md", "examples": f"{tmp_path}/o/n.jsonl"},
        "query": "p.md",
    }


RECIPE = """
name: small
model: {path: package://trimpi/models/tiny-vlm}
data:
  builder: datasets_builders.document.builder:build
  args: {policy: policy.md, examples: examples.jsonl}
grader: {type: choice, options: [block, allow, warn]}
stages: {sft: {}}
"""


def test_a_recipe_gives_its_folder_and_its_grader(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    args = load_recipe(project / "recipe.yaml").data.args
    assert args == {**arguments(project), "grader": CHOICE}
    assert in_recipe(args, folder=tmp_path, grader=CHOICE) == args
    with pytest.raises(UserError, match=r"data\.args\.grader: is another one than the recipe's"):
        load_recipe(project / "recipe.yaml", ["data.args.grader={type: exact}"])


def test_an_edit_is_noticed_and_a_moved_project_is_known(project: Path, tmp_path: Path) -> None:
    def prepare(folder: Path, said: list[str], **more: Any) -> None:
        config = DataConfig(
            builder="datasets_builders.document.builder:build", args=arguments(folder)
        )
        prepare_data(config, tmp_path / "run" / "data", "data", said.append, **more)

    said: list[str] = []
    (tmp_path / "run").mkdir()
    prepare(project, said)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in [*project.glob("*.md"), *project.glob("*.png"), project / "examples.jsonl"]:
        file.rename(moved / file.name)
    prepare(moved, said)
    assert said[-1].startswith("data: there already")
    (moved / "policy.md").write_text(POLICY.replace("Things", "All things"))
    with pytest.raises(UserError, match="built with other arguments than data asks for"):
        prepare(moved, said)
    prepare(moved, said, overwrite=True)
    assert said[-1].startswith("data: built in")
    (moved / "examples.jsonl").unlink()
    prepare(moved, said)
    assert "taken as built, since what they were built from does not read" in said[-2]


def test_identity_holds_no_paths(project: Path) -> None:
    told = identity(**arguments(project))
    assert str(project) not in json.dumps(told) and told["grader"] == CHOICE


def test_texts_about_the_policy_are_written_and_counted_before(project: Path) -> None:
    wanted = {"per_rule": 2, "oversample": 1}
    told = plan(**arguments(project, policy_text=wanted))["splits"]
    data = built(project, policy_text=wanted)
    assert check(data.root) == []
    assert len(data.read("policy_text")) == told["policy_text"] >= 4
    with pytest.raises(
        UserError, match=r"policy_text\.per_rul: unknown key; did you mean 'per_rule'"
    ):
        plan(**arguments(project, policy_text={"per_rul": 2}))
