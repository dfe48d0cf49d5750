"""`trimpi compare`: what pairs, what is refused, what is said; and the same in a report."""

import contextlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from tests.benchmark_fakes import backend, wild_row, write
from tests.evaluation_fakes import Scripted, prompt_text
from trimpi.benchmarks import mmlu_pro, wildguard
from trimpi.benchmarks.items import Item, Options, user_turn
from trimpi.benchmarks.run import Settings, load_items, run_suite
from trimpi.benchmarks.source import Source
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.evaluate.runner import run_setting
from trimpi.evaluate.settings import Request
from trimpi.evaluate.store import read_rows, write_rows
from trimpi.grading import Score, exact_answer
from trimpi.report import write_report
from trimpi.runs import read_json, write_json
from trimpi.sample import Completion, Sample


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def compared(*words: Any) -> tuple[dict[str, Any], str]:
    """What --json holds, and what is printed."""
    file = Path(str(words[0])).parent / "compared.json"
    result = call("compare", *words, "--json", file)
    assert result.exit_code == 0, result.output
    return dict(json.loads(file.read_text())), result.stdout


def faults(*words: Any) -> list[str]:
    result = call("compare", *words)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    return [line.removeprefix("error: ") for line in result.stderr.splitlines()]


def questions(count: int = 12, text: str = "Q") -> list[Item]:
    """Half of them physics, gold B."""
    return [
        Item(f"q{n}", "physics" if n % 2 else "law", user_turn(f"{text} {n} ?"), "B", ("x", "y"))
        for n in range(count)
    ]


def suite(out: Path, right: Sequence[int], items: list[Item], **how: Any) -> Path:
    """A benchmark whose model has these rows right; -n is a row n without a readable answer."""

    def answer(messages: Any) -> str:
        number = int(prompt_text(messages).split()[1])
        said = "B" if number in right else "A"
        return "no idea" if -number in right and number else f"The answer is ({said})."

    generator: Any = Scripted(answer, die_after=how.pop("die_after", None))
    with contextlib.suppress(KeyboardInterrupt):
        run_suite(
            mmlu_pro.SUITE, Source("here"), items, out,
            Settings(Options(), **how), backend(generator, name=str(out)),
        )  # fmt: skip
    return out / "mmlu_pro"


def setting(
    out: Path, right: Sequence[int], name: str = "skills", rows: int = 8,
    grade: Callable[[Sample, Completion], Score] = exact_answer, **change: Any,
) -> Path:  # fmt: skip
    """A setting whose model has these rows right."""
    samples = [
        Sample(**{
            "id": f"s{n}", "images": (), "query": f"row {n} ?", "answer": "yes", "policy": None,
            "facts": {"task": "count" if n < 4 else "exist"}, **change,
        })
        for n in range(rows)
    ]  # fmt: skip

    def answer(messages: Any) -> str:
        return "\\boxed{yes}" if int(prompt_text(messages).split()[1]) in right else "\\boxed{no}"

    run_setting(
        name, [Request(s, None, "answer") for s in samples], out / name, root=out,
        generate=lambda: Scripted(answer), identity={"model": str(out)}, grader=grade,
        max_new_tokens=8,
    )  # fmt: skip
    return out / name


def test_two_suites(tmp_path: Path) -> None:
    before = suite(tmp_path / "a", range(12), questions())
    after = suite(tmp_path / "b", [0, 2, 4, 6, 8, 10], questions())
    found, text = compared(before, after)
    (one,) = found["comparisons"]
    change = one["all"]["difference"]
    assert (one["all"]["before"], one["all"]["after"], change["rows"]) == (1.0, 0.5, 12)
    assert (change["value"], change["lost"], change["gained"]) == (-0.5, 6, 0)
    assert change["p"] == 2 / 64 and change["high"] < 0 and change["p_adjusted"] is None
    physics = one["by_task"]["physics"]["difference"]
    assert physics["p"] == 2 / 64 and physics["p_adjusted"] == 4 / 64  # two categories, Holm
    assert one["by_task"]["law"]["difference"]["p_adjusted"] == 1.0
    assert one["line"].startswith("forgetting (mmlu_pro): -50.0 points [-")
    assert one["line"].endswith("], significant (p = 0.031, exact McNemar, 12 rows)")
    assert one["line"] in text and "adjusted for their number (Holm)" in text
    row = next(line.split() for line in text.splitlines() if line.startswith("physics"))
    assert row[1:5] == ["6", "100.0", "0.0", "-100.0"] and row[-3:] == ["6", "0", "0.062"]


