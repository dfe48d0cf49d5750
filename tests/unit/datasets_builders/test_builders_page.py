"""The worked example of docs/builders.md, run as it stands there."""

import re
import sys
from pathlib import Path

import pytest

from datasets_builders.check import check, warnings
from trimpi.data_step import prepare_data
from trimpi.recipe import DataConfig

PAGE = Path(__file__).parents[3] / "docs" / "builders.md"


def test_the_example_builds_checks_and_covers_its_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for form, name in (("markdown", "parcels.md"), ("python", "parcels.py")):
        found = re.search(rf"```{form}\n(.*?)```", text, re.DOTALL)
        assert found is not None
        (tmp_path / name).write_text(found[1], encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "parcels", raising=False)
    config = DataConfig(builder="parcels:build", args={"rows": 120}, seed=3)
    data = prepare_data(config, tmp_path / "data", "data", lambda line: None, marked=False)
    assert check(data.root) == [] and warnings(data.root) == []
    assert sum(data.card["splits"].values()) == 120
    rows = data.read("train_cot")
    assert {row.answer for row in rows} == {"refuse", "ask", "weigh", "take"}
    decided = next(row for row in rows if row.facts["rules"] == ["R3"])
    assert decided.rationale is not None
    assert "Rule R2: age is less than 30: no.\nRule R3: colour is blue: yes." in decided.rationale
    twin = prepare_data(config, tmp_path / "twin", "data", lambda line: None, marked=False)
    assert data.card["digest"] == twin.card["digest"]
