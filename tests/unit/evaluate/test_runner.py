"""The loop: settings, resuming, reuse, regrading."""

import json
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.clevr.grader import diagnose, grade
from tests.evaluation_fakes import (
    DIAGNOSE,
    FakePrefill,
    FakeServer,
    Scripted,
    Skill,
    pretend,
    prompt_text,
)
from trimpi.errors import UserError
from trimpi.evaluate import evaluate_model, regrade
from trimpi.evaluate.runner import graded_otherwise
from trimpi.evaluate.settings import build_requests
from trimpi.evaluate.store import read_rows
from trimpi.grading import Grader, exact_answer
from trimpi.recipe import Recipe
from trimpi.sample import Completion, DataFolder, Sample, Score


def recipe_of(**evaluation: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "test",
            "model": {"path": "unused"},
            "data": {"folder": "unused"},
            "evaluation": {"batch_size": 1, "max_new_tokens": 400} | evaluation,
        }
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def run(
    model: Path,
    data: DataFolder,
    output: Path,
    generator: Any,
    *,
    grader: Grader = grade,
    skills: DataFolder | None = None,
    **evaluation: Any,
) -> dict[str, Any]:
    settings = {"settings": ["no_policy"]} | evaluation
    if skills is not None:
        settings["skills"] = {"folder": "unused"}
    found = evaluate_model(
        model,
        recipe_of(**settings),
        data,
        skills,
        output,
        grader,
        0,
        generator=generator,
        prefill=FakePrefill(),
        server=FakeServer(),
    )
    return dict(found["settings"])


def perfect(data: DataFolder, skills: DataFolder | None = None) -> Scripted:
    return Scripted(pretend(Skill(1.0, recite=1.0, general=1.0), data, skills, 0))


def test_all_settings_of_a_perfect_model(
    model: Path, clevr: DataFolder, skills: DataFolder, tmp_path: Path
) -> None:
    found = run(
        model,
        clevr,
        tmp_path / "eval",
        perfect(clevr, skills),
        skills=skills,
        settings=["no_policy", "in_context", "override", "recital", "skills", "efficiency"],
        diagnose=DIAGNOSE,
    )
    assert list(found) == [
        "no_policy",
        "in_context",
        "override",
        "recital",
        "recital_in_context",
        "skills",
        "efficiency",
    ]
    for name in list(found)[:-1]:
        assert found[name]["accuracy"]["value"] == 1.0, name
    assert [found[n]["policy_in_prompt"] for n in list(found)[:5]] == [
        False,
        True,
        True,
        False,
        True,
    ]
    assert found["override"]["original_share"]["value"] == 0.0
    assert found["no_policy"]["diagnosis"]["first_errors"]["none"] == found["no_policy"]["rows"]
    assert found["no_policy"]["diagnosis"]["citation_difference"] == 0.0
    assert set(found["skills"]["by_task"]) == {s.facts["task"] for s in skills.read("test")}
    saved = json.loads((tmp_path / "eval" / "no_policy" / "summary.json").read_text())
    assert saved == found["no_policy"]


def test_settings_show_the_right_policy(clevr: DataFolder, skills: DataFolder) -> None:
    def texts(setting: str) -> list[str]:
        requests = build_requests(setting, clevr, skills, target="cot")
        return [prompt_text(request.messages) for request in requests]

    rows = clevr.read("test")
    for text, sample in zip(texts("no_policy"), rows, strict=True):
        assert "Section" not in text and sample.query in text
    for text, sample in zip(texts("in_context"), rows, strict=True):
        assert text.startswith(clevr.policies[sample.policy or ""].text)
    for text, sample in zip(texts("override"), clevr.read("override"), strict=True):
        assert sample.policy is not None and sample.policy.startswith("override/")
        assert text.startswith(clevr.policies[sample.policy].text)
    for text, sample in zip(texts("skills"), skills.read("test"), strict=True):
        policy = skills.policy_of(sample)
        assert text.startswith(policy.text if policy else sample.query)
        assert ("<think>" in text) == (sample.rationale is not None)


def test_facts_never_reach_a_prompt(clevr: DataFolder, skills: DataFolder) -> None:
    for setting in ("no_policy", "in_context", "override", "recital", "skills"):
        for request in build_requests(setting, clevr, skills, target="cot"):
            text = prompt_text(request.messages)
            assert "pixel_coords" not in text and "'condition'" not in text


