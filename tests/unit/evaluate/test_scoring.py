"""Scores and summaries: ungraded rows stay out of every average."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from trimpi.errors import UserError
from trimpi.evaluate import diagnosis, scoring
from trimpi.evaluate.statistics import wilson
from trimpi.grading import exact_answer
from trimpi.sample import Completion, Sample, Score


def sample(name: str, answer: str = "A", policy: str = "p", **facts: Any) -> Sample:
    return Sample(name, (), "?", policy, answer, facts=facts)


def boxed(name: str, answer: str) -> Completion:
    return Completion(name, f"\\boxed{{{answer}}}", tokens=2)


def summary_of(pairs: list[tuple[Sample, str]], grader: Any = exact_answer) -> dict[str, Any]:
    samples = [s for s, _ in pairs]
    completions = [boxed(s.id, text) for s, text in pairs]
    rows = scoring.score_rows([(s, "answer") for s in samples], completions, grader)
    return scoring.summarize(samples, completions, rows)


def test_unscored_is_counted_apart_and_never_averaged() -> None:
    def grader(sample: Sample, completion: Completion) -> Score:
        if "?" in completion.text:
            return Score(None, note="cannot tell")
        return exact_answer(sample, completion)

    pairs = [(sample("1"), "A"), (sample("2"), "B"), (sample("3"), "?"), (sample("4"), "A")]
    found = summary_of(pairs, grader)["accuracy"]
    expected = wilson(2, 3)
    assert expected is not None
    assert found["value"] == pytest.approx(2 / 3)
    assert (found["low"], found["high"]) == (expected.low, expected.high)
    assert (found["scored"], found["unscored"], found["correct"]) == (3, 1, 2.0)


def test_all_unscored_has_no_accuracy() -> None:
    found = summary_of([(sample("1"), "A")], lambda s, c: Score(None))
    assert found["accuracy"]["value"] is None and found["accuracy"]["unscored"] == 1


def test_rows_that_the_grader_fails_on_are_named_all_at_once() -> None:
    def broken(sample: Sample, completion: Completion) -> Score:
        if sample.id == "2":
            raise ZeroDivisionError("oops")
        return Score({"1": 1.0, "3": 1.5, "4": float("nan")}[sample.id])

    with pytest.raises(UserError) as raised:
        summary_of([(sample(name), "A") for name in "1234"], broken)
    name = f"{__name__}:{broken.__qualname__}"
    assert str(raised.value).splitlines() == [
        f"completions.jsonl:2: grader {name}: row '2': failed with ZeroDivisionError: oops; mend "
        "the grader (return Score(None) for what cannot be graded)",
        f"completions.jsonl:3: grader {name}: row '3': gave the value 1.5, outside [0, 1]; scale "
        "it: (value - lowest) / (highest - lowest)",
        f"completions.jsonl:4: grader {name}: row '4': gave the value nan; it must be a number in "
        "[0, 1], or None for what cannot be graded",
    ]


def test_accuracy_by_depth_and_policy() -> None:
    one, two = [{"condition": "1"}], [{"condition": "1"}, {"condition": "1.1"}]
    found = summary_of(
        [
            (sample("1", path=one), "A"),
            (sample("2", path=one), "B"),
            (sample("3", policy="q", path=two), "A"),
        ]
    )
    assert {k: v["value"] for k, v in found["by_depth"].items()} == {"1": 0.5, "2": 1.0}
    assert {k: v["value"] for k, v in found["by_policy"].items()} == {"p": 0.5, "q": 1.0}


def test_majority_share_is_per_policy() -> None:
    rows = [sample(str(i), a) for i, a in enumerate("AAB")]
    rows += [sample(str(i), a, policy="q") for i, a in enumerate("CD", 3)]
    assert scoring.majority_share(rows) == pytest.approx(3 / 5)


def test_override_counts_answers_of_the_replaced_policy() -> None:
    found = summary_of(
        [
            (sample("1", "A", original_answer="B"), "B"),  # the weights win
            (sample("2", "A", original_answer="B"), "A"),  # the prompt wins
            (sample("3", "A", original_answer="A"), "A"),  # cannot tell: left out
        ]
    )
    assert found["original_share"]["value"] == 0.5
    assert found["accuracy"]["value"] == pytest.approx(2 / 3)


def test_form_and_truncation_are_counted() -> None:
    samples = [sample("1"), sample("2")]
    completions = [Completion("1", "\\boxed{A}", 3), Completion("2", "A, because", 9, True)]
    rows = scoring.score_rows([(s, "answer") for s in samples], completions, exact_answer)
    found = scoring.summarize(samples, completions, rows)
    assert (found["well_formed"], found["truncated"], found["completion_tokens"]) == (0.5, 1, 6.0)
    assert found["notes"] == {"no boxed answer": 1}


def diagnosed(error: str, cited: list[str], gold: list[str]) -> Mapping[str, Any]:
    return {"first_error": error, "cited": cited, "gold": gold, "gold_path": cited == gold}


def test_citation_difference_by_hand() -> None:
    found = diagnosis.summarize(
        [
            diagnosed("none", ["1", "1.1"], ["1", "1.1"]),
            diagnosed("branching", ["1", "1.2"], ["1", "1.1"]),
        ]
    )
    # 1: 2-2, 1.1: 1-2; (0 + 1) / 2. No gold walk has 1.2.
    assert found["citation_difference"] == 1 / 2
    assert found["citation_difference_per_100"] == 100 / 4
    assert found["invented_citations"] == 1
    assert found["gold_path"]["value"] == 0.5
    assert found["first_errors"] == {
        "none": 1,
        "format": 0,
        "recall": 0,
        "perception": 0,
        "branching": 1,
        "final": 0,
    }


def test_ids_of_any_length_are_sorted() -> None:
    ids = ["1" * 5000, "12", "x", "1.10", "1.02", "1"]
    found = diagnosis.summarize([diagnosed("branching", ids, ["1"])])
    assert list(found["citations"]) == ["1", "1.02", "1.10", "12", "1" * 5000, "x"]


def test_a_grader_that_fails_on_the_replaced_answer_says_so() -> None:
    def raising(sample: Sample, completion: Completion) -> Score:
        if sample.answer == "B":
            raise ZeroDivisionError("no")
        return Score(1.0)

    asked = replace(sample("1"), facts={"original_answer": "B"})
    with pytest.raises(UserError, match=r"jsonl:1: facts.original_answer: grader .* row '1': fail"):
        scoring.score_rows([(asked, "cot")], [boxed("1", "A")], raising)


def test_citations_are_in_the_order_of_their_numbers() -> None:
    found = diagnosis.summarize([diagnosed("none", ["1.10", "1.2", "1"], ["1"])])
    assert list(found["citations"]) == ["1", "1.2", "1.10"]


def test_a_diagnosis_without_its_fields_or_that_fails_names_the_key() -> None:
    with pytest.raises(UserError, match=r"evaluation\.diagnose: .* returns no 'gold_path'"):
        diagnosis.diagnose_one(lambda s, c: {"first_error": "none"}, sample("1"), boxed("1", "A"))
    with pytest.raises(UserError, match=r"fails on sample '1' \(KeyError: 'path'\)"):
        diagnosis.diagnose_one(lambda s, c: s.facts["path"], sample("1"), boxed("1", "A"))


def tool_score(sample: Sample, completion: Completion) -> Score:
    """The first letter is the tool, the second the argument; `B` of rows with one."""
    text = completion.text[7:9]
    tool, argument = float(text[0] == "y"), float(text[1] == "y")
    only = {"field/k": argument} if sample.facts["tool"] == "B" else {}
    return Score((tool + argument) / 2, {"tool": tool, "argument": argument, **only})


def test_numbers_by_tool_and_rule() -> None:
    found = summary_of(
        [
            (sample("1", tool="A", rules=["A.10", "S"]), "yy"),
            (sample("2", tool="A", rules=["A.2", "S"]), "ny"),
            (sample("3", tool="B", rules=["S", "S"]), "nn"),
            (sample("4", tool="B", rules=[]), "yn"),
        ],
        tool_score,
    )
    assert found["parts"] == {"tool": 0.5, "argument": 0.5, "field/k": 0.0}
    assert found["part_rows"] == {"tool": 4, "argument": 4, "field/k": 2}
    tools = found["by_tool"]
    assert {n: (t["value"], t["scored"]) for n, t in tools.items()} == {
        "A": (0.75, 2), "B": (0.25, 2),
    }  # fmt: skip
    assert tools["A"]["parts"] == {"tool": 0.5, "argument": 1.0}
    assert tools["B"]["parts"] == {"tool": 0.5, "argument": 0.0, "field/k": 0.0}
    assert tools["B"]["part_rows"]["field/k"] == 2
    assert list(found["by_rule"]) == ["p"]
    rules = found["by_rule"]["p"]
    assert list(rules) == ["A.2", "A.10", "S"]
    assert rules["A.2"]["value"] == 0.5 and rules["A.2"]["parts"]["tool"] == 0
    assert rules["S"]["value"] == 0.5 and rules["S"]["part_rows"]["tool"] == 3  # a row counts once


def test_rules_of_the_same_id_are_told_apart_by_policy() -> None:
    found = summary_of(
        [
            (sample("1", policy="q", rules=["R1"]), "A"),
            (sample("2", policy="p", rules=["R1", "R2"]), "B"),
            (sample("3", policy="p", rules=["R1"]), "A"),
        ]
    )
    assert {
        policy: {rule: (entry["value"], entry["scored"]) for rule, entry in rules.items()}
        for policy, rules in found["by_rule"].items()
    } == {"p": {"R1": (0.5, 2), "R2": (0.0, 1)}, "q": {"R1": (1.0, 1)}}


def test_rows_of_changed_rules_are_counted_apart() -> None:
    found = summary_of(
        [
            (sample("1", changed=True), "A"),
            (sample("2", changed=True), "B"),
            (sample("3", changed=False), "A"),
            (sample("4"), "B"),
            (sample("5", changed="yes"), "B"),  # says nothing
        ]
    )
    assert {n: (e["value"], e["scored"]) for n, e in found["by_changed"].items()} == {
        "changed": (0.5, 2), "unchanged": (1.0, 1),
    }  # fmt: skip
    assert "by_changed" not in summary_of([(sample("1"), "A")])


def test_rows_without_tools_and_rules_have_no_such_groups() -> None:
    found = summary_of([(sample("1", tool=3, rules="OCR.1"), "A"), (sample("2"), "A")])
    assert "by_tool" not in found and "by_rule" not in found and found["part_rows"] == {}


def test_half_right_under_both_policies_is_not_answered_by_the_replaced_one() -> None:
    def half(sample: Sample, completion: Completion) -> Score:
        right = sample.answer in completion.text
        return Score(1.0 if right else 0.5)  # the arguments are right under both

    found = summary_of(
        [
            (sample("1", "A", original_answer="B"), "B"),
            (sample("2", "A", original_answer="B"), "A"),
            (sample("3", "A", original_answer="B"), "C"),
            (sample("4", "A", original_answer="B"), "A"),
        ],
        half,
    )
    assert found["original_share"]["value"] == 0.25


def mixed(error: str, gold: str, said: str) -> dict[str, Any]:
    confusion = {"group": gold[:3], "gold": gold, "said": said}
    return {**diagnosed(error, [], []), "confusion": confusion}


def test_confusions_are_counted_by_group() -> None:
    found = diagnosis.summarize(
        [
            mixed("version", "OCR_v2", "OCR_v1"),
            mixed("version", "OCR_v2", "OCR_v1"),
            mixed("none", "OCR_v2", "OCR_v2"),
            mixed("format", "Web_v1", "no call"),
            {**diagnosed("none", [], []), "confusion": None},
        ]
    )
    assert found["confusions"] == {
        "OCR": {"OCR_v2": {"OCR_v1": 2, "OCR_v2": 1}},
        "Web": {"Web_v1": {"no call": 1}},
    }
    assert found["first_errors"] == {
        "none": 2, "format": 1, "tool": 0, "version": 2, "argument": 0, "rule": 0,
    }  # fmt: skip
    assert found["citation_difference"] == 0
    assert "confusions" not in diagnosis.summarize([diagnosed("none", ["1"], ["1"])])


@pytest.mark.parametrize("confusion", ["OCR", {"group": "OCR", "gold": "OCR_v1"}, []])
def test_a_confusion_that_is_none_names_the_key(confusion: Any) -> None:
    with pytest.raises(UserError, match=r"evaluation\.diagnose: .* returns a 'confusion' that is"):
        diagnosis.diagnose_one(
            lambda s, c: {**diagnosed("none", [], []), "confusion": confusion},
            sample("1"),
            boxed("1", "A"),
        )