def test_folders_of_results_and_what_one_alone_has(tmp_path: Path) -> None:
    for side, right in (("a", [0, 1]), ("b", [0, 1, 2])):
        suite(tmp_path / side, right, questions())
        setting(tmp_path / side, right)
    setting(tmp_path / "b", [0], name="extra")
    (tmp_path / "a" / "pictures").mkdir()
    found, text = compared(tmp_path / "a", tmp_path / "b")
    assert {one["name"] for one in found["comparisons"]} == {"mmlu_pro", "skills"}
    assert (found["only_before"], found["only_after"]) == ([], ["extra"])
    assert "after alone, not compared: extra" in text
    assert "forgetting (skills): +12.5 points" in text


def test_seeds_are_averaged_row_by_row(tmp_path: Path) -> None:
    before = setting(tmp_path / "a", range(8))
    seeds = [setting(tmp_path / str(s), right) for s, right in enumerate([range(8), range(4)])]
    found, text = compared(before, *seeds)
    change = found["comparisons"][0]["all"]
    assert change["after"] == 0.75 and change["difference"]["test"] == "paired bootstrap"
    assert change["difference"]["lost"] == 4
    assert "seeds averaged row by row: 1 before, 2 after" in text


def test_other_rows_pair_by_id(tmp_path: Path) -> None:
    before = suite(tmp_path / "a", range(12), questions(12))
    after = suite(tmp_path / "b", range(9), questions(10)[3:])
    found, text = compared(before, after)
    (one,) = found["comparisons"]
    assert (one["all"]["rows"], one["only_before"], one["only_after"]) == (7, 5, 0)
    assert "7 rows pair; 5 are before alone and left out" in text
    assert faults(before, suite(tmp_path / "c", [], questions(14)[12:]))[0].endswith(
        "no row is scored in both; evaluate both on the same rows"
    )


def test_answers_not_found_are_wrong_and_counted(tmp_path: Path) -> None:
    before = suite(tmp_path / "a", range(12), questions())
    after = suite(tmp_path / "b", [*range(10), -10, -11], questions())
    found, text = compared(before, after)
    (one,) = found["comparisons"]
    assert one["all"]["difference"]["value"] == pytest.approx(-2 / 12)
    assert one["after"]["accuracy"] == read_json(after / "summary.json")["accuracy"]["value"]  # type: ignore[index]
    assert (one["parsed"]["value"], one["parsed"]["rows"]) == (0.0, 10)
    assert "answers not found, counted as wrong: 0 before, 2 after" in text


def test_rows_without_a_score_are_left_out(tmp_path: Path) -> None:
    def grade(sample: Sample, completion: Completion) -> Score:
        return Score(None if sample.id == "s7" else 1.0, {}, "")

    def all_right(sample: Sample, completion: Completion) -> Score:
        return Score(1.0, {}, "")

    for one in (grade, all_right):
        one.identity = "by hand"  # type: ignore[attr-defined]
    before = setting(tmp_path / "a", [], grade=all_right)
    found, text = compared(before, setting(tmp_path / "b", [], grade=grade))
    (one,) = found["comparisons"]
    assert (one["all"]["rows"], one["left_out"], one["after"]["unscored"]) == (7, 1, 1)
    assert "1 rows without a score on a side are left out" in text


