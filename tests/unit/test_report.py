"""The report of a run: numbers that agree with the evaluations, and a page that stands alone."""

import io
import json
import re
import shutil
import statistics
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from tests.fake_run import fake_run
from trimpi.errors import UserError
from trimpi.evaluate.statistics import wilson
from trimpi.evaluate.store import read_rows, write_rows
from trimpi.evaluate.verdict import compare_pairs
from trimpi.report import print_table, svg, write_report
from trimpi.report.cards import choose
from trimpi.report.curves import binned
from trimpi.report.page import duration, literal, points
from trimpi.runs import write_json

ARMS = ("direct_sft", "cot_sft", "trimpi")
VOID = {"meta", "img", "br", "link", "input", "hr"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three arms and two seeds, reported once."""
    folder = fake_run(tmp_path_factory.mktemp("run") / "run", seeds=(0, 1), rows=8, arms=ARMS)
    write_report(folder)
    return folder


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def summary_of(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report" / "summary.json").read_text()))


def model_of(run: Path, name: str) -> dict[str, Any]:
    return next(m for m in summary_of(run)["models"] if m["name"] == name)


class Page(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_accuracy_is_the_mean_over_seeds_with_its_spread(run: Path) -> None:
    values = [
        json.loads((run / f"seed-{s}/eval/cpt+sft+poro/no_policy/summary.json").read_text())[
            "accuracy"
        ]["value"]
        for s in (0, 1)
    ]
    cell = model_of(run, "trimpi")["settings"]["no_policy"]
    assert cell["by_seed"] == {"0": values[0], "1": values[1]}
    assert cell["mean"] == pytest.approx(statistics.mean(values))
    assert cell["sd"] == pytest.approx(statistics.stdev(values))
    interval = wilson(16 * statistics.mean(values), 16)  # rows of one seed, not of two
    assert interval is not None
    assert (cell["low"], cell["high"]) == pytest.approx((interval.low, interval.high))


def test_base_is_measured_once_and_has_no_spread(run: Path) -> None:
    cell = model_of(run, "base")["settings"]["in_context"]
    assert list(cell["by_seed"]) == ["0"] and cell["sd"] is None


def test_forgetting_pairs_rows_and_averages_seeds(run: Path) -> None:
    before = {
        row["id"]: row["value"] for row in read_rows(run / "seed-0/eval/base/skills/scores.jsonl")
    }
    seeds = [
        {
            row["id"]: row["value"]
            for row in read_rows(run / f"seed-{s}/eval/direct/skills/scores.jsonl")
        }
        for s in (0, 1)
    ]
    expected = compare_pairs(
        list(before.values()), [(seeds[0][i] + seeds[1][i]) / 2 for i in before]
    )
    found = model_of(run, "direct_sft")["forgetting"]["all"]
    assert expected is not None and expected.value < 0
    assert found["difference"]["value"] == pytest.approx(expected.value)
    assert found["difference"]["low"] == pytest.approx(expected.low)
    assert found["after"] - found["before"] == pytest.approx(expected.value)
    assert model_of(run, "base")["forgetting"] is None


def test_headline_names_the_last_arm_and_the_base_in_context(run: Path) -> None:
    summary = summary_of(run)
    assert summary["headline_arm"] == "trimpi"
    accuracy = f"{100 * model_of(run, 'trimpi')['settings']['no_policy']['mean']:.1f}%"
    base = f"{100 * model_of(run, 'base')['settings']['in_context']['mean']:.1f}%"
    assert f"trimpi answers {accuracy} right" in summary["headline"]
    assert f"the policy in its prompt answers {base} right" in summary["headline"]
    saved = summary["efficiency"]["prompt_tokens"]["saved"]
    assert f"shrinks by {100 * saved:.1f}%" in summary["headline"]


def test_a_better_arm_than_the_last_is_named(copy: Path) -> None:
    for seed in (0, 1):
        for chain, value in (("cpt+sft+poro", 0.0), ("sft", 0.95)):
            file = copy / f"seed-{seed}/eval/{chain}/no_policy/summary.json"
            summary = json.loads(file.read_text())
            summary["accuracy"]["value"] = value
            write_json(file, summary)
    write_report(copy)
    assert "trimpi answers 0.0% right" in summary_of(copy)["headline"]
    assert "The best arm is cot_sft with" in summary_of(copy)["headline"]


def test_the_page_needs_nothing_but_itself(run: Path) -> None:
    html = (run / "report" / "report.html").read_text()
    page = Page(html)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "iframe"}
    sources = [attrs["src"] or "" for tag, attrs in page.tags if tag == "img"]
    assert len(sources) >= 6
    assert all(source.startswith("data:image/") for source in sources)
    assert not re.search(r"url\(|@import|https?://", html.split("<main>")[0])
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html
    charts = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert len(charts) >= 8
    for chart in charts:
        assert ElementTree.fromstring(chart).attrib["aria-label"]


def test_the_page_shows_every_part(run: Path) -> None:
    text = " ".join(Page((run / "report" / "report.html").read_text()).text)
    for heading in (
        "Accuracy",
        "Accuracy by depth",
        "Where the reasoning first goes wrong",
        "Examples",
        "What the prompt costs",
        "Verdicts",
        "What was forgotten",
        "Task against forgetting",
        "Recital",
        "Learning curves",
        "Rollouts with and without the policy",
        "How this was made",
    ):
        assert heading in text, heading
    for name in (*ARMS, "base, policy in prompt", "base, no policy", "groups without signal"):
        assert name in text, name


def test_markdown_has_the_numbers_of_the_table(run: Path) -> None:
    text = (run / "report" / "report.md").read_text()
    cell = model_of(run, "trimpi")["settings"]["no_policy"]
    shown = f"{points(cell['mean'])} ± {points(cell['sd'])} [{points(cell['low'])}, "
    row = next(line for line in text.splitlines() if line.startswith("| trimpi | cpt → sft → poro"))
    assert shown in row
    widths: dict[str, int] = {}
    for block in text.split("\n\n"):  # each table has as many cells in every row
        lines = [line for line in block.splitlines() if line.startswith("|")]
        counts = {line.count("|") for line in lines}
        assert len(counts) <= 1, block
        widths[block[:20]] = len(lines)
    assert sum(count > 2 for count in widths.values()) >= 6


def test_rollout_halves_are_reported(run: Path) -> None:
    curves = summary_of(run)["training"]["cpt+sft+poro"]["curves"]
    assert set(curves["reward"]) >= {"with policy", "without"}
    assert set(curves["groups without signal"]) == {"without alone", "pooled"}
    assert curves["reward"]["without"]["first"] < curves["reward"]["without"]["last"]
    assert "reward" not in summary_of(run)["training"]["sft"]["curves"]
    text = (run / "report" / "report.md").read_text()
    assert "| cpt → sft → poro | 25.0% | 50.0% | 44.0% | 19.0% |" in text


def test_writing_twice_gives_the_same_bytes(copy: Path) -> None:
    names = ("report.html", "report.md", "summary.json")
    before = [(copy / "report" / name).read_bytes() for name in names]
    assert write_report(copy) == copy / "report" / "report.html"
    assert [(copy / "report" / name).read_bytes() for name in names] == before


def test_what_a_model_writes_cannot_become_markup(copy: Path) -> None:
    file = copy / "seed-0/eval/cpt+sft+poro/no_policy/completions.jsonl"
    rows = read_rows(file)
    for row in rows:
        row["text"] = "<think> <script>alert(1)</script> </think> \\boxed{<b>x</b>}"
    write_rows(file, rows)
    write_report(copy)
    html = (copy / "report" / "report.html").read_text()
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_a_run_under_way_can_be_reported(copy: Path) -> None:
    for folder in copy.glob("seed-*/eval"):
        shutil.rmtree(folder)
    shutil.rmtree(copy / "seed-1")
    write_report(copy)
    summary = summary_of(copy)
    assert summary["headline"] == "Nothing measured yet."
    assert summary["training"]["cpt"]["seeds"] == [0]
    Page((copy / "report" / "report.html").read_text())
    print_table(summary, Console(file=sys.stderr))


def test_gone_pictures_and_set_aside_folders_do_no_harm(copy: Path) -> None:
    before = summary_of(copy)["models"]
    shutil.rmtree(copy / "data")
    aside = copy / "seed-0/eval/base/no_policy"
    shutil.copytree(aside, aside.with_name("no_policy.old-1"))
    write_report(copy)
    assert summary_of(copy)["models"] == before
    page = Page((copy / "report" / "report.html").read_text())
    assert not any(tag == "img" for tag, _ in page.tags)


def test_unscored_rows_are_named_beside_the_number(copy: Path) -> None:
    for seed in (0, 1):
        file = copy / f"seed-{seed}/eval/cpt+sft+poro/no_policy/summary.json"
        summary = json.loads(file.read_text())
        summary["accuracy"] |= {"unscored": 3}
        write_json(file, summary)
    write_report(copy)
    assert "6 unscored" in (copy / "report" / "report.html").read_text()
    assert "(6 unscored)" in (copy / "report" / "report.md").read_text()


def test_what_is_no_run_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"recipe\.yaml: cannot be read"):
        write_report(tmp_path)
    (tmp_path / "recipe.yaml").write_text("- just\n- a list\n")
    with pytest.raises(UserError, match="not a recipe"):
        write_report(tmp_path)


def test_table_for_the_terminal(run: Path) -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(summary_of(run), console)
    text = console.export_text()
    cell = model_of(run, "trimpi")["settings"]["no_policy"]
    assert f"{points(cell['mean'])} ± {points(cell['sd'])}" in text
    assert f"[{points(cell['low'])}, {points(cell['high'])}]" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_skills_of_a_base_alone_are_reported(copy: Path) -> None:
    for folder in copy.glob("seed-*/eval/*"):
        if folder.name != "base":
            shutil.rmtree(folder)
    for folder in copy.glob("seed-*/eval/base/*"):
        if folder.name != "skills":
            shutil.rmtree(folder)
    write_report(copy)
    skills = model_of(copy, "base")["settings"]["skills"]
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(summary_of(copy), console)
    text = console.export_text()
    markdown = (copy / "report" / "report.md").read_text()
    assert "## Accuracy\n" not in markdown
    for task, cell in skills["by_task"].items():
        assert f"{task}: {points(cell['mean'])}% of {cell['rows']} rows" in text
        assert f"| {task} | {points(cell['mean'])} [" in markdown
    Page((copy / "report" / "report.html").read_text())


def test_choose_shows_different_errors_before_more_of_the_same() -> None:
    def row(value: float | None, error: str) -> dict[str, Any]:
        return {"value": value, "diagnosis": {"first_error": error}}

    wrong = [row(0.0, e) for e in ("perception", "perception", "branching", "perception")]
    scores = [row(1.0, "none"), *wrong, row(None, "none"), row(1.0, "none"), row(1.0, "none")]
    assert choose(scores, 4) == [0, 1, 3, 6]
    assert choose(scores, 100) == [0, 1, 2, 3, 4, 6, 7]
    assert choose([row(1.0, "none")] * 3, 2) == [0, 1]


def test_labels_keep_their_order_and_distance() -> None:
    placed = svg.spread([50, 52, 10, 51], 14, 0, 200)
    assert placed[2] == 10
    assert placed[0] < placed[3] < placed[1]
    assert placed[3] - placed[0] >= 14 and placed[1] - placed[3] >= 14
    assert max(svg.spread([199, 198], 14, 0, 200)) <= 200


def test_a_chart_of_one_point_and_of_equal_values() -> None:
    one = svg.line_chart([svg.Line("a", [(3.0, 0.5)])], label="x", x_name="n", share=True)
    assert "<circle" in one and "nan" not in one
    flat = svg.line_chart([svg.Line("a", [(1.0, 2.0), (2.0, 2.0)])], label="x", x_name="n")
    assert ElementTree.fromstring(flat) is not None and "nan" not in flat


def test_long_curves_are_drawn_as_means_of_stretches() -> None:
    points_in = [(float(i), float(i % 2)) for i in range(600)]
    points_out = binned(points_in)
    assert len(points_out) == 60
    assert {y for _, y in points_out} == {0.5}
    assert binned(points_in[:60]) == points_in[:60]


def test_titles_and_tasks_stay_text_in_markdown() -> None:
    assert literal("a <b>T</b> | x\n| y") == "a &lt;b>T&lt;/b> \\| x \\| y"


def test_words_for_numbers() -> None:
    assert points(0.9321) == "93.2" and points(None) == "–"
    assert points(-0.034, True) == "−3.4" and points(-0.0001, True) == "±0.0"
    assert [duration(s) for s in (0.0123, 61.0, 7261.0)] == ["12.3 ms", "61 s", "2 h 1 min"]


def test_the_report_loads_no_torch() -> None:
    code = "import sys, trimpi.report; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
