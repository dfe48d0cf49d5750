"""Mixtures: rows of all parts together, and of each part alone."""

from pathlib import Path

import pytest

from datasets_builders.check import check
from datasets_builders.mixture import build, plan
from trimpi.errors import UserError

CLEVR = {
    "builder": "datasets_builders.clevr.builder:build",
    "args": {"depth": 1, "policies": 1, "train": None, "train_cot": 4, "test": 4,
             "override": None, "profile": "tiny", "workers": 1},
}  # fmt: skip
GUARD = {
    "builder": "datasets_builders.guardrail.builder:build",
    "args": {"policies": ["ostrel"], "train_cot": 6, "test": 4, "override": 3},
}


def test_parts_are_together_and_alone(tmp_path: Path) -> None:
    data = build(tmp_path / "all", seed=0, parts={"clevr": CLEVR, "desk": GUARD})
    assert check(data.root) == []
    counts = data.card["splits"]
    assert counts["train_cot"] == 10 and counts["train_cot_clevr"] == 4
    assert counts["train_cot_desk"] == 6 and counts["override"] == counts["override_desk"] == 3
    assert {s.id for s in data.read("test")} == {
        s.id for part in ("clevr", "desk") for s in data.read(f"test_{part}")
    }
    assert "desk-ostrel" in data.policies and "override/desk-ostrel" in data.policies
    assert {s.facts["part"] for s in data.read("test_desk")} == {"desk"}
    again = build(tmp_path / "twin", seed=0, parts={"clevr": CLEVR, "desk": GUARD})
    assert data.card["digest"] == again.card["digest"]


def test_a_part_may_be_a_folder(tmp_path: Path) -> None:
    from datasets_builders.guardrail.builder import build as build_guard

    build_guard(tmp_path / "guard", seed=0, **GUARD["args"])
    data = build(tmp_path / "all", seed=0, parts={"desk": {"folder": str(tmp_path / "guard")}})
    assert data.card["splits"]["train_cot_desk"] == 6


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ({}, "parts: must map names to {builder, args} or {folder}"),
        ({"part": {}}, "part: unknown argument; did you mean 'parts'?"),
        ({"parts": {"a b": GUARD}}, "parts.a b: a name is letters, digits and _"),
        ({"parts": {"a": {}}}, "parts.a: give either 'builder' (with 'args') or 'folder'"),
        ({"parts": {"a": {**GUARD, "sed": 1}}}, "parts.a.sed: unknown key; did you mean 'seed'?"),
        ({"parts": {"a": {"builder": "no.such:build"}}}, "parts.a: cannot load 'no.such:build'"),
        ({"parts": {"a": {"folder": "/nowhere"}}}, "parts.a: /nowhere: no such data folder"),
        (
            {"parts": {"a": {**GUARD, "args": {"test": 0}}, "b": {"folder": "/nowhere"}}},
            "parts.a: test: must be a whole number",
        ),
    ],
)
def test_wrong_parts(args: dict[str, object], line: str) -> None:
    with pytest.raises(UserError) as caught:
        plan(**args)
    assert line in str(caught.value)
