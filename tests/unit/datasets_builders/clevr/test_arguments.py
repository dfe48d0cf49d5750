"""Arguments of the ClevrPolicy builder: every fault in one pass, before anything is drawn."""

from typing import Any

import pytest

from datasets_builders.clevr.arguments import parse
from datasets_builders.clevr.builder import build, plan
from trimpi.errors import UserError


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("depth", 0, "whole number from 1 to 8, found 0"),
        ("depth", 9, "whole number from 1 to 8, found 9"),
        ("depth", True, "whole number"),
        ("depth", "2", "whole number"),
        ("variant", "X", "one of T, M"),
        ("policies", 0, "whole number from 1"),
        ("test", 0, "0 rows would leave the split empty"),
        ("train", -1, "whole number"),
        ("profile", "big", "one of clevr, tiny"),
        ("objects", 4, "[fewest, most]"),
        ("objects", [3, 2], "[fewest, most]"),
        ("objects", [0, 2], "[fewest, most]"),
        ("objects", [3, 11], "[fewest, most]"),
        ("renderer", "blender", "one of analytic, mitsuba"),
        ("samples", 0, "whole number from 1"),
        ("crop_share", 0, "above 0"),
        ("source", "/nowhere/at/all", "no folder is there"),
        ("generate", "module", "'module:name'"),
        ("workers", 0, "whole number from 1"),
        ("dept", 2, "did you mean 'depth'?"),
    ],
)
def test_a_bad_argument_is_named_with_its_cure(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse({key: value})
    assert str(caught.value).startswith(f"{key}: ") and message in str(caught.value)


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        plan(depth=0, variant="X", colour="red")
    assert len(str(caught.value).splitlines()) == 3


def test_faults_between_arguments() -> None:
    with pytest.raises(UserError, match="no split is left"):
        parse({"train": None, "train_cot": None, "test": None, "override": None})
    with pytest.raises(UserError, match="give both or neither"):
        parse({"width": 320})
    with pytest.raises(UserError, match="picture size 20x20"):
        parse({"width": 20, "height": 20})
    with pytest.raises(UserError, match="seed: must be a whole number"):
        plan(seed=-1)
    with pytest.raises(UserError, match="seed: must be"):
        build("unused", seed="0")  # type: ignore[arg-type]


def test_a_plan_counts_what_would_be_built() -> None:
    made = plan(policies=3, train=10, train_cot=None, test=2, override=1, depth=4)
    assert made["splits"] == {"train": 30, "test": 6, "override": 3} and made["pictures"] == 39
    assert made["args"]["width"] == 480 and made["args"]["objects"] == [3, 10]


def test_worker_counts_are_no_part_of_the_content() -> None:
    assert parse({"workers": 1}).content() == parse({"workers": 7}).content()
