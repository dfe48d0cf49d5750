"""Rows of an epoch of their own, and what fades from them."""

import json
from itertools import pairwise

import pytest

from trimpi.batch import IGNORED, Encoded
from trimpi.errors import UserError
from trimpi.recipe import SftConfig
from trimpi.sample import DataFolder
from trimpi.schedule import plan_schedule
from trimpi.stages.epoch_rows import EpochRows, blank_rows
from trimpi.stages.sft import Fading


def epoch(rows: EpochRows, number: int) -> list[int]:
    rows.set_epoch(number)
    return list(rows)


def test_an_epoch_yields_its_own_rows_in_an_order_of_its_own() -> None:
    rows = EpochRows(6, 18, seed=3)
    assert len(rows) == 6
    orders = [epoch(rows, number) for number in range(3)]
    for number, order in enumerate(orders):
        assert sorted(order) == list(range(6 * number, 6 * number + 6))
    assert len({tuple(row % 6 for row in order) for order in orders}) == 3
    assert epoch(EpochRows(6, 18, seed=3), 1) == orders[1]  # as after a resume
    assert epoch(EpochRows(6, 18, seed=4), 1) != orders[1]
    with pytest.raises(IndexError, match="epoch 3 of a table of 3"):
        epoch(rows, 3)
    with pytest.raises(ValueError, match="18 rows is not made of epochs of 5"):
        EpochRows(5, 18, 0)


def test_blanks_fill_the_last_batch_of_every_epoch() -> None:
    rows = EpochRows(5, 5, seed=3, blanks=3, same=True)
    assert len(rows) == 8
    orders = [epoch(rows, number) for number in range(9)]
    assert all(sorted(order[:5]) == list(range(5)) and order[5:] == [5, 6, 7] for order in orders)
    assert orders[0] == [*epoch(EpochRows(5, 5, seed=3), 0), 5, 6, 7]
    encoded = [Encoded([1] * n, [1] * n, {}, ("a.png",) * (n > 2)) for n in (2, 5, 4)]
    assert blank_rows(encoded, 5, 2, 1) == []
    filled = blank_rows(encoded, 5, 2, 2)
    # The shortest with a picture: the vision tower has to be used by every process.
    assert filled == [Encoded([1] * 4, [IGNORED] * 4, {}, ("a.png",))] * 3
    assert blank_rows(encoded, 8, 2, 2) == []
    assert len(blank_rows(encoded[:1], 3, 1, 2)) == 1


def test_sections_leave_in_equal_steps_and_none_comes_back(data: DataFolder) -> None:
    rules = "\n".join(f"Condition {n}: is it {n}?" for n in range(1, 7))
    policy = {"name": "Lumen Charter", "parts": [{"text": f"Lumen Charter.\n\n{rules}"}]}
    (data.root / "policies" / "lumen.json").write_text(json.dumps(policy))
    data = DataFolder(data.root)
    fading, samples = Fading(data, seed=0), data.read("train_cot")
    shown = {}
    for sample in samples:
        views = [fading.shown(e, 4, sample) for e in range(4)]
        assert views[0] is data.policy_of(sample) and views[3] is None
        lines = [set(view.text.split("\n")) if view else set() for view in views]
        assert [sum(line.startswith("Cond") for line in each) for each in lines] == [6, 4, 2, 0]
        assert all(after <= before for before, after in pairwise(lines))
        assert "Lumen Charter." in lines[2]
        shown[sample.id] = lines[2]
    assert len({frozenset(lines) for lines in shown.values()}) > 1, "rows lose the same sections"
    again = Fading(data, seed=0).shown(2, 4, samples[0])
    assert again is not None and set(again.text.split("\n")) == shown[samples[0].id]


def test_fading_needs_a_second_epoch() -> None:
    with pytest.raises(ValueError, match="False, True or 'fading'"):
        SftConfig.model_validate({"show_policy": "yes"})
    for number in (1, 0, 1.0):
        with pytest.raises(ValueError, match=f"true, false or fading, found {number!r}"):
            SftConfig.model_validate({"show_policy": number})
    with pytest.raises(ValueError, match="1 epochs are one; give more epochs"):
        SftConfig(show_policy="fading", epochs=1.0)
    config = SftConfig(show_policy="fading", epochs=4.0, batch_size=8, max_steps=2)
    assert plan_schedule(config, 8, 1).updates == 2
    with pytest.raises(UserError, match="within the first of 2 updates; raise epochs or max_steps"):
        plan_schedule(config, 16, 1, "stages.sft")
