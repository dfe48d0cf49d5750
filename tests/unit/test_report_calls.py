"""What a report shows of tool calls: numbers by hand, then the page of a pretended run."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.fake_gta import fake_gta_run
from tests.unit.test_report import Page
from trimpi.evaluate.statistics import wilson
from trimpi.report import groups, print_table, tool_calls, write_report
from trimpi.report.answers import Line, object_lines, read_object
from trimpi.report.cards import choose, fault_line
from trimpi.report.load import Evaluation
from trimpi.report.page import count, points
from trimpi.sample import DataFolder


def part(value: float, rows: int, **parts: float) -> dict[str, Any]:
    return {
        "value": value, "scored": rows, "unscored": 0,
        "parts": parts, "part_rows": dict.fromkeys(parts, rows),
    }  # fmt: skip


def seed_of(number: int, **summary: Any) -> Evaluation:
    return Evaluation(number, Path(), {"parts": {}, "part_rows": {}, **summary})


SEEDS = [
    seed_of(
        0,
        parts={"tool": 0.5, "field/k": 1.0}, part_rows={"tool": 8, "field/k": 3},
        by_tool={"OCR": part(0.5, 4, tool=0.25)},
        by_rule={
            "p": {"OCR.1": part(0.75, 4, tool=0.25), "S": part(0.5, 2, **{"tool": 0, "rule/S": 1})},
        },
    ),
    seed_of(
        1,
        parts={"tool": 0.7, "field/(unasked)": 0.0}, part_rows={"tool": 8, "field/(unasked)": 1},
        by_tool={"OCR": part(0.7, 4, tool=0.75)},
        by_rule={"p": {"OCR.1": part(0.25, 4, tool=0.75), "T": part(0.5, 3)}},
    ),
]  # fmt: skip


def test_parts_tools_and_rules_over_seeds() -> None:
    found = groups.by_call(SEEDS)
    assert found["parts"]["tool"]["mean"] == pytest.approx(0.6)
    assert found["parts"]["tool"]["sd"] == pytest.approx(0.02**0.5)
    assert found["parts"]["field/k"] == {"mean": 1.0, "sd": None, "rows": 3}
    tool, interval = found["by_tool"]["OCR"], wilson(0.6 * 4, 4)
    assert tool["mean"] == pytest.approx(0.6) and tool["rows"] == 4 and interval is not None
    assert (tool["low"], tool["high"]) == pytest.approx((interval.low, interval.high))
    assert tool["parts"]["tool"]["mean"] == 0.5
    counted = {
        rule: (entry["right"], entry["rows"], entry["value"])
        for rule, entry in found["by_rule"]["p"].items()
    }
    assert counted == {
        "OCR.1": (1 + 3, 8, 0.5),  # no part of its own: the tool's
        "S": (2, 2, 0.5),  # what the grader says of the rule
        "T": (1.5, 3, 0.5),  # no parts at all: the row's value
    }
    half = wilson(2, 4)  # 4 of 8 over two seeds, at the 4 rows of one seed
    rule = found["by_rule"]["p"]["OCR.1"]
    assert half is not None and (rule["low"], rule["high"]) == pytest.approx((half.low, half.high))
    assert groups.by_call([seed_of(0)]) == {}


def test_mix_ups_of_all_seeds_are_counted_together() -> None:
    def of(number: int, **said: int) -> Evaluation:
        return seed_of(number, diagnosis={"confusions": {"OCR": {"OCR_v2": said}}})

    assert groups.confusions([of(0, OCR_v2=3, OCR_v1=1), of(1, OCR_v2=2), seed_of(2)]) == {
        "OCR": {"OCR_v2": {"OCR_v2": 5, "OCR_v1": 1}}
    }


def cells(
    parts: dict[str, Any], confusions: dict[str, Any]
) -> tuple[dict[str, Any], list[tuple[str, Any, str]]]:
    setting = {"parts": parts, "rows": 4}
    model = {
        "settings": {"no_policy": setting},
        "diagnosis": {"no_policy": {"confusions": confusions}},
    }
    return {"headline_arm": "main"}, [("main", model, "no_policy")]


def test_made_up_arguments_come_last() -> None:
    parts = {f"field/{n}": {"mean": 0.5, "sd": None, "rows": 2} for n in ("(unasked)", "text", "k")}
    summary, used = cells({**parts, "tool": {"mean": 1, "sd": None, "rows": 4}}, {})
    assert [f["name"] for f in tool_calls.sections(summary, used)["fields"]] == [
        "k", "text", "(unasked)",
    ]  # fmt: skip


def test_a_matrix_has_versions_first_and_pools_what_is_rare() -> None:
    table = {"OCR_v10": {"OCR_v2": 1, "OCR_v10": 4, "no call": 2}, "OCR_v2": {"other tool": 1}}
    summary, used = cells({}, {"OCR": table})
    found = tool_calls.sections(summary, used)["confusions"]["OCR"]
    assert found["columns"] == ["v2", "v10", "no call", "other tool"]
    ten, two = found["rows"]
    assert (ten["gold"], ten["total"], two["total"]) == ("OCR_v10", 7, 1)
    assert [c["count"] for c in ten["cells"]] == [1, 4, 2, 0]
    assert [c["right"] for c in ten["cells"]] == [False, True, False, False]
    many = {"OCR_v1": {"OCR_v1": 1, **{f"OCR_x{n}": 2 + (n == 5) for n in range(30)}}}
    pooled = tool_calls.sections(*cells({}, {"OCR": many}))["confusions"]["OCR"]
    assert len(pooled["columns"]) == tool_calls.MOST_COLUMNS + 1
    assert pooled["columns"][-1] == "rest" and {"v1", "x5"} <= set(pooled["columns"])
    assert sum(c["count"] for c in pooled["rows"][0]["cells"]) == 62


def test_tints_are_strong_at_both_ends_and_none_between() -> None:
    assert tool_calls.tint(0.0) == "background:rgba(213,94,0,0.45)"
    assert tool_calls.tint(0.5).endswith(",0.00)")
    assert tool_calls.tint(1.0) == "background:rgba(0,158,115,0.45)"


def test_a_call_by_lines_marks_what_differs() -> None:
    gold = {"name": "A_v1", "arguments": {"k": 1, "text": "fish", "top": True}}
    said = {"name": "A_v2", "arguments": {"k": 4, "text": "a fish", "x": 0}}
    parts = {"field/k": 0.0, "field/text": 0.8, "field/(unasked)": 0.0, "field/top": 0.0}
    assert object_lines(said, gold, parts) == [
        Line("{"),
        Line('  "name": "A_v2",', True),
        Line('  "arguments": {'),
        Line('    "k": 4,', True, "wrong"),
        Line('    "text": "a fish",', True, "scores 0.80"),
        Line('    "x": 0', True, "not asked for"),
        Line('    "top": true', True, "left out"),
        Line("  }"),
        Line("}"),
    ]
    same = object_lines({"name": "A_v1", "arguments": {"k": "1"}}, gold, {"field/k": 1.0})
    assert Line('    "k": "1"') in same  # right however written
    assert Line('  "arguments"', True, "left out") in object_lines({"name": "A_v1"}, gold, {})
    assert object_lines(gold, gold, {})[-1] == Line("}")
    assert not any(line.wrong for line in object_lines(gold, gold, {}))
    assert [read_object(text) for text in ("[1]", "Case 1", None, "{}")] == [None, None, None, {}]


def test_the_line_that_cites_a_wrong_rule_is_marked() -> None:
    lines = ["Rule S4: k.", "Rule OCR.31: no.", "Rule OCR.3: it holds."]
    found = {"first_error": "version", "cited": ["S4", "OCR.3"], "gold": ["S4", "OCR.2"]}
    assert fault_line(lines, found) == 2
    assert fault_line(lines, {**found, "cited": ["S4"]}) is None
    assert fault_line(lines, {**found, "first_error": "tool"}) is None


def test_right_rows_of_different_tools_come_first() -> None:
    rows = [{"value": 1.0}, {"value": 1.0}, {"value": 0.5}, {"value": 1.0}]
    assert choose(rows, 4, ["A", "A", "A", "B"]) == [0, 1, 2, 3]
    assert choose(rows, 3, ["A", "A", "A", "B"]) == [0, 2, 3]


def test_counts_in_part() -> None:
    assert [count(n) for n in (3.0, 2.999999, 1.5)] == ["3", "3", "1.5"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = fake_gta_run(tmp_path_factory.mktemp("gta") / "run", tasks=20)
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def summary(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report" / "summary.json").read_text()))


def test_the_page_shows_the_sections_of_tool_calls(run: Path, summary: dict[str, Any]) -> None:
    html = (run / "report" / "report.html").read_text()
    text = " ".join(Page(html).text)
    for heading in ("By tool", "By rule", "Versions called by trimpi", "By argument", "Examples"):
        assert heading in text, heading
    assert "tool accuracy" in text.replace("  ", " ") and "overall score" in text
    assert "most frequent answer" not in text and "the gold walks" not in text
    policy = DataFolder(run / "data").policies["velkar"]
    assert list(summary["rules"]["velkar"].items()) == list(policy.metadata["conditions"].items())
    trimpi = summary["models"][2]["settings"]["no_policy"]
    for rule, found in trimpi["by_rule"]["velkar"].items():
        assert f">{count(found['right'])}/{found['rows']}<small>" in html, rule
    assert '<pre class="call"><span>{' in html and '<span class="fault">  &#34;name&#34;' in html
    assert "scores" in summary["headline"] and " right" not in summary["headline"]


def test_markdown_and_terminal_have_the_parts(run: Path, summary: dict[str, Any]) -> None:
    text = (run / "report" / "report.md").read_text()
    tool = summary["models"][2]["settings"]["no_policy"]["parts"]["tool"]
    row = next(line for line in text.splitlines() if line.startswith("| trimpi | cpt"))
    assert f"| {points(tool['mean'])} ± {points(tool['sd'])} |" in row
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in lines}) <= 1, block
    console = Console(width=80, record=True, file=io.StringIO())
    print_table(summary, console)
    shown = console.export_text()
    assert f"trimpi: tool accuracy {points(tool['mean'])}%, argument score" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_the_first_errors_are_those_of_calls(run: Path, summary: dict[str, Any]) -> None:
    for model in summary["models"]:
        for found in model["diagnosis"].values():
            names = ["none", "format", "tool", "version", "argument", "rule"]
            assert list(found["first_errors"]) == names
    leading = summary["models"][2]["diagnosis"]["no_policy"]
    rows = sum(n for t in leading["confusions"].values() for r in t.values() for n in r.values())
    test = DataFolder(run / "data").read("test")
    versioned = sum(f'"name": "{row.facts["tool"]}_v' in row.answer for row in test)
    assert rows == 2 * versioned  # two seeds


def test_a_report_without_the_data_folder_has_ids_without_texts(run: Path, tmp_path: Path) -> None:
    text = (run / "recipe.yaml").read_text()
    try:
        (run / "recipe.yaml").write_text(text.replace(str(run / "data"), str(tmp_path / "gone")))
        write_report(run)
        found = json.loads((run / "report" / "summary.json").read_text())
    finally:
        (run / "recipe.yaml").write_text(text)
        write_report(run)
    rules = found["rules"]["velkar"]
    assert set(rules.values()) == {""} and "S2" in rules and found["coverage"] == {}


def test_the_report_says_how_texts_are_compared(run: Path) -> None:
    line = "Grading: texts of arguments are compared by their words (F1) and letters (Indel)."
    for name in ("report.md", "report.html"):
        assert line in (run / "report" / name).read_text()


def test_the_report_says_which_models_were_graded_otherwise(run: Path) -> None:
    file = next(run.glob("seed-*/eval/base/in_context/summary.json"))
    text = file.read_text()
    summary = json.loads(text)
    before = summary["grading"]
    try:
        file.write_text(json.dumps({**summary, "grading": "BERTScore F1 (roberta, layer 17)"}))
        write_report(run)
        found = (run / "report" / "report.md").read_text()
    finally:
        file.write_text(text)
        write_report(run)
    line = next(line for line in found.splitlines() if "Grading: " in line).split("Grading: ")[1]
    assert line.startswith("base: BERTScore F1 (roberta, layer 17); ") and before in line
    assert line.endswith("Scores of different grading are not to be compared.")
