"""TRL's forms of rows: the policy taken out, the answer parsed."""

from typing import Any

import pytest

from datasets_builders.document.chat import read_chat
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.prompt import INSTRUCTION, build_messages, render_target
from trimpi.sample import Sample

PLAIN = Policy("Ostrel", (TextPart("# Weapons\n- **R1.** If item is knife, `block`.\n"),))
SHOWN = Policy("Lumen", (TextPart("Like this:"), ImagePart("/demo.png"), TextPart("\nelse no.")))
POLICIES = {"ostrel": PLAIN, "lumen": SHOWN}


def turns(*pairs: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_a_system_turn_that_is_the_policy_is_taken_out() -> None:
    row = turns(
        ("system", "# Weapons\n\n - **R1.** If item is knife,\n `block`."),
        ("user", "May it be shown?"),
        ("assistant", "<think> A knife: R1. </think> \\boxed{block}"),
    )
    chat = read_chat(row, ["a.png"], POLICIES)
    assert (chat.query, chat.answer, chat.rationale) == (
        "May it be shown?",
        "block",
        "A knife: R1.",
    )
    assert (chat.policy, chat.images) == ("ostrel", ("a.png",))


def test_messages_of_this_package_come_back() -> None:
    """What `build_messages` writes, in TRL's form: placeholders, and pictures in their order."""
    sample = Sample("1", ("/a.png", "/b.png"), "Which?", "lumen", "no", "Not like it.")
    (message,) = build_messages(sample, SHOWN)
    parts = [{"type": p["type"], "text": p.get("text")} for p in message["content"]]
    images = [p["image"] for p in message["content"] if p["type"] == "image"]
    row = turns(("user", parts), ("assistant", render_target(sample, "cot")))
    chat = read_chat(row, images, POLICIES)
    assert (chat.query, chat.answer, chat.rationale) == ("Which?", "no", "Not like it.")
    assert (chat.policy, chat.images) == ("lumen", ("/a.png", "/b.png"))


def test_pictures_inside_of_a_text_are_told_and_words_stay_apart() -> None:
    parts = [
        {"type": "text", "text": "Is"},
        {"type": "image"},
        {"type": "text", "text": "like "},
        {"type": "image"},
        {"type": "text", "text": "?"},
    ]
    chat = read_chat(turns(("user", parts), ("assistant", "no")), ["a", "b"], POLICIES)
    assert (chat.query, chat.images, chat.moved) == ("Is like ?", ("a", "b"), True)


def test_tags_in_a_plain_text_are_pictures() -> None:
    row = turns(("user", "<image>\n<image> Alike?"), ("assistant", "no"))
    chat = read_chat(row, ["a", "b"], POLICIES)
    assert (chat.query, chat.images, chat.moved) == ("Alike?", ("a", "b"), False)
    with pytest.raises(ValueError, match="turn 1 has a picture beyond the 1 of the column images"):
        read_chat(row, ["a"], POLICIES)


def test_pictures_of_the_policy_are_left_to_it_in_a_system_turn() -> None:
    system = [
        {"type": "text", "text": "Like this:"},
        {"type": "image"},
        {"type": "text", "text": "else no."},
    ]
    user = [{"type": "image"}, {"type": "text", "text": "Which?"}]
    chat = read_chat(
        turns(("system", system), ("user", user), ("assistant", "no")), ["demo", "own"], POLICIES
    )
    assert (chat.policy, chat.images, chat.query, chat.answer) == (
        "lumen",
        ("own",),
        "Which?",
        "no",
    )


def test_prompt_and_completion_as_texts_and_as_turns() -> None:
    texts = {"prompt": "Which?\n" + INSTRUCTION["answer"], "completion": "\\boxed{no}"}
    several = {
        "prompt": [
            {"role": "user", "content": "One?"},
            {"role": "assistant", "content": "Two."},
            {"role": "user", "content": "Three?"},
        ],
        "completion": [{"role": "assistant", "content": " four "}],
    }
    first, second = read_chat(texts, [], POLICIES), read_chat(several, [], POLICIES)
    assert (first.query, first.answer, first.policy) == ("Which?", "no", None)
    assert (second.query, second.answer) == ("User: One?\nAssistant: Two.\nUser: Three?", "four")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (turns(("user", "Which?")), "the last turn is of 'user'; end with the assistant's answer"),
        (
            turns(("system", "Be kind."), ("user", "Which?"), ("assistant", "no")),
            "the system turn ('Be kind.') is not the text of any of the policies; make them equal",
        ),
        (
            turns(("user", [{"type": "image"}, {"type": "image"}]), ("assistant", "no")),
            "turn 1 has a picture beyond the 1 of the column images; add it there",
        ),
        (turns(("user", [{"type": "video"}]), ("assistant", "no")), "found 'video'"),
        (
            turns(("user", "Which?"), ("assistant", [{"type": "image"}])),
            "the assistant's answer holds a picture; answers are texts, take it out",
        ),
        (turns(("assistant", "no")), "has no turn before the answer; put the request there"),
        ({"messages": "text"}, "messages must be a list of turns {role, content}"),
        ({"prompt": 3, "completion": "x"}, "prompt must be a text or a list of turns, found int"),
    ],
)
def test_what_is_wrong_with_a_chat(row: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as error:
        read_chat(row, ["a.png"], POLICIES)
    assert words in str(error.value)
