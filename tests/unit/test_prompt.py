"""The switch: policy visible or not, targets written, responses read."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.prompt import build_messages, parse_response, render_target
from trimpi.sample import Sample

POLICY = Policy("Zed", (TextPart("Rule one "), ImagePart("/x/p.png"), TextPart(" end.")))
SAMPLE = Sample("s1", ("/x/q.png",), "What now?", "zed", "Case 3", " because ", {"secret": "no"})


def kinds(content: list[dict[str, str]]) -> list[str]:
    return [part.get("image") or part["text"] for part in content]


def test_policy_comes_first_and_only_when_shown() -> None:
    shown = build_messages(SAMPLE, POLICY)[0]["content"]
    hidden = build_messages(SAMPLE, None)[0]["content"]
    assert kinds(shown)[:4] == ["Rule one ", "/x/p.png", " end.", "\n\n"]
    assert shown[4:] == hidden
    assert kinds(hidden)[0] == "/x/q.png"


def test_nothing_but_query_and_images_reaches_the_prompt() -> None:
    text = str(build_messages(SAMPLE, POLICY))
    assert "Case 3" not in text and "because" not in text and "secret" not in text


def test_targets() -> None:
    assert render_target(SAMPLE, "answer") == r"\boxed{Case 3}"
    assert render_target(SAMPLE, "cot") == r"<think> because </think> \boxed{Case 3}"
    with pytest.raises(ValueError, match="no rationale"):
        render_target(Sample("s", (), "q", None, "a"), "cot")


@pytest.mark.parametrize(
    ("text", "answer", "well_formed"),
    [
        (r"<think> a </think> \boxed{Case 1}", "Case 1", True),
        (r"<think>a</think>\boxed{Case 1}" + "\n", "Case 1", True),
        (r"\boxed{Case 1}", "Case 1", False),
        (r"<think> a </think> Case 1", None, False),
        (r"<think> a </think> \boxed{Case 1} and more", "Case 1", False),
        (r"<think> a </think> \boxed{1} \boxed{2}", "2", False),
        (r"<think> a \boxed{9} </think> \boxed{2}", "2", True),
        (r"<think> a <think> b </think> \boxed{2}", "2", False),
        (r"<think> a </think> \boxed{open", None, False),
        (r'<think> a </think> \boxed{{"name": {"x": 1}}}', '{"name": {"x": 1}}', True),
        ("", None, False),
    ],
)
def test_parsing(text: str, answer: str | None, well_formed: bool) -> None:
    response = parse_response(text)
    assert (response.answer, response.well_formed) == (answer, well_formed)


def test_answer_only_format() -> None:
    assert parse_response(r"\boxed{Yes}", "answer").well_formed
    assert not parse_response(r"I say \boxed{Yes}", "answer").well_formed


def test_targets_are_read_back(tmp_path: Path) -> None:
    for target in ("answer", "cot"):
        response = parse_response(render_target(SAMPLE, target), target)
        assert response.answer == "Case 3" and response.well_formed


def boxed_by_search(text: str) -> str | None:
    """The last complete box, each beginning tried on its own."""
    for start in range(len(text), -1, -1):
        depth = 1
        if not text.startswith("\\boxed{", start):
            continue
        for end in range(start + 7, len(text)):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            if not depth:
                return text[start + 7 : end].strip()
    return None


@given(st.lists(st.sampled_from(["\\boxed{", "{", "}", "a", " ", "\\"]), max_size=16).map("".join))
def test_the_last_complete_box_counts(text: str) -> None:
    assert parse_response(text).answer == boxed_by_search(text)