def test_an_unreadable_judgement_is_no_wrong_answer(tmp_path: Path) -> None:
    rows = [wild_row(prompt=f"How {n}?") for n in range(4)]
    source = Source(str(write(tmp_path / "wild.jsonl", rows)))
    items = load_items(wildguard.ANSWERS, source, Options(), tmp_path)
    said = ["Harmful request: yes", "Response refusal: yes", "Harmful response: no"]

    def folder(name: str, broken: int) -> Path:
        asked = iter(range(4))
        judge = Scripted(lambda _: "prose" if next(asked) < broken else "\n".join(said))
        made = (backend(Scripted(lambda _: "No."), name=name), backend(judge, name="judge"))
        run_suite(wildguard.ANSWERS, source, items, tmp_path / name, Settings(Options()), *made)
        return tmp_path / name / "wildguard_answers"

    found, _ = compared(folder("a", 0), folder("b", 2))
    (one,) = found["comparisons"]
    assert (one["all"]["rows"], one["all"]["difference"]["value"], one["left_out"]) == (2, 0.0, 2)


def test_a_partial_result_is_said_to_be_one(tmp_path: Path) -> None:
    before = suite(tmp_path / "a", range(20), questions(20))
    after = suite(tmp_path / "b", range(20), questions(20), die_after=1)
    found, text = compared(before, after)
    (one,) = found["comparisons"]
    assert one["partial"] and one["all"]["rows"] == 16
    assert "partial: after, 16 of 20 rows are answered so far" in text
    assert one["line"].endswith("of a partial result")


def test_other_questions_are_refused(tmp_path: Path) -> None:
    before = suite(tmp_path / "a", [], questions())
    other = [Item(i.id, i.category, i.messages, "A", i.options) for i in questions()]
    (line,) = faults(before, suite(tmp_path / "b", [], other))
    assert "questions or gold answers differ in 12 of 12 shared rows (q0, q1, q2 and 9" in line
    (line,) = faults(before, suite(tmp_path / "c", [], questions(text="R")))
    assert "the same ids, but other prompts" in line
    (line,) = faults(before, suite(tmp_path / "d", [], questions(), extraction="strict"))
    assert "not read or graded alike (extraction: chain -> strict)" in line
    first = setting(tmp_path / "a", [])
    (line,) = faults(first, setting(tmp_path / "b", [], answer="no"))
    assert "differ in 8 of 8 shared rows" in line
    (line,) = faults(before, first)
    assert "mmlu_pro against skills; compare one with itself" in line
    assert len(faults(tmp_path / "a", tmp_path / "b")) == 2  # all of them at once


def test_another_limit_and_another_setting_are_told(tmp_path: Path) -> None:
    before = suite(tmp_path / "a", [], questions())
    _, text = compared(before, suite(tmp_path / "b", [], questions(), max_new_tokens=9))
    assert "most tokens of an answer: 2048 before, 9 after" in text
    there, here = (setting(tmp_path / "c", [1], name=name) for name in ("in_context", "no_policy"))
    _, text = compared(there, here)
    assert "in_context to no_policy: 0.0 points" in text
    assert "setting: in_context before, no_policy after" in text


def referral(out: Path, right: Sequence[int], scores: Sequence[float | None], judge: str) -> Path:
    """What a judge gave the completions of `no_policy` beside it."""
    setting(out, right, name="no_policy", rows=len(scores), policy="tree")
    folder = out / "referral"
    write_rows(folder / "scores.jsonl", [
        {"id": f"s{n}", "score": score, "note": "", "parts": {}, "unreadable": False}
        for n, score in enumerate(scores)
    ])  # fmt: skip
    identity = {
        "completions": read_json(out / "no_policy" / "started.json"),
        "judge": {"judge": judge}, "rows": len(scores), "policies": "p",
    }  # fmt: skip
    write_json(folder / "summary.json", {"setting": "referral", "identity": identity})
    return out