def test_an_interrupted_evaluation_goes_on_and_counts_each_row_once(
    model: Path, clevr: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.evaluate.runner.CHUNK_BATCHES", 5)
    answer = pretend(Skill(0.7), clevr, None, 3)
    whole = run(model, clevr, tmp_path / "whole", Scripted(answer))
    output = tmp_path / "eval"
    with pytest.raises(KeyboardInterrupt):
        run(model, clevr, output, Scripted(answer, die_after=2))
    file = output / "no_policy" / "completions.jsonl"
    assert len(read_rows(file)) == 10
    assert not (output / "no_policy" / "summary.json").exists()
    # a kill in the middle of a write: one chunk half there, its last line cut
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:7]) + lines[7][: len(lines[7]) // 2])
    second = Scripted(answer)
    resumed = run(model, clevr, output, second)
    assert second.asked == [5, 5, 1]
    assert [row["sample_id"] for row in read_rows(file)] == [s.id for s in clevr.read("test")]
    assert resumed == whole
    assert file.read_bytes() == (tmp_path / "whole/no_policy/completions.jsonl").read_bytes()


def test_a_finished_evaluation_is_reused_until_something_changes(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    output = tmp_path / "eval"
    first = run(model, clevr, output, perfect(clevr))
    silent = Scripted(lambda messages: "", die_after=0)
    assert run(model, clevr, output, silent) == first
    # another grader: graded again, nothing generated
    strict = run(model, clevr, output, silent, grader=lambda s, c: Score(0.0))
    assert strict["no_policy"]["accuracy"]["value"] == 0.0
    # another limit or model: generated again, the old folder kept aside
    fewer = run(model, clevr, output, perfect(clevr), limit=4)
    assert fewer["no_policy"]["rows"] == 4
    (model / "config.json").write_text('{"changed": 1}')
    wrong = run(model, clevr, output, Scripted(lambda messages: "no idea"), limit=4)
    assert wrong["no_policy"]["accuracy"]["value"] == 0.0
    assert sorted(p.name for p in output.iterdir()) == [
        "no_policy",
        "no_policy.old-1",
        "no_policy.old-2",
    ]


def test_regrade_needs_neither_model_nor_data(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    output = tmp_path / "eval"
    run(model, clevr, output, Scripted(pretend(Skill(0.6, recite=0.5), clevr, None, 1)),
        settings=["no_policy", "recital"])  # fmt: skip
    before = json.loads((output / "no_policy" / "summary.json").read_text())
    assert "diagnosis" not in before and 0 < before["accuracy"]["value"] < 1

    def lenient(sample: Sample, completion: Completion) -> Score:
        return Score(float(Path(sample.images[0]).is_file()))

    assert regrade(output / "no_policy", lenient)["accuracy"]["value"] == 1.0
    moved = tmp_path / "elsewhere" / "eval"  # out of reach of the data folder
    moved.parent.mkdir()
    output.rename(moved)
    again = regrade(moved, exact_answer, diagnose)["settings"]
    assert again["no_policy"]["accuracy"] == before["accuracy"]
    assert again["no_policy"]["diagnosis"]["rows"] == before["rows"]
    assert "diagnosis" not in again["recital"]
    assert 0 < again["recital"]["parts"]["similarity"] <= 1  # kept its own grader


def test_scores_of_another_grader_are_noticed(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    output = tmp_path / "eval"
    run(model, clevr, output, Scripted(pretend(Skill(1.0), clevr, None, 0)), diagnose=DIAGNOSE)
    assert graded_otherwise(output, grade, diagnose) == []
    assert graded_otherwise(output, grade) == ["no_policy"]
    regrade(output, exact_answer, diagnose)
    assert graded_otherwise(output, grade, diagnose) == ["no_policy"]
    regrade(output, grade, diagnose)
    assert graded_otherwise(output, grade, diagnose) == []


def test_a_grader_may_say_what_its_scores_depend_on(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    class Judge:
        about = "answers are compared by a model"

        def __init__(self, name: str) -> None:
            self.identity = f"judge {name}"

        def __call__(self, sample: Sample, completion: Completion) -> Score:
            return grade(sample, completion)

    output = tmp_path / "eval"
    found = run(model, clevr, output, perfect(clevr), grader=Judge("one"))
    assert found["no_policy"]["grading"] == "answers are compared by a model"
    assert found["no_policy"]["identity"]["grader"] == "judge one"
    assert graded_otherwise(output, Judge("one")) == []
    assert graded_otherwise(output, Judge("two")) == ["no_policy"]
    assert run(model, clevr, tmp_path / "b", perfect(clevr))["no_policy"]["grading"] == ""

    class Silent:
        def __call__(self, sample: Sample, completion: Completion) -> Score:
            return grade(sample, completion)

    run(model, clevr, output, perfect(clevr), grader=Silent())
    assert graded_otherwise(output, Silent()) == []


def test_a_last_row_cut_inside_of_a_letter_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    whole = '{"text": "色"}\n'.encode()
    file.write_bytes(whole + whole[:11])
    assert read_rows(file, torn=True) == [{"text": "色"}]
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not JSON"):
        read_rows(file)


def test_regrade_refuses_a_folder_that_is_not_complete(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="not the folder of an evaluated setting"):
        regrade(tmp_path, exact_answer)
    run(model, clevr, tmp_path / "eval", perfect(clevr))
    file = tmp_path / "eval" / "no_policy" / "completions.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="15 of 16 completions"):
        regrade(tmp_path / "eval" / "no_policy", exact_answer)
    with pytest.raises(UserError, match="needs a grader"):
        regrade(tmp_path / "eval" / "no_policy")


def test_answers_only_are_asked_for_and_not_diagnosed(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    generator = Scripted(pretend(Skill(1.0, reasons=False), clevr, None, 0))
    found = run(model, clevr, tmp_path / "eval", generator, target="answer", diagnose=DIAGNOSE)
    assert found["no_policy"]["target"] == "answer"
    assert found["no_policy"]["well_formed"] == 1.0
    assert "diagnosis" not in found["no_policy"]


def test_efficiency_compares_the_same_requests(
    model: Path, clevr: DataFolder, tmp_path: Path
) -> None:
    found = run(model, clevr, tmp_path / "eval", None, settings=["efficiency"])["efficiency"]
    rows = clevr.read("test")
    policy = [len(clevr.policies[s.policy or ""].text.split()) for s in rows]
    tokens = found["prompt_tokens"]
    assert tokens["with_policy"] - tokens["without_policy"] == pytest.approx(
        sum(policy) / len(policy)
    )
    assert tokens["saved"] == pytest.approx(1 - tokens["without_policy"] / tokens["with_policy"])
    assert found["prefill_seconds"]["with_policy"] > found["prefill_seconds"]["without_policy"]
    assert found["requests"] == len(rows) and found["timed"] == 8


def test_missing_pieces_are_one_line(model: Path, clevr: DataFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such split"):
        run(model, clevr, tmp_path / "eval", perfect(clevr), split="dev")
    with pytest.raises(UserError, match="needs a skills folder"):
        build_requests("skills", clevr, None, target="cot")
    with pytest.raises(UserError, match="no such model folder"):
        run(tmp_path / "nowhere", clevr, tmp_path / "eval", perfect(clevr))


def test_retrieved_shows_some_sections_and_says_how_many(
    model: Path, clevr: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[str] = []

    def answer(messages: Any) -> str:
        asked.append(prompt_text(messages))
        return "\\boxed{Case 1}"

    found = run(
        model, clevr, tmp_path / "a", Scripted(answer), settings=["retrieved"],
        retrieval={"sections": 2},
    )["retrieved"]  # fmt: skip
    assert {text.count("is there a") for text in asked} == {2}
    assert all("Start at Condition 1" in text or "Condition 1" in text for text in asked)
    assert found["policy_in_prompt"]
    assert found["retrieval"] == {
        "sections": 2, "keep_head": True, "shown": 2.0, "of": 3.0, "whole": 0.0
    }  # fmt: skip
    assert "each is shown whole" not in capsys.readouterr().out
    whole = run(model, clevr, tmp_path / "b", Scripted(answer), settings=["retrieved"])
    assert whole["retrieved"]["retrieval"]["whole"] == 1.0
    said = capsys.readouterr().out
    assert "no policy has more than 3 sections, so each is shown whole; lower" in said
