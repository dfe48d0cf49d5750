"""The RL stage end to end on a tiny Qwen2.5-VL: plain GRPO to the bit, resume, what is left."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from trl import GRPOTrainer

from tests.conftest import small_data
from tests.rl_cases import by_length, rl_config, rl_inputs
from trimpi.errors import UserError
from trimpi.generate import stop_token_ids
from trimpi.grading import Grader
from trimpi.model import (
    check_model_folder,
    load_model,
    load_processor,
    model_digest,
    read_lineage,
    visual_token_ids,
)
from trimpi.prompt import build_messages
from trimpi.recipe import RlConfig
from trimpi.runs import read_metrics
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages import rl
from trimpi.stages.inputs import StageInputs
from trimpi.stages.rewards import RolloutReward
from trimpi.stages.rl_arguments import grpo_arguments, plan_batches
from trimpi.stages.throughput import RATES


@pytest.fixture
def inputs(qwen: Path, data: DataFolder, tmp_path: Path) -> StageInputs:
    return rl_inputs(qwen, data, tmp_path / "rl")


def weights(folder: Path, config: Any) -> dict[str, torch.Tensor]:
    return dict(load_model(folder, config).state_dict())


def test_leaves_a_complete_model_and_a_full_record(inputs: StageInputs) -> None:
    config = rl_config(max_steps=3, preflight_prompts=2, preflight_rollouts=2)
    folder = rl.run(config, inputs)
    assert folder == inputs.output / "model"
    check_model_folder(folder)
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["stage"] == "rl" and stage["steps"] == 3 and stage["rows"] == 8
    assert stage["sequences"] == 3 * config.batch_size
    logged = [row["num_tokens"] for row in read_metrics(inputs.output) if "num_tokens" in row]
    assert stage["tokens_trained"] == logged[-1] > 0
    assert stage["output_digest"] == model_digest(folder) != model_digest(inputs.model)
    assert stage["gradients"]["without_gradient"] == [] and stage["gradients"]["tensors"] == 56
    assert stage["verified"]["max_abs"] <= stage["verified"]["limit"]
    assert stage["kl_reference"] == {
        "kind": "a frozen copy",
        "path": str(inputs.model),
        "digest": model_digest(inputs.model),
        "beta": 0.01,
    }
    assert stage["group_layout"] == ["free", "aware"] * 2
    assert "2 prompts x 4 completions (2 with the policy" in stage["schedule"]
    assert stage["selftest"] == json.loads((inputs.output / "selftest.json").read_text())
    preflight = json.loads((inputs.output / "preflight.json").read_text())
    assert (preflight["prompts"], preflight["rollouts"]) == (2, 2) and "aware" in preflight
    assert [step["stage"] for step in read_lineage(folder)["steps"]] == ["rl"]
    rows = read_metrics(inputs.output)
    assert [row["step"] for row in rows] == [1, 2, 3]
    halves = [
        f"rollout/{half}/{name}"
        for half in ("aware", "free")
        for name in
        ("reward", "accuracy", "format", "length", "truncated", "logp_without_policy")
    ]  # fmt: skip
    silent = [f"rollout/no_signal/{name}" for name in ("free", "pooled", "rescued")]
    others = ["reward", "kl", "clip_ratio/region_mean", "learning_rate", "step_time", "loss"]
    for row in rows:
        assert all(isinstance(row[key], float) for key in halves + silent + others), row
    assert rows[0]["kl"] == 0 < rows[2]["kl"] and rows[0]["rollout/aware/logp_without_policy"] < 0
    before = (inputs.output / "stage.json").stat().st_mtime_ns
    assert rl.run(config, inputs) == folder  # done already
    assert (inputs.output / "stage.json").stat().st_mtime_ns == before
    assert not (inputs.output / "checkpoints").exists()


@pytest.mark.parametrize("updates", [1, 2])
def test_without_policy_it_is_trl_bit_for_bit(inputs: StageInputs, updates: int) -> None:
    """TRL's own trainer on policy-free prompts with pictures by path, same seeds: same weights."""
    sizes = {"updates_per_rollout": updates, "max_steps": 2 * updates}
    plain = {"share_pictures": False, "trim_padding": False, "deal_rows": False}
    config = rl_config(policy_fraction=0.0, generation="plain", scoring=plain, **sizes)
    folder = rl.run(config, inputs)

    samples = inputs.data.read("train")
    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config, train=True)
    stops = stop_token_ids(model, processor)
    visual = visual_token_ids(model.config, processor.tokenizer)
    plan = plan_batches(config, len(samples), 1)
    reward = RolloutReward(samples, by_length, processor.tokenizer, stops)
    stock = GRPOTrainer(
        model=model,
        args=grpo_arguments(config, inputs, plan, visual, stops),
        reward_funcs=[lambda **columns: reward(columns["completion_ids"], columns["row"])],
        train_dataset=Dataset.from_dict(
            {
                "row": list(range(8)),
                "prompt": [
                    [{"role": "user", "content": [{"type": "text", "text": s.query}]}]
                    for s in samples
                ],
            }
        ).with_transform(
            lambda batch: {
                "row": batch["row"],
                "prompt": [build_messages(samples[row], None) for row in batch["row"]],
            }
        ),
        processing_class=processor,
    )
    stock.train()
    losses = [row["loss"] for row in stock.state.log_history if "loss" in row]
    assert [row["loss"] for row in read_metrics(inputs.output)] == losses
    ours = weights(folder, inputs.model_config)
    start = weights(inputs.model, inputs.model_config)
    for name, parameter in model.state_dict().items():
        assert torch.equal(ours[name], parameter), name
    assert any(not torch.equal(ours[name], start[name]) for name in ours)