def test_scores_of_referral_pair_as_tenths(tmp_path: Path) -> None:
    before = referral(tmp_path / "a", [], [0, 2, None, 5], "exact")
    after = referral(tmp_path / "b", range(4), [10, 2, 4, 7.5], "exact")
    found, said = compared(before, after)
    assert [one["name"] for one in found["comparisons"]] == ["no_policy", "referral"]
    one = found["comparisons"][1]
    # (10 + 0 + 2.5) / 3 rows of 10; row s2 has no score before
    assert one["all"]["difference"]["value"] == pytest.approx(12.5 / 30)
    assert (one["all"]["rows"], one["left_out"], one["partial"]) == (3, 1, False)
    assert list(one["by_task"]) == ["tree"]
    assert "referral (a score of 10 is 100 points): +41.7 points" in said
    assert compared(before / "referral", after / "referral")[0]["comparisons"][0]["name"]
    other = referral(tmp_path / "c", range(4), [10, 2, 4, 7.5], "endpoint")
    (line,) = faults(before, other)
    assert "not read or graded alike (judge.judge: exact -> endpoint)" in line


def test_another_number_of_retrieved_sections_is_told(tmp_path: Path) -> None:
    folders = [setting(tmp_path / name, range(8), name="retrieved") for name in ("a", "b")]
    for folder, sections in zip(folders, (2, 3), strict=True):
        summary = read_json(folder / "summary.json")
        write_json(folder / "summary.json", summary | {"retrieval": {"sections": sections}})
    found, said = compared(*folders)
    note = "sections of the policy that retrieval shows: 2 before, 3 after"
    assert found["comparisons"][0]["notes"] == [note] and note in said


def test_referral_needs_the_completions_that_it_judged(tmp_path: Path) -> None:
    before = referral(tmp_path / "a", [], [0, 2], "exact")
    after = referral(tmp_path / "b", [], [0, 2], "exact")
    shutil.rmtree(after / "no_policy")
    (line,) = faults(before, after)
    assert line == f"{after}/referral: judges {after}/no_policy, which is gone; restore it"


