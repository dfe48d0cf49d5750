"""Context distillation, and a policy that fades, on a tiny model: what is asked and trained on."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_sft import Killed, killed_after, moved, spy_on_batches
from trimpi.batch import IGNORED
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.model import load_processor, model_digest
from trimpi.recipe import DistillConfig, ModelConfig, SftConfig
from trimpi.runs import read_json
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages import distill, own_answers, sft
from trimpi.stages.inputs import StageInputs

SIZES = {"epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2, "lora": None}


@pytest.fixture
def inputs(qwen: Path, qwen_config: ModelConfig, data: DataFolder, tmp_path: Path) -> StageInputs:
    return StageInputs(qwen, qwen_config, data, tmp_path / "distill", 0, exact_answer)


def settings(**more: Any) -> DistillConfig:
    return DistillConfig(**{**SIZES, "max_new_tokens": 6, "generation_batch_size": 1, **more})


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A random model rarely ends a turn; here what it wrote counts as ended."""
    generate = own_answers.generate_chunks

    def ended(*rest: Any, **more: Any) -> None:
        generate(*rest, **more)
        for file in (rest[3] / "completions").glob("*.jsonl"):
            rows = [json.loads(line) for line in file.read_text().splitlines()]
            lines = [json.dumps({**row, "truncated": False}) + "\n" for row in rows]
            file.write_text("".join(lines))

    monkeypatch.setattr(distill, "generate_chunks", ended)


def test_own_answers_alone_are_in_the_loss_and_no_policy_is_in_the_prompt(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch, ends: None, capsys: Any
) -> None:
    seen = spy_on_batches(monkeypatch)
    distill.run(settings(rollouts=2), inputs)
    rows = [json.loads(x) for x in (inputs.output / "completions.jsonl").read_text().splitlines()]
    kept = {row["text"].strip() for row in rows if row["verdict"] == "kept"}
    tokenizer = load_processor(inputs.model, inputs.model_config).tokenizer
    trained = set()
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            written = tokenizer.decode(labels[labels != IGNORED])
            trained.add(written.removesuffix("<|im_end|>"))
            assert "is there an object like" not in tokenizer.decode(ids)
    assert trained == kept
    stage = read_json(inputs.output / "stage.json")
    found = stage["own_answers"]
    assert found["asked"] == 16 and found["kept"] == stage["rows"] > 0
    assert stage["schedule"].startswith(f"{found['kept']} completions x 1 epochs")
    assert f"distill: {found['kept']} of 16 completions kept" in capsys.readouterr().out


def test_a_stage_killed_between_two_chunks_goes_on_to_the_same_model(
    inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: None
) -> None:
    whole = moved(inputs, output=tmp_path / "whole")
    reference = model_digest(distill.run(settings(), whole))
    write, count = own_answers.write_text, [0]

    def write_once(file: Path, text: str) -> None:
        if count[0] == 1:
            raise Killed
        count[0] += 1
        write(file, text)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(own_answers, "write_text", write_once)
        distill.run(settings(), inputs)
    assert [f.name for f in (inputs.output / "completions").iterdir()] == ["000000.jsonl"]
    assert model_digest(distill.run(settings(), inputs)) == reference


def test_nothing_left_is_told_before_training(inputs: StageInputs, ends: None) -> None:
    def wrong(sample: Sample, completion: Completion) -> Score:
        return Score(0.5)

    with pytest.raises(UserError, match=r"nothing is left to train on: 0 of 8 .* scored below 1"):
        distill.run(settings(filter="grader"), moved(inputs, grader=wrong))
    assert not (inputs.output / "stage.json").exists()


def test_rows_without_a_policy_and_without_room_are_refused(inputs: StageInputs) -> None:
    with pytest.raises(UserError, match="exceed the context") as told:
        distill.run(settings(max_new_tokens=10**6), inputs)
    assert len(str(told.value).splitlines()) == 8
    file = inputs.data.root / "train.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[3]["policy"] = None
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="row 'train-3': has no policy to distill"):
        distill.run(settings(), inputs)
    assert not (inputs.output / "completions").exists()


def test_a_fading_policy_is_whole_then_gone_and_a_resume_keeps_the_order(
    inputs: StageInputs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SftConfig(**{**SIZES, "epochs": 2, "show_policy": "fading", "save_steps": 1})
    tokenizer = load_processor(inputs.model, inputs.model_config).tokenizer
    with monkeypatch.context() as patch:
        seen = spy_on_batches(patch)
        reference = sft.run(config, moved(inputs, output=tmp_path / "whole"))
    shown = [
        "is there an object like" in tokenizer.decode(ids)
        for batch in seen
        for ids in batch["input_ids"]
    ]
    assert shown == [True] * 8 + [False] * 8
    stage = read_json(tmp_path / "whole" / "stage.json")
    assert stage["steps"] == 4 and stage["sequences"] == 16
    assert 0 < stage["tokens"]["policy"]["mean"] < stage["tokens"]["policy"]["max"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 7)  # in the second epoch
        sft.run(config, inputs)
    assert model_digest(sft.run(config, inputs)) == model_digest(reference)
