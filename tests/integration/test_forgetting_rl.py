"""Controls of forgetting in RL: the base as reference of the KL term, and prompts left out."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import small_data
from tests.rl_cases import by_length, make_trainer, rl_config, rl_inputs, rollout_rows
from trimpi.errors import UserError
from trimpi.generate import Generated
from trimpi.model import load_model, load_processor, model_digest, read_lineage, save_model
from trimpi.recipe import ModelConfig
from trimpi.runs import read_json
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages import instance_filter, rl
from trimpi.stages.inputs import StageInputs
from trimpi.stages.instance_filter import kept_rows
from trimpi.stages.rewards import Graded


@pytest.fixture(scope="module")
def trained(qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has moved away from `qwen`."""
    config = ModelConfig(path=str(qwen))
    model = load_model(qwen, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    folder = tmp_path_factory.mktemp("trained") / "model"
    return save_model(model, load_processor(qwen, config), folder, read_lineage(qwen))


def inputs_of(model: Path, base: Path, data: DataFolder, output: Path, **more: Any) -> StageInputs:
    return StageInputs(**{**vars(rl_inputs(model, data, output, **more)), "base": base})


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_the_reference_is_the_base(
    trained: Path, qwen: Path, data: DataFolder, tmp_path: Path, lora: Any
) -> None:
    """Reference log-probabilities against those of the base itself, and of the start model."""
    inputs = inputs_of(trained, qwen, data, tmp_path / "rl")
    trainer = make_trainer(rl_config(kl_reference="base", lora=lora, epochs=1), inputs)
    assert trainer.accelerator.unwrap_model(trainer.model).config._name_or_path == str(trained)
    batch = trainer._generate_and_score_completions(rollout_rows(trainer))
    kept = batch["completion_mask"].bool()
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
    mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
    more = {
        name: batch[name]
        for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")
        if name in batch
    }
    size, found = batch["completion_ids"].size(1), batch["ref_per_token_logps"][kept]
    for folder, same in ((qwen, True), (trained, False)):
        model = load_model(folder, ModelConfig(path=str(folder)))
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, **more).logits[:, -size - 1 : -1]
        logps = logits.float().log_softmax(-1)
        logps = logps.gather(2, batch["completion_ids"].unsqueeze(2)).squeeze(2)[kept]
        gap = float((logps - found).abs().mean())
        assert gap < 1e-4 if same else gap > 0.01, folder
    assert not trainer.ref_model.training


@pytest.mark.parametrize("lora", [None, {"r": 2}])
def test_the_record_names_the_base_which_stays(
    trained: Path, qwen: Path, data: DataFolder, tmp_path: Path, lora: Any
) -> None:
    inputs = inputs_of(trained, qwen, data, tmp_path / "rl")
    folder = rl.run(rl_config(kl_reference="base", beta=0.5, lora=lora), inputs)
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["kl_reference"] == {
        "kind": "a frozen copy",
        "path": str(qwen),
        "digest": model_digest(qwen),
        "beta": 0.5,
        "of": "base",
    }
    assert "reference_difference" not in stage["selftest"]
    assert model_digest(folder) not in (model_digest(trained), model_digest(qwen))
    saved = json.loads((folder / "config.json").read_text())
    assert str(qwen) not in json.dumps(saved)


def test_a_stage_without_a_base_does_not_guess(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="needs the model that the recipe starts from"):
        rl.run(rl_config(kl_reference="base"), rl_inputs(qwen, data, tmp_path / "rl"))


@pytest.mark.parametrize(
    ("trainer", "lora", "fault"),
    [
        ({"sync_ref_model": True}, None, "sync_ref_model: moves the reference away from the base"),
        ({"fsdp": "full_shard"}, {"r": 2}, "fsdp: does not shard the reference"),
    ],
)
def test_trainer_keys_that_break_the_reference(
    qwen: Path, data: DataFolder, tmp_path: Path, trainer: Any, lora: Any, fault: str
) -> None:
    inputs = inputs_of(qwen, qwen, data, tmp_path / "rl")
    with pytest.raises(UserError, match=fault):
        rl.run(rl_config(kl_reference="base", trainer=trainer, lora=lora), inputs)


class Scripted:
    """Answers by row: `right` maps an id to the halves that are right, ever or `always`."""

    def __init__(self, right: dict[str, str], samples: list[Sample]) -> None:
        self.right, self.ids = right, [s.id for s in samples]
        self.calls: list[tuple[int, int]] = []

    def __call__(self, prompts: list[Any], *, seed: int, **kwargs: Any) -> list[Generated]:
        aware = "Condition 1" in prompts[0][0]["content"][0].get("text", "")
        self.calls.append((len(prompts), seed))
        half = "aware" if aware else "free"
        return [Generated(half, 1, False) for _ in prompts]

    def grade(self, sample: Sample, completion: Completion) -> Graded:
        known = self.right.get(sample.id, "")
        value = float(known == "always" or completion.text == known)
        return Graded(value + 0.5, value, 1.0, completion)


RIGHT = {"train-0": "free", "train-1": "aware", "train-2": "always", "train-3": "free"}