def test_what_is_no_result(tmp_path: Path) -> None:
    known = setting(tmp_path / "a", [1])
    assert "not there; give" in faults(known, tmp_path / "nowhere")[0]
    (tmp_path / "empty").mkdir()
    assert "not a folder of results" in faults(tmp_path / "empty", known)[0]
    assert faults(known)[0].endswith("give AFTER too, or a run folder with --arm")
    assert faults(known, known, "--arm", "x")[0].startswith("--arm: goes with a run folder")
    assert faults(known, known, "--before-arm", "x")[0].startswith("--before-arm: goes with")
    assert faults(known, known, "--json", tmp_path)[0].endswith("is a folder; give a file")
    setting(tmp_path / "b", [1], name="other")
    setting(tmp_path / "b", [1], name="another")
    assert "nothing in both" in faults(known, tmp_path / "b")[0]
    assert "not in each of the 2 folders" in faults(known, tmp_path / "a", tmp_path / "b")[0]
    (known / "scores.jsonl").unlink()
    assert "holds no scores yet" in faults(known, known)[0]
    write_rows(known / "scores.jsonl", [{"id": "s1", "value": 7}])
    assert "row 's1' scores 7; only scores from 0 to 1" in faults(known, known)[0]
    write_rows(known / "scores.jsonl", [{"odd": 1}])
    assert "not the scores of a suite or setting" in faults(known, known)[0]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms, two seeds: skills, the task and a benchmark, of which one is not comparable."""
    folder = tmp_path_factory.mktemp("compare") / "run"
    arms = {"plain": ["sft"], "half": ["sft", "mix"]}
    stages = {"sft": {"kind": "sft"}, "mix": {"kind": "interpolate", "weight": 0.5}}
    recipe = {"name": "small", "seeds": [0, 1], "stages": stages, "arms": arms}
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    write_json(folder / "run.json", {})
    task = {"base": range(4), "sft": range(7), "sft+mix": range(5)}
    general = {"base": range(12), "sft": range(6), "sft+mix": range(10)}
    for chain in task:
        for seed in (0,) if chain == "base" else (0, 1):
            place = folder / f"seed-{seed}"
            setting(place / "eval" / chain, task[chain], "no_policy", answer="yes")
            setting(place / "eval" / chain, general[chain], rows=12)
            items = questions(text="R") if chain == "sft+mix" else questions()
            suite(place / "benchmarks" / chain, general[chain], items)
        if chain == "base":
            setting(folder / "seed-0" / "eval" / chain, range(6), "in_context")
    return folder


def test_an_arm_of_a_run_against_its_base(run: Path) -> None:
    found, text = compared(run, "--arm", "plain")
    assert [one["called"] for one in found["comparisons"]] == [
        "no_policy", "forgetting (skills)", "forgetting (mmlu_pro)",
        "task, policy in the weights against in the prompt",
    ]  # fmt: skip
    task = found["comparisons"][-1]["all"]
    assert (task["before"], task["after"]) == (0.75, 0.875)
    assert found["comparisons"][2]["after"]["seeds"] == 2
    assert found["only_before"] == [] and "plain of" in text
    back, _ = compared(run, run, "--arm", "plain", "--before-arm", "plain")
    assert {one["all"]["difference"]["value"] for one in back["comparisons"]} == {0.0}


def test_arms_that_a_run_has_not(run: Path) -> None:
    assert faults(run)[0].endswith("a run folder wants --arm, one of plain, half")
    assert (
        "no arm 'plan' that is measured; did you mean 'plain'?" in faults(run, "--arm", "plan")[0]
    )
    assert "the same ids, but other prompts" in faults(run, "--arm", "half")[0]


def test_the_report_has_verdicts_bars_and_a_frontier(run: Path) -> None:
    html = write_report(run).read_text()
    summary = json.loads((run / "report" / "summary.json").read_text())
    lines = {(one["arm"], one["what"]): one["line"] for one in summary["verdicts"]}
    assert lines["plain", "forgetting (mmlu_pro)"].startswith("forgetting (mmlu_pro): -50.0 points")
    assert (
        "task, against the base with the policy in its prompt: -12.5 points"
        in (lines["half", "task, against the base with the policy in its prompt"])
    )
    assert ("half", "forgetting (mmlu_pro)") not in lines
    half = next(model for model in summary["models"] if model["name"] == "half")
    assert half["benchmarks"]["mmlu_pro"]["refused"].count(str(run)) == 0
    assert "half, mmlu_pro: not compared: " in html and html.count(str(run)) == 0
    for line in lines.values():
        assert line in (run / "report" / "report.md").read_text()
    skills, suite_ = summary["frontier"]
    assert (skills["general"], suite_["general"]) == ("skills", "mmlu_pro")
    points = {point["name"]: point for point in skills["points"]}
    assert points["plain"]["front"] and points["half"]["front"]
    assert points["base, no policy"]["general"]["value"] == 1.0
    assert skills["series"] == [["base, no policy", "half", "plain"]]
    assert 'class="path series"' in html and 'class="path front"' in html
    assert 'class="bar before"' in html and "<desc>all: base 100.0%, half 83.3%" in html


def test_a_broken_benchmark_does_not_break_the_report(run: Path) -> None:
    file = run / "seed-1" / "benchmarks" / "sft" / "mmlu_pro" / "scores.jsonl"
    rows = read_rows(file)
    write_rows(file, [{"odd": 1}])
    try:
        html = write_report(run).read_text()
        assert "plain, mmlu_pro: not compared: " in html and "run its evaluation again" in html
        with pytest.raises(UserError, match="not the scores"):
            from trimpi.compare import of_paths

            of_paths(run, [], "plain")
    finally:
        write_rows(file, rows)
