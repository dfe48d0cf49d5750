"""One request to a model: which model, which pictures, what is shown and what comes back."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from trimpi.ask import answer, read_policy, trained_models
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.generate import ScriptedGenerator
from trimpi.policy import Policy, TextPart
from trimpi.runs import write_json, write_text

TINY = "package://trimpi/models/tiny-vlm"


def scripted(text: str, seen: list[object] | None = None) -> ScriptedGenerator:
    def script(messages: list[dict[str, object]]) -> str:
        if seen is not None:
            seen.extend(messages)
        return text

    return ScriptedGenerator(script)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Image.new("RGB", (96, 64), (90, 120, 30)).save(file)
    return file


def run_folder(root: Path, arms: dict[str, list[str]], seeds: list[int]) -> Path:
    """A run whose stages are done; its models are copies of nothing."""
    recipe = {
        "name": "x",
        "seeds": seeds,
        "model": {"path": TINY, "max_pixels": 6144},
        "stages": {"sft": {"lr": 0.1}, "rl": {"lr": 0.1}},
        "arms": arms,
    }
    write_text(root / "recipe.yaml", json.dumps(recipe))
    write_json(root / "run.json", {})
    return root


def test_the_prompt_is_the_one_of_training_and_the_answer_is_taken_apart(picture: Path) -> None:
    seen: list[object] = []
    said = answer(
        TINY,
        "May it be shown?",
        [picture],
        Policy("Ostrel", (TextPart("R1. Everything may."),)),
        generator=scripted("<think> I look. </think> \\boxed{yes}", seen),
    )
    assert (said.rationale, said.answer, said.truncated) == ("I look.", "yes", False)
    content = seen[0]["content"]  # type: ignore[index]
    assert [part["type"] for part in content] == ["text", "text", "image", "text"]
    assert content[0]["text"] == "R1. Everything may."
    assert content[-1]["text"].startswith("May it be shown?\nThink inside")


def test_a_real_model_answers_and_counts_its_prompt(picture: Path) -> None:
    said = answer(TINY, "Is there a red object?", [picture], target="answer", max_new_tokens=8)
    assert said.prompt_tokens is not None and said.prompt_tokens > 24
    assert said.answer in ("Yes", "No")


def test_every_bad_picture_is_told_at_once(tmp_path: Path, picture: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:60])
    with pytest.raises(UserError) as caught:
        answer(TINY, "x", [tmp_path / "none.png", broken], generator=scripted("y"))
    lines = str(caught.value).splitlines()
    huge = tmp_path / "huge.png"
    Image.new("1", (10_000, 5_001)).save(huge)
    with pytest.raises(UserError, match="10000 x 5001 pixels are more than 50 megapixels"):
        answer(TINY, "x", [huge], generator=scripted("y"))
    assert "none.png: no such file" in lines[0] and "broken.png: not a whole picture" in lines[1]


@pytest.mark.parametrize(
    ("model", "options", "line"),
    [
        ("/nowhere/at/all", {}, "/nowhere/at/all: no such model folder"),
        (TINY, {"arm": "main"}, "--arm: package://trimpi/models/tiny-vlm is no run folder"),
        (TINY, {"seed": 1}, "--seed: package://trimpi/models/tiny-vlm is no run folder"),
        ("package://trimpi/models/tiny-vm", {}, "MODEL: package 'trimpi' holds no folder"),
    ],
)
def test_wrong_models(model: str, options: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as caught:
        answer(model, "x", generator=scripted("y"), **options)  # type: ignore[arg-type]
    assert str(caught.value).startswith(line)


def test_an_empty_query_is_refused() -> None:
    with pytest.raises(UserError, match="QUERY: it is empty"):
        answer(TINY, " \n", generator=scripted("y"))


def test_models_of_a_run_are_those_that_are_done(tmp_path: Path) -> None:
    run = run_folder(tmp_path, {"base": [], "sft": ["sft"], "all": ["sft", "rl"]}, [0, 3])
    for seed, chain in ((0, "sft"), (3, "sft"), (3, "sft+rl")):
        write_json(run / f"seed-{seed}" / chain / "done.json", {"identity": {}})
    found = trained_models(run)
    assert {(arm, seed) for arm, seed in found} == {("sft", 0), ("sft", 3), ("all", 3)}
    assert found["all", 3] == run / "seed-3" / "sft+rl" / "model"


def test_arm_and_seed_of_a_run(tmp_path: Path) -> None:
    run = run_folder(tmp_path, {"sft": ["sft"], "all": ["sft", "rl"]}, [0, 3])
    with pytest.raises(UserError, match="no trained model in this run"):
        answer(str(run), "x", generator=scripted("y"))
    for chain in ("sft", "sft+rl"):
        write_json(run / "seed-3" / chain / "done.json", {"identity": {}})
    for options, line in (
        ({}, "--arm: the run has sft, all; name one"),
        ({"arm": "al"}, "--arm al: no trained arm of that name; did you mean 'all'?"),
        ({"arm": "all", "seed": 0}, "--seed 0: arm all is trained with 3"),
    ):
        with pytest.raises(UserError) as caught:
            answer(str(run), "x", generator=scripted("y"), **options)  # type: ignore[arg-type]
        assert str(caught.value) == line


def test_policies_are_read_in_both_forms(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("---\nname: Ostrel\n---\nAll may.\n")
    assert read_policy(tmp_path / "p.md").name == "Ostrel"
    record = {"name": "Ostrel", "parts": [{"text": "All may."}], "metadata": {}}
    write_json(tmp_path / "policies" / "a" / "ostrel.json", record)
    assert read_policy(tmp_path / "policies" / "a" / "ostrel.json").text == "All may."
    with pytest.raises(UserError, match="no such policy file"):
        read_policy(tmp_path / "none.json")


def test_the_command_prints_json_and_exits_with_2_on_bad_input(picture: Path) -> None:
    runner = CliRunner()
    arguments = ["ask", TINY, "-", "--image", str(picture), "--target", "answer", "--json"]
    done = runner.invoke(app, [*arguments, "--max-new-tokens", "8"], input="Is there a cube?")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["answer"] in ("Yes", "No")
    wrong = runner.invoke(app, ["ask", TINY, "x", "--target", "both"])
    assert wrong.exit_code == 2 and "--target both: must be cot or answer" in wrong.output


def test_the_command_tells_all_faults_of_its_options_at_once(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    words = ["ask", TINY, "x", "--target", "both", "--image", none, "--policy", f"{none}.md"]
    wrong = CliRunner().invoke(app, words)
    first, second, third = wrong.stderr.splitlines()
    assert wrong.exit_code == 2 and "--target both" in first
    assert f"--image {none}: no such file" in second and f"{none}.md: cannot be read" in third
