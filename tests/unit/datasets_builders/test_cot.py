"""Forward CoT keeps what the grader accepts; reverse CoT starts from the gold answer."""

from dataclasses import dataclass
from typing import Any

import pytest

from datasets_builders.cot import forward_cot, reverse_cot, reverse_messages
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.policy import Policy, TextPart
from trimpi.prompt import parse_response, render_target
from trimpi.sample import Sample

POLICIES = {"vlomar": Policy("Vlomar", (TextPart("Red means Case 1."),))}
SAMPLES = [Sample(f"r{n}", (), f"Question {n}?", "vlomar", "Case 1") for n in range(4)]


@dataclass(frozen=True)
class Said:
    text: str
    truncated: bool = False


class Scripted:
    """Gives listed completions, call by call, and remembers what it was asked."""

    def __init__(self, *calls: list[Said]):
        self.calls, self.asked = list(calls), []

    def __call__(self, prompts: list[Any], **options: Any) -> list[Said]:
        self.asked.append((prompts, options))
        return self.calls.pop(0)


RIGHT = Said("<think> It is red. </think> \\boxed{Case 1}")


def test_only_right_whole_and_reasoned_completions_are_kept() -> None:
    wrong = Said("<think> It is blue. </think> \\boxed{Case 2}")
    bare, cut = Said("\\boxed{Case 1}"), Said(RIGHT.text, truncated=True)
    model = Scripted([RIGHT, wrong, bare, cut])
    rows, report = forward_cot(
        SAMPLES, POLICIES, model, exact_answer, max_new_tokens=50, attempts=1
    )
    assert [(row.id, row.rationale) for row in rows] == [("r0", "It is red.")]
    assert report.to_json() == {
        "asked": 4,
        "kept": 1,
        "dropped": 3,
        "completions": 4,
        "truncated": 1,
    }


def test_the_policy_is_in_context_and_only_open_rows_are_asked_again() -> None:
    wrong = Said("<think> no </think> \\boxed{Case 9}")
    model = Scripted([RIGHT, wrong, RIGHT, RIGHT], [RIGHT])
    rows, report = forward_cot(
        SAMPLES, POLICIES, model, exact_answer, max_new_tokens=50, attempts=3, seed=7
    )
    assert [row.id for row in rows] == ["r0", "r1", "r2", "r3"] and report.completions == 5
    first, second = model.asked
    assert first[0][0][0]["content"][0]["text"] == "Red means Case 1."
    assert "Question 1?" in str(second[0]) and len(second[0]) == 1
    assert [options["temperature"] for _, options in model.asked] == [0.0, 1.0]
    assert [options["seed"] for _, options in model.asked] == [7, 8]


def test_keeping_nothing_is_an_error() -> None:
    model = Scripted([Said("?")] * 1)
    with pytest.raises(UserError, match="none of 1 rows"):
        forward_cot(SAMPLES[:1], POLICIES, model, exact_answer, max_new_tokens=5, attempts=1)


def test_the_reverse_prompt_shows_the_gold_answer_in_place_of_the_format_line() -> None:
    text = str(reverse_messages(SAMPLES[0], POLICIES["vlomar"]))
    assert "Red means Case 1." in text and "The right answer is Case 1." in text
    assert "boxed" not in text


def test_reverse_rationales_are_taken_as_written_without_tags_and_box() -> None:
    model = Scripted([RIGHT, Said("Plain words."), Said(""), Said("So \\boxed{Case 2}")])
    rows, report = reverse_cot(SAMPLES, POLICIES, model, max_new_tokens=50)
    assert [row.rationale for row in rows] == ["It is red.", "Plain words.", "So"]
    assert report.dropped == 1


@pytest.mark.parametrize(
    ("text", "rationale"),
    [
        ("<think> It is red.", "It is red."),
        ("<think> It is <think> red. </think> \\boxed{1}", "It is red."),
        ("It is red. </think> \\boxed{1}", "It is red."),
        ("<think></think>\\boxed{1}", None),
        ("<think> \\boxed{1} </think>", None),
    ],
)
def test_reverse_rationales_make_well_formed_targets(text: str, rationale: str | None) -> None:
    rows, _ = reverse_cot(
        SAMPLES[:2], POLICIES, Scripted([Said(text), Said("Fine.")]), max_new_tokens=50
    )
    assert [row.rationale for row in rows] == [*([rationale] if rationale else []), "Fine."]
    assert all(parse_response(render_target(row, "cot")).well_formed for row in rows)


def test_a_limit_that_ends_all_completions_is_named() -> None:
    cut = [Said("It is", truncated=True)] * 3 + [Said("")]
    words = "the length limit ended 3 of 4 completions: raise cot_tokens; use a"
    with pytest.raises(UserError, match=f"none of 4 rows got a rationale; {words}nother model"):
        reverse_cot(SAMPLES, POLICIES, Scripted(cut), max_new_tokens=5)
    with pytest.raises(UserError, match=f"in 1 attempts; {words} stronger model"):
        forward_cot(SAMPLES, POLICIES, Scripted(cut), exact_answer, max_new_tokens=5, attempts=1)