@pytest.mark.parametrize(
    ("more", "kept", "asked"),
    [
        ({"instance_filter": "solvable"}, [0, 1, 2, 3], [32, 32]),
        ({"instance_filter": "free_only"}, [0, 2, 3], [64]),
        ({"instance_filter": "solvable", "filter_solved": True}, [0, 1, 3], [32, 32]),
        ({"instance_filter": "solvable", "policy_fraction": 0}, [0, 2, 3], [64]),
    ],
)
def test_what_is_kept(
    data: DataFolder, tmp_path: Path, more: Any, kept: list[int], asked: list[int]
) -> None:
    """Form alone (a reward of 0.5) solves nothing; all eight rows get eight rollouts each."""
    samples = data.read("train")
    script = Scripted(RIGHT, samples)
    config = rl_config(**more)
    rows = kept_rows(config, samples, data, script, script.grade, 0, tmp_path)
    assert rows == kept and [count for count, _ in script.calls] == asked
    found = json.loads((tmp_path / "instances.json").read_text())
    assert (found["rows"], found["kept"], found["always_solved"]) == (
        8,
        len(kept),
        1 + (asked == [64]) * 2,
    )
    assert [i["id"] for i in found["instances"] if i["kept"]] == [f"train-{k}" for k in kept]
    if len(asked) == 2:
        assert found["rescued"] == 1 and found["never_solved"] == 4
        assert found["instances"][1] == {
            "id": "train-1", "free": 0.0, "aware": 1.0, "solved": 0.5, "kept": True
        }  # fmt: skip
    assert kept_rows(config, samples, data, script, script.grade, 0, tmp_path) == kept
    assert len(script.calls) == len(asked)


def test_a_filter_that_was_cut_off_goes_on(
    data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(instance_filter, "BLOCK", 3)
    samples = data.read("train")
    config = rl_config(instance_filter="free_only")
    whole = Scripted(RIGHT, samples)
    expected = kept_rows(config, samples, data, whole, whole.grade, 0, tmp_path / "whole")
    assert [count for count, _ in whole.calls] == [24, 24, 16]
    assert len({seed for _, seed in whole.calls}) == 3

    class Cut(Scripted):
        def grade(self, sample: Sample, completion: Completion) -> Graded:
            if sample.id == "train-4":
                raise KeyboardInterrupt
            return super().grade(sample, completion)

    cut = Cut(RIGHT, samples)
    with pytest.raises(KeyboardInterrupt):
        kept_rows(config, samples, data, cut, cut.grade, 0, tmp_path / "cut")
    again = Scripted(RIGHT, samples)
    assert kept_rows(config, samples, data, again, again.grade, 0, tmp_path / "cut") == expected
    assert again.calls == whole.calls[1:]
    one, other = (read_json(tmp_path / name / "instances.json") for name in ("whole", "cut"))
    assert one == other


@pytest.mark.parametrize(
    ("right", "left"),
    [
        ({}, "no row of 8 (8 never solved in 8 rollouts"),
        ({"train-2": "free"}, "1 rows, fewer than"),
    ],
)
def test_too_few_rows_are_a_clear_end(
    data: DataFolder, tmp_path: Path, right: dict[str, str], left: str
) -> None:
    samples = data.read("train")
    script, config = Scripted(right, samples), rl_config(instance_filter="solvable")
    with pytest.raises(UserError) as caught:
        kept_rows(config, samples, data, script, script.grade, 0, tmp_path)
    assert f"rl: instance_filter solvable leaves {left}" in str(caught.value)
    assert "set it to none" in str(caught.value)


def red_alone(sample: Sample, completion: Completion) -> Score:
    """Rows of a red disc are rewarded now and then, others never."""
    return by_length(sample, completion) if sample.answer == "Case 1" else Score(0.0)


def test_rl_trains_on_the_kept_rows_alone(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    seen: set[str] = set()

    def grader(sample: Sample, completion: Completion) -> Score:
        seen.add(sample.id)
        return red_alone(sample, completion)

    inputs = inputs_of(qwen, qwen, data, tmp_path / "rl", grader=grader)
    config = rl_config(instance_filter="solvable", filter_rollouts=4, preflight_prompts=2)
    rl.run(config, inputs)
    stage = json.loads((inputs.output / "stage.json").read_text())
    found = json.loads((inputs.output / "instances.json").read_text())
    kept = {i["id"] for i in found["instances"] if i["kept"]}
    assert kept and kept <= {"train-0", "train-4"}
    assert stage["rows"] == len(kept) and stage["instances"]["kept"] == len(kept)
    assert "instances" not in stage["instances"]
    assert len(seen) == 8


PROCESS = """
import json, sys
from pathlib import Path
from accelerate import PartialState
from trimpi.generate import Generated
from trimpi.recipe import RlConfig
from trimpi.sample import DataFolder
from trimpi.stages.instance_filter import kept_rows
from trimpi.stages.rewards import Graded

calls, state, out = [], PartialState(cpu=True), Path(sys.argv[1])
data = DataFolder(Path(sys.argv[2]))
samples = data.read("train")

def generate(prompts, **kwargs):
    calls.append(len(prompts))
    return [Generated("", 1, False) for _ in prompts]

def grade(sample, completion):
    value = float(int(sample.id.removeprefix("train-")) % 7 == 0)
    return Graded(value, value, 1.0, completion)

config = RlConfig(instance_filter="free_only", filter_rollouts=2, prompts_per_step=2)
rows = kept_rows(config, samples, data, generate, grade, 0, out)
(out / f"rank-{state.process_index}").write_text(json.dumps([rows, calls]))
"""


def test_two_processes_keep_the_same_rows(tmp_path: Path) -> None:
    """Each tries a share of the three blocks; both go on with what all of them found."""
    data = small_data(tmp_path / "data", rows=70)
    root, port = Path(__file__).resolve().parents[2], free_port()
    shared = {**os.environ, "PYTHONPATH": str(root), "WORLD_SIZE": "2"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, "-c", PROCESS, str(tmp_path), str(data.root)]
    started = [
        subprocess.Popen(command, env={**shared, "RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=300) for process in started] == [0, 0]
    ranks = [json.loads((tmp_path / f"rank-{rank}").read_text()) for rank in (0, 1)]
    assert ranks == [[list(range(0, 70, 7)), [64, 12]], [list(range(0, 70, 7)), [64]]]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
