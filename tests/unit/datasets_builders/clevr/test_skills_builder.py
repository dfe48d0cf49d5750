"""The general-skills folder: whole, repeatable, and clear about bad arguments."""

from pathlib import Path

import pytest

from datasets_builders.clevr.skills_builder import build, plan
from trimpi.errors import UserError


def test_rows_tasks_policies_and_bytes(tmp_path: Path) -> None:
    folders = [build(tmp_path / name, seed=3, rows=3, workers=1, progress=False) for name in "ab"]
    assert folders[0].card["digest"] == folders[1].card["digest"]
    samples = folders[0].read("test")
    assert len(samples) == 24 == plan(rows=3)["splits"]["test"]
    for sample in samples:
        kind = sample.facts["task"]
        assert (sample.policy is not None) == kind.startswith(("policy", "recital"))
        assert len(sample.images) == (kind != "recital")
        assert sample.facts["target"] == ("cot" if kind.startswith("policy") else "answer")
    images = list((folders[0].root / "images").rglob("*.png"))
    assert len(images) == 21


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"row": 3}, "row: unknown argument"),
        ({"rows": 0}, "rows: must be a whole number"),
        ({"tasks": ["sing"]}, "tasks: unknown task 'sing'"),
        ({"tasks": []}, "tasks: must be a list"),
        ({"profile": "huge"}, "profile: must be one of"),
    ],
)
def test_bad_arguments(args: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        plan(**args)
