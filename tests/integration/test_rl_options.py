"""The RL stage with its options, end to end: resume, an early end, two processes."""

import json
from pathlib import Path

import pytest
import torch

from tests.rl_cases import by_length, rl_config, rl_inputs
from trimpi.model import check_model_folder, load_model
from trimpi.runs import read_metrics
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages import rl
from trimpi.stages.throughput import RATES

ROOT = Path(__file__).resolve().parents[2]


def half_silent(sample: Sample, completion: Completion) -> Score:
    """Every third sample is solved without spread; the others by the length of the text."""
    if int(sample.id.rpartition("-")[2]) % 3 == 0:
        return Score(1.0)
    return by_length(sample, completion)


def add_facts(data: DataFolder) -> None:
    """Two categories, `kind` 0 and 1."""
    file = data.root / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows = [{**row, "facts": {"kind": number % 2}} for number, row in enumerate(rows)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


class Interrupted:
    """`half_silent` that is cut off in the call of this number."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.seen = at, list[str]()

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        if len(self.seen) == self.at:
            raise KeyboardInterrupt
        self.seen.append(sample.id)
        return half_silent(sample, completion)


def test_a_resume_continues_prompts_counts_and_shares_to_the_bit(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    add_facts(data)
    config = rl_config(
        dynamic_sampling={"max_tries": 4},
        curriculum={"by": ["kind"]},
        policy_share="adaptive",
        policy_share_end=0.25,
        adaptive={"gap": 0.05, "decay": 0.5},
        aware_weighting="importance",
        aware_positives_only=True,
        updates_per_rollout=2,
        loss_type="dapo",
        beta=0.0,
        epochs=9.0,
        max_steps=10,
        save_steps=2,
    )
    graders = whole, first, second = Interrupted(), Interrupted(), Interrupted()
    found = [rl_inputs(qwen, data, tmp_path / name, grader)
             for name, grader in zip(("whole", "cut", "cut"), graders, strict=True)]  # fmt: skip
    expected = rl.run(config, found[0])
    first.at = len(whole.seen) * 3 // 4
    with pytest.raises(KeyboardInterrupt):
        rl.run(config, found[1])
    folder = rl.run(config, found[2])
    record = json.loads((found[2].output / "stage.json").read_text())
    assert record["resumed_from"] in ("checkpoint-4", "checkpoint-6", "checkpoint-8")
    assert whole.seen[-len(second.seen) :] == second.seen and len(second.seen) < len(whole.seen)
    a, b = (load_model(f, found[0].model_config).state_dict() for f in (expected, folder))
    assert all(torch.equal(a[name], b[name]) for name in a)
    logs = [
        [
            {k: v for k, v in row.items() if k not in ("step_time", *RATES)}
            for row in read_metrics(i.output)
        ]
        for i in found[:2]
    ]
    assert logs[0] == logs[1] and len(logs[0]) == 10
    assert {row["rollout/dynamic/tries"] for row in logs[0][::2]} > {1.0}
    uninterrupted = json.loads((found[0].output / "stage.json").read_text())
    assert record["dynamic_sampling"] == uninterrupted["dynamic_sampling"]
    assert record["dynamic_sampling"]["batches"] == 5


def test_data_without_signal_ends_the_stage_with_the_model_so_far(
    qwen: Path, data: DataFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def grader(sample: Sample, completion: Completion) -> Score:
        return Score(1.0)

    inputs = rl_inputs(qwen, data, tmp_path / "rl", grader)
    config = rl_config(
        dynamic_sampling={"max_tries": 2, "patience": 2},
        updates_per_rollout=2,
        max_steps=12,
        epochs=9.0,
    )
    check_model_folder(rl.run(config, inputs))
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["steps"] == 4 and len(read_metrics(inputs.output)) == 4
    assert stage["dynamic_sampling"]["exhausted"] == 2
    said = capsys.readouterr().out
    reason = (
        "the data has no signal left: 2 batches in a row were not filled (0 of 4 groups had "
        "signal in 2 tries; in the others 100% was right)"
    )
    assert f"rl: stopped after update 4 of 12: {reason}" in said
    assert reason in stage["dynamic_sampling"]["stopped"]
    assert said.count("warning: rl: step") == 2