class Stopping:
    """A grader that notes the samples it sees, and interrupts the stage at a call."""

    def __init__(self, at: int | None = None) -> None:
        self.seen: list[str] = []
        self.at = at

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        if len(self.seen) == self.at:
            raise KeyboardInterrupt
        self.seen.append(sample.id)
        return by_length(sample, completion)

    def batches(self, rows: int = 8) -> list[list[str]]:
        """Samples of each rollout batch, the self-test's four calls aside."""
        return [self.seen[i : i + rows] for i in range(0, len(self.seen), rows)]


@pytest.mark.parametrize(
    ("updates", "killed_in", "save_steps", "last"),
    # A rollout batch takes 2 of the 8 prompts, so an epoch has 4 of them.
    [(1, 6, 2, 6), (1, 8, None, 8), (2, 5, 3, 8)],
    ids=["mid epoch", "at an epoch's end", "several updates per rollout"],
)
def test_a_resume_in_a_later_epoch_continues_to_the_bit(
    updates: int,
    killed_in: int,
    save_steps: int | None,
    last: int,
    qwen: Path,
    data: DataFolder,
    tmp_path: Path,
) -> None:
    config = rl_config(
        updates_per_rollout=updates, epochs=2.5, max_steps=None, save_steps=save_steps, lr=3e-3
    )

    def stage(name: str, grader: Grader) -> StageInputs:
        return rl_inputs(qwen, data, tmp_path / name, grader)

    whole = Stopping()
    expected = rl.run(config, stage("whole", whole))
    first = Stopping(at=4 + 8 * killed_in + 3)
    with pytest.raises(KeyboardInterrupt):
        rl.run(config, stage("cut", first))
    second = Stopping()
    cut = stage("cut", second)
    found = rl.run(config, cut)
    record = json.loads((cut.output / "stage.json").read_text())
    assert record["resumed_from"] == f"checkpoint-{last}" and record["steps"] == 10 * updates
    # The prompts of the resumed part are those that the uninterrupted run trained there.
    done = last // updates
    assert second.seen == whole.seen[4 + 8 * done :]
    epochs = [tuple(sorted(set(whole.seen[4 + 32 * e : 36 + 32 * e]))) for e in range(2)]
    assert len(set(epochs)) == 1 and whole.seen[4:36] != whole.seen[36:68]
    a, b = (weights(folder, cut.model_config) for folder in (expected, found))
    for name in a:
        assert torch.equal(a[name], b[name]), name
    rows = [
        {k: v for k, v in row.items() if k not in ("step_time", *RATES)}
        for folder in (tmp_path / "whole", cut.output)
        for row in read_metrics(folder)
    ]
    assert rows[: 10 * updates] == rows[10 * updates :]


