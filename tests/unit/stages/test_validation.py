"""Held-out rows answered while RL trains: which rows, what is measured, that nothing changes."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import by_length, rl_config, rl_inputs
from trimpi.errors import UserError
from trimpi.generate import ScriptedGenerator
from trimpi.grading import exact_answer
from trimpi.model import load_model
from trimpi.recipe import ModelConfig
from trimpi.runs import read_metrics
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages import rl
from trimpi.stages.validation import spread_rows, validate

RIGHT, WRONG = "<think> so </think> \\boxed{Case 2}", "<think> so </think> \\boxed{Case 9}"


def sample(number: int) -> Sample:
    return Sample(str(number), (), "?", None, "Case 2")


def test_rows_are_spread_over_the_split() -> None:
    samples = [sample(number) for number in range(10)]
    assert [row.id for row in spread_rows(samples, 4)] == ["0", "2", "5", "7"]
    assert spread_rows(samples, 10) == spread_rows(samples, 99) == samples


def test_what_is_measured() -> None:
    samples = [sample(number) for number in range(4)]
    answers = ScriptedGenerator([RIGHT, WRONG, "\\boxed{Case 2}", RIGHT])

    def grader(row: Sample, completion: Completion) -> Score:
        return Score(None) if row.id == "3" else exact_answer(row, completion)

    found = validate(answers, samples, grader, 20, "test.jsonl")
    assert found == {
        "validation/accuracy": 2 / 3,  # one row cannot be graded
        "validation/format": 3 / 4,
        "validation/length": (5 + 5 + 2 + 5) / 4,
    }


def test_without_a_graded_row_there_is_no_accuracy() -> None:
    found = validate(ScriptedGenerator([RIGHT]), [sample(0)], lambda *_: Score(None), 9, "t")
    assert "validation/accuracy" not in found and found["validation/format"] == 1


def test_a_grader_that_fails_is_told_with_its_row() -> None:
    def broken(row: Sample, completion: Completion) -> Score:
        raise KeyError("gold")

    with pytest.raises(UserError, match=r"test.jsonl: grader .*broken: row '0': failed with KeyE"):
        validate(ScriptedGenerator([RIGHT]), [sample(0)], broken, 9, "test.jsonl")


def test_it_is_logged_with_its_step_and_changes_nothing(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    def train(name: str, **more: Any) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
        inputs = rl_inputs(qwen, data, tmp_path / name, by_length)
        folder = rl.run(rl_config(max_steps=3, logging_steps=2, **more), inputs)
        model = load_model(folder, ModelConfig(path=str(folder)))
        return read_metrics(inputs.output), dict(model.state_dict())

    plain, weights = train("plain")
    asked = {"split": "train", "rows": 3, "every": 2}
    watched, same = train("watched", validation=asked)
    curve = [row for row in watched if "validation/accuracy" in row]
    assert [row["step"] for row in curve] == [0, 2, 3]
    assert all("reward" not in row and row["validation/seconds"] > 0 for row in curve)
    others = [row for row in watched if row not in curve]
    clock = {"step_time", "tokens_per_second", "rollouts_per_second"}
    assert [{k: v for k, v in row.items() if k not in clock} for row in others] == [
        {k: v for k, v in row.items() if k not in clock} for row in plain
    ]
    assert all(torch.equal(weights[name], same[name]) for name in weights)
