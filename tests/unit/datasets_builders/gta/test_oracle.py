"""From base calls to the calls that the policy asks for."""

from pathlib import Path
from typing import Any

import pytest

from datasets_builders.gta import rules as module
from datasets_builders.gta.calls import Call
from datasets_builders.gta.oracle import RuledStep, apply_rules
from datasets_builders.gta.rules import read_version_rules
from datasets_builders.gta.source import Step, Task
from datasets_builders.gta.special import read_special_rules
from trimpi.errors import UserError

FILE = Path(module.__file__).with_name("rules.yaml")
VERSIONS = read_version_rules(FILE)
SPECIAL = read_special_rules(
    FILE,
    ("ImageDescription", "RegionAttributeDescription", "TextToBbox", "OCR", "MathOCR",
     "GoogleSearch"),
)  # fmt: skip
PROFILE = {"account_type": "B", "age": 30, "credits": 600}


def step(name: str, marks: frozenset[str] = frozenset(), **arguments: Any) -> Step:
    return Step(Call(name, arguments), f"result of {name}", marks=marks)


def ruled(task: Task) -> list[tuple[str, dict[str, Any], tuple[str, ...]]]:
    found: tuple[RuledStep, ...] = apply_rules(task, PROFILE, VERSIONS, SPECIAL)
    return [(s.call.name, dict(s.call.arguments), s.rules) for s in found]


def task(*steps: Step, images: int = 1, closed: bool = False, **more: Any) -> Task:
    names = {f"image/{n}.jpg": f"/x/{n}.jpg" for n in range(images)}
    return Task("t", "q", names, steps, closed, **more)


def test_versions_follow_the_profile_and_keep_their_rule() -> None:
    found = ruled(task(step("OCR", image="image/0.jpg"), step("Calculator", expression="1+1")))
    assert found == [
        ("OCR_v4", {"image": "image/0.jpg"}, ("S5", "OCR.2")),
        ("Calculator", {"expression": "1+1"}, ()),
    ]


def test_mathematical_pictures_are_read_by_another_tool() -> None:
    math = frozenset({"mathematical"})
    found = ruled(task(step("OCR", math, image="image/0.jpg"), step("OCR", image="image/0.jpg")))
    assert [(name, ids) for name, _, ids in found] == [
        ("MathOCR", ("S3", "S5")),
        ("OCR_v4", ("S5", "OCR.2")),
    ]


def test_k_follows_the_kind_of_question() -> None:
    for closed, k in ((True, 1), (False, 4)):
        ((name, arguments, ids),) = ruled(task(step("GoogleSearch", query="x", k=9), closed=closed))
        assert (name, arguments["k"], ids) == ("GoogleSearch_v3", k, ("S4", "GoogleSearch.3"))


def test_several_pictures_are_described_first_and_once() -> None:
    steps = (
        step("OCR", image="image/1.jpg"),
        step("ImageDescription", image="image/1.jpg"),
    )
    several = task(*steps, images=3, descriptions={"image/0.jpg": "a dog"})
    found = apply_rules(several, PROFILE, VERSIONS, SPECIAL)
    assert [(s.call.name, s.call.arguments["image"], s.result) for s in found] == [
        ("ImageDescription_v4", "image/0.jpg", "a dog"),
        ("ImageDescription_v4", "image/1.jpg", "result of ImageDescription"),
        ("ImageDescription_v4", "image/2.jpg", ""),
        ("OCR_v4", "image/1.jpg", "result of OCR"),
    ]
    assert found[0].rules == ("S1", "S5", "ImageDescription.2")
    assert found[0].thought == (
        "The request comes with several pictures, so I describe image/0.jpg before anything else."
    )
    assert found[3].rules == ("S5", "OCR.2")
    assert [s[0] for s in ruled(task(*steps))] == ["OCR_v4", "ImageDescription_v4"]  # one picture


def test_a_region_needs_its_box() -> None:
    about = {"image": "image/0.jpg", "bbox": "(0, 0, 1, 1)", "attribute": "color"}
    region = step("RegionAttributeDescription", **about)
    box = step("TextToBbox", image="image/0.jpg", text="hat")
    first, second = ruled(task(box, region))
    assert (first[0], first[2]) == ("TextToBbox", ("S2", "S5"))
    assert (second[0], second[2]) == (
        "RegionAttributeDescription_v2",
        ("S5", "RegionAttributeDescription.1"),
    )
    elsewhere = step("TextToBbox", image="image/9.jpg", text="hat")
    for steps in ((region,), (region, box), (elsewhere, region)):
        with pytest.raises(
            UserError, match=r"task 't': RegionAttributeDescription on 'image/0\.jpg'"
        ):
            ruled(task(*steps))


def test_the_box_that_a_region_quotes_is_the_one_that_was_needed() -> None:
    about = {"image": "image/0.jpg", "bbox": "(0, 0, 1, 1)", "attribute": "color"}
    region = step("RegionAttributeDescription", **about)
    hat, cat = (
        Step(Call("TextToBbox", {"image": "image/0.jpg", "text": text}), f"{box}, score 99")
        for text, box in (("hat", "(0, 0, 1, 1)"), ("cat", "(5, 5, 9, 9)"))
    )
    count = step("CountGivenObject", image="image/0.jpg", text="hat")
    found = ruled(task(hat, cat, count, region, region))
    assert ["S2" in ids for _, _, ids in found] == [True, False, False, False, False]
    plain = step("TextToBbox", image="image/0.jpg", text="hat")
    found = ruled(task(plain, plain, region))
    assert ["S2" in ids for _, _, ids in found] == [False, True, False]
    assert "S2" not in ruled(task(plain))[0][2]  # nothing needs it


def test_a_source_may_call_the_tool_that_a_rule_asks_for() -> None:
    ((name, _, ids),) = ruled(task(step("MathOCR", image="image/0.jpg")))
    assert (name, ids) == ("MathOCR", ("S3", "S5"))