def test_a_kill_after_the_last_update_trains_no_further(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = rl_config(max_steps=2, save_steps=1)
    finish = rl.finish_stage
    kept: list[dict[str, torch.Tensor]] = []

    def killed(config: Any, inputs: Any, model: Any, *args: Any) -> Path:
        kept.append({name: p.detach().clone() for name, p in model.state_dict().items()})
        raise KeyboardInterrupt

    monkeypatch.setattr(rl, "finish_stage", killed)
    with pytest.raises(KeyboardInterrupt):
        rl.run(config, inputs)
    monkeypatch.setattr(rl, "finish_stage", finish)
    after = weights(rl.run(config, inputs), inputs.model_config)
    for name, parameter in kept[0].items():
        assert torch.equal(after[name], parameter), name
    assert len(read_metrics(inputs.output)) == 2


def test_lora_is_merged_and_its_reference_is_the_base(inputs: StageInputs) -> None:
    config = rl_config(lora={"r": 4}, lr=1e-2, max_steps=3)
    folder = rl.run(config, inputs)
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["verified"]["kind"] == "merge"
    assert stage["kl_reference"]["kind"] == "the same weights, adapter off"
    assert stage["selftest"]["reference_difference"]["mean"] < 1e-5
    assert stage["parameters"]["trainable"] < stage["parameters"]["total"] / 2
    before, after = (weights(f, inputs.model_config) for f in (inputs.model, folder))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("language_model" in name for name in changed)
    assert not (folder / "adapter_config.json").exists()


def test_a_frozen_vision_tower_stays(inputs: StageInputs) -> None:
    folder = rl.run(rl_config(freeze_vision=True, beta=0.0), inputs)
    before, after = (weights(f, inputs.model_config) for f in (inputs.model, folder))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("visual" in name for name in changed)
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["kl_reference"] == {"kind": "none", "beta": 0.0}
    assert stage["gradients"]["without_gradient"] == []


def test_learns_what_is_rewarded(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    """Vowels are rewarded: their share must rise."""

    def vowels(sample: Sample, completion: Completion) -> Score:
        letters = [c for c in completion.text.lower() if c.isalpha()]
        return Score(sum(c in "aeiou" for c in letters) / max(len(letters), 1))

    config = rl_config(max_steps=36, epochs=9.0, lr=6e-3, group_size=8, beta=0.0)
    inputs = rl_inputs(qwen, data, tmp_path / "rl", vowels)
    rl.run(config, inputs)
    for half in ("free", "aware"):
        rewards = [row[f"rollout/{half}/accuracy"] for row in read_metrics(inputs.output)]
        assert sum(rewards[-4:]) / 4 > sum(rewards[:4]) / 4 + 0.15, rewards


def test_rows_without_a_policy_are_refused_before_the_model_is_loaded(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = inputs.data.root / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[2]["policy"] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(rl, "load_model", lambda *args, **more: pytest.fail("loaded"))
    with pytest.raises(UserError, match="row 'train-2': has no policy"):
        rl.run(rl_config(), inputs)


def test_plain_grpo_takes_rows_without_a_policy(inputs: StageInputs) -> None:
    file = inputs.data.root / "train.jsonl"
    rows = [{**json.loads(line), "policy": None} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    check_model_folder(rl.run(rl_config(policy_fraction=0.0, max_steps=1), inputs))


def test_a_prompt_without_room_for_the_answer_is_refused(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rl, "load_model", lambda *args, **more: pytest.fail("loaded"))
    message = (
        r"row 'train-0': .* completion 4000\) exceed the context of 4096; lower max_new_tokens"
    )
    with pytest.raises(UserError, match=message):
        rl.run(rl_config(max_new_tokens=4000), inputs)


def test_a_failing_grader_stops_the_stage_and_names_the_sample(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    def grader(sample: Sample, completion: Completion) -> Score:
        raise ZeroDivisionError("no credits")

    with pytest.raises(UserError, match=r"row 'train-0': failed with ZeroDivisionError: no cr"):
        rl.run(rl_config(), rl_inputs(qwen, data, tmp_path / "rl", grader))


def test_a_loss_that_is_not_finite_stops_the_stage_and_names_its_rows(inputs: StageInputs) -> None:
    """A cold temperature makes the KL term overflow after the first update."""
    with pytest.raises(
        UserError, match=r"rl: step \d: the loss is inf on train row 'train-\d'.*lower lr"
    ):
        rl.run(rl_config(temperature=0.01, lr=0.1, max_steps=4), inputs)
    assert not (inputs.output / "model").exists()


def test_more_prompts_than_rows_are_refused(inputs: StageInputs) -> None:
    with pytest.raises(UserError, match="8 rows are fewer than prompts_per_step 16"):
        rl.run(RlConfig(prompts_per_step=16, group_size=4, micro_batch_size=4), inputs)


def test_text_only_requests_under_a_policy_with_pictures(qwen: Path, tmp_path: Path) -> None:
    """The policy's pictures are generated from; the scored batch has none at all."""
    data = small_data(tmp_path / "data")
    file = data.root / "train.jsonl"
    rows = [{**json.loads(line), "images": []} for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inputs = rl_inputs(qwen, data, tmp_path / "rl")
    check_model_folder(rl.run(rl_config(beta=0.0), inputs))
    stage = json.loads((inputs.output / "stage.json").read_text())
    missing = stage["gradients"]["without_gradient"]
    assert missing and all("visual" in name for name in missing)


def test_a_sigkill_leaves_nothing_that_passes_for_whole(inputs: StageInputs) -> None:
    code = f"""
from pathlib import Path
from tests.rl_cases import rl_config, rl_inputs
from trimpi.sample import DataFolder
from trimpi.stages import rl
data, output = DataFolder(Path({str(inputs.data.root)!r})), Path({str(inputs.output)!r})
inputs = rl_inputs(Path({str(inputs.model)!r}), data, output)
rl.run(rl_config(epochs=900.0, max_steps=3000, save_steps=2), inputs)
"""
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root)
    deadline = time.monotonic() + 120
    while len(read_metrics(inputs.output)) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (inputs.output / "stage.json").exists()
    assert not (inputs.output / "model").exists()
    check_model_folder(rl.run(rl_config(epochs=900.0, max_steps=4, save_steps=2), inputs))
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["resumed_from"].startswith("checkpoint-") and stage["steps"] >= 4
    steps = [row["step"] for row in read_metrics(inputs.output)]
    assert steps == list(range(1, len(steps) + 1))
