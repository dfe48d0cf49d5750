"""VM-CPT end to end on a tiny Qwen2.5-VL: what is in the loss, how it is averaged, what is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import add_texts, small_data
from trimpi.batch import IGNORED, collate, encode_example
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.model import (
    check_model_folder,
    load_config,
    load_model,
    load_processor,
    model_digest,
    read_lineage,
    visual_token_ids,
)
from trimpi.prompt import build_messages, render_target
from trimpi.recipe import CptConfig, ModelConfig
from trimpi.runs import read_metrics
from trimpi.sample import DataFolder
from trimpi.stages import cpt
from trimpi.stages.inputs import StageInputs
from trimpi.stages.supervised import SupervisedTrainer


@pytest.fixture
def inputs(qwen: Path, qwen_config: ModelConfig, data: DataFolder, tmp_path: Path) -> StageInputs:
    return StageInputs(qwen, qwen_config, data, tmp_path / "cpt", 0, exact_answer)


def settings(**more: Any) -> CptConfig:
    return CptConfig(**{"epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2, **more})


def test_leaves_a_complete_model_that_learned(inputs: StageInputs) -> None:
    folder = cpt.run(settings(epochs=6, lr=3e-3), inputs)
    assert folder == inputs.output / "model"
    check_model_folder(folder)
    losses = [row["loss"] for row in read_metrics(inputs.output)]
    assert len(losses) == 12 and losses[-1] < losses[0] - 2
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["stage"] == "cpt" and stage["steps"] == 12 and stage["rows"] == 8
    assert stage["sequences"] == 48
    assert stage["model"]["digest"] == model_digest(inputs.model)
    assert stage["output_digest"] == model_digest(folder) != model_digest(inputs.model)
    assert stage["gradients"] == {"steps": 1, "tensors": 56, "without_gradient": []}
    assert stage["verified"]["kind"] == "reload"
    assert stage["verified"]["max_abs"] <= stage["verified"]["limit"]
    assert stage["tokens"]["images"]["max"] == 4 + 24 and stage["tokens"]["policy"]["max"] > 20
    steps = read_lineage(folder)["steps"]
    assert [step["stage"] for step in steps] == ["cpt"]
    assert steps[0]["input"] == model_digest(inputs.model)
    assert not (inputs.output / "checkpoints").exists()
    before = (inputs.output / "stage.json").stat().st_mtime_ns
    assert cpt.run(settings(epochs=6, lr=3e-3), inputs) == folder
    assert (inputs.output / "stage.json").stat().st_mtime_ns == before


def test_the_trainer_sees_no_visual_label_and_all_of_the_text(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    compute = SupervisedTrainer.compute_loss

    def spy(self: Any, model: Any, batch: Any, *rest: Any, **more: Any) -> Any:
        seen.append({key: batch[key].clone() for key in ("input_ids", "labels", "attention_mask")})
        return compute(self, model, batch, *rest, **more)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    cpt.run(settings(), inputs)
    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config)
    visual = torch.tensor(sorted(visual_token_ids(model.config, processor.tokenizer)))
    assert sum(len(batch["labels"]) for batch in seen) == 8
    for batch in seen:
        kept = batch["labels"] != IGNORED
        visible = torch.isin(batch["input_ids"], visual)
        assert visible.sum(1).tolist() == [4 + 2 + 24 + 2] * len(visible)
        assert torch.equal(kept, batch["attention_mask"].bool() & ~visible)
        assert torch.equal(batch["labels"][kept], batch["input_ids"][kept])


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_the_loss_is_the_mean_over_all_tokens_of_an_update(inputs: StageInputs, micro: int) -> None:
    """One update over all four rows, of different lengths, against cross entropy by hand."""
    rows = [json.loads(line) for line in (inputs.data.root / "train_cot.jsonl").open()]
    for index, row in enumerate(rows):
        row["query"] += " please" * index
    text = "\n".join(json.dumps(row) for row in rows)
    (inputs.data.root / "train_cot.jsonl").write_text(text)
    cpt.run(settings(limit=4, micro_batch_size=micro), inputs)
    logged = read_metrics(inputs.output)[0]["loss"]

    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config)
    visual = visual_token_ids(model.config, processor.tokenizer)
    total, count = 0.0, 0
    for sample in inputs.data.read("train_cot")[:4]:
        messages = build_messages(sample, inputs.data.policy_of(sample))
        row = encode_example(processor, messages, render_target(sample, "cot"), "text", visual)
        batch = collate(processor, [row])
        labels = batch.pop("labels")[0, 1:]
        with torch.no_grad():
            logits = model(**batch).logits[0, :-1]
        total += float(F.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum"))
        count += int((labels != IGNORED).sum())
    assert logged == pytest.approx(total / count, rel=1e-4)


def test_the_same_seed_gives_the_same_weights(inputs: StageInputs, tmp_path: Path) -> None:
    def run(name: str, seed: int) -> str:
        other = StageInputs(**{**vars(inputs), "output": tmp_path / name, "seed": seed})
        return model_digest(cpt.run(settings(), other))

    assert run("a", 1) == run("b", 1) != run("c", 2)


def test_a_frozen_vision_tower_does_not_move(inputs: StageInputs) -> None:
    folder = cpt.run(settings(freeze_vision=True), inputs)
    before = load_model(inputs.model, inputs.model_config).state_dict()
    after = load_model(folder, inputs.model_config).state_dict()
    for name, tensor in before.items():
        same = torch.equal(tensor, after[name])
        assert same == (".visual." in name), name
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["parameters"]["trainable"] < stage["parameters"]["total"]


def test_tensors_without_a_gradient_are_named(
    inputs: StageInputs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows and policy without pictures: the vision tower cannot learn, and the run says so."""
    root = tmp_path / "plain"
    small_data(root)
    policy = json.loads((root / "policies" / "lumen.json").read_text())
    policy["parts"] = [{"text": "Lumen Charter. Always Case 1."}]
    (root / "policies" / "lumen.json").write_text(json.dumps(policy))
    rows = [json.loads(line) | {"images": []} for line in (root / "train_cot.jsonl").open()]
    (root / "train_cot.jsonl").write_text("\n".join(map(json.dumps, rows)))
    plain = StageInputs(**{**vars(inputs), "data": DataFolder(root)})
    cpt.run(settings(epochs=2), plain)
    stage = json.loads((plain.output / "stage.json").read_text())
    missing = stage["gradients"]["without_gradient"]
    assert missing and all(".visual." in name for name in missing)
    assert stage["gradients"]["steps"] == 3
    assert f"{len(missing)} of 56 trainable tensors had no gradient" in capsys.readouterr().out


def test_texts_stand_alone_and_all_of_them_is_in_the_loss(inputs: StageInputs) -> None:
    sample = add_texts(inputs.data).read("policy_text")[1]
    processor = load_processor(inputs.model, inputs.model_config)
    visual = visual_token_ids(load_config(inputs.model, inputs.model_config), processor.tokenizer)
    row, budget = cpt.encode_text_row(processor, sample, visual)
    assert row.labels == row.input_ids and row.pictures == ()
    said = processor.tokenizer.decode(row.input_ids)
    assert "Quote Condition 1 of policy Lumen Charter please." in said
    assert "is there a red object?" in said
    assert "boxed" not in said and "Yes: Case 1" not in said  # neither form nor policy
    assert budget.total == len(row.input_ids) and budget.policy == budget.images == 0


def test_texts_are_mixed_in_as_often_as_asked(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_texts(inputs.data)
    seen: list[list[int]] = []
    compute = SupervisedTrainer.compute_loss

    def spy(self: Any, model: Any, batch: Any, *rest: Any, **more: Any) -> Any:
        lengths = batch["attention_mask"].sum(1).tolist()
        seen.extend(ids[:n] for ids, n in zip(batch["input_ids"].tolist(), lengths, strict=True))
        return compute(self, model, batch, *rest, **more)

    monkeypatch.setattr(SupervisedTrainer, "compute_loss", spy)
    cpt.run(settings(texts="policy_text", texts_epochs=2), inputs)
    processor = load_processor(inputs.model, inputs.model_config)
    said = [processor.tokenizer.decode(ids) for ids in seen]
    places = [i for i, text in enumerate(said) if "Quote Condition" in text]
    assert len(said) == 8 + 2 * 3 and len(places) == 6
    assert places != list(range(8, 14))  # shuffled among the rows
    assert all(
        sum(f"policy Lumen Charter{' please' * n}." in text for text in said) == 2 for n in range(3)
    )
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert (stage["rows"], stage["texts"], stage["steps"]) == (8, 3, 4)
    assert stage["sequences"] == 14  # the last update takes the two that are left
    logged = [row["num_tokens"] for row in read_metrics(inputs.output)]
    assert stage["tokens_trained"] == logged[-1] > 14 * 10
    assert stage["schedule"].startswith("(8 rows + 3 texts x 2) x 1 epochs = 4 updates")


def test_texts_are_seeded(inputs: StageInputs, tmp_path: Path) -> None:
    add_texts(inputs.data)

    def run(name: str, **more: Any) -> str:
        other = StageInputs(**{**vars(inputs), "output": tmp_path / name})
        return model_digest(cpt.run(settings(**more), other))

    assert run("a", texts="policy_text") == run("b", texts="policy_text") != run("c")


@pytest.fixture
def unloadable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail when weights are asked for."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("weights were loaded before the check")

    monkeypatch.setattr("trimpi.stages.supervised.load_model", refuse)


@pytest.mark.usefixtures("unloadable")
def test_rows_without_rationale_are_all_named_before_loading(inputs: StageInputs) -> None:
    with pytest.raises(UserError) as caught:
        cpt.run(settings(split="train"), inputs)
    lines = str(caught.value).splitlines()
    assert len(lines) == 8
    assert lines[0] == (
        "train: row 'train-0': has no rationale; use a split with rationales (train_cot)"
    )


@pytest.mark.usefixtures("unloadable")
def test_faulty_rows_and_texts_are_named_together(inputs: StageInputs) -> None:
    file = add_texts(inputs.data).root / "policy_text.jsonl"
    file.write_text(file.read_text().replace("is there a red object?", " ", 1))
    with pytest.raises(UserError) as caught:
        cpt.run(settings(split="train", texts="policy_text"), inputs)
    lines = str(caught.value).splitlines()
    assert len(lines) == 9
    assert lines[-1] == (
        "policy_text: row 'text-0': is a text with an empty answer; write one, or drop the row"
    )


@pytest.mark.usefixtures("unloadable")
def test_rows_beyond_the_context_are_named_before_loading(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimpi.stages.supervised.context_limit", lambda _: 150)
    with pytest.raises(UserError, match=r"row 'train_cot-0': 1\d\d tokens \(policy \d+") as caught:
        cpt.run(settings(), inputs)
    assert len(str(caught.value).splitlines()) == 8
    assert "exceed the context of 150" in str(caught.value)


@pytest.mark.usefixtures("unloadable")
@pytest.mark.parametrize(
    ("more", "word"),
    [
        (
            {"trainer": {"optimm": "adamw_torch"}},
            "cpt.trainer.optimm: unknown; did you mean 'optim'",
        ),
        ({"trainer": {"warmup_steps": 3}}, "warmup_steps: is set by the stage"),
        ({"trainer": {"optim": "none_such"}}, "the trainer refuses"),
    ],
)
def test_bad_trainer_keys_are_refused_before_loading(
    inputs: StageInputs, more: dict[str, Any], word: str
) -> None:
    with pytest.raises(UserError) as caught:
        cpt.run(settings(**more), inputs)
    assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_trainer_keys_reach_the_trainer(inputs: StageInputs) -> None:
    cpt.run(settings(trainer={"optim": "sgd"}, max_steps=1, lr=1e-9), inputs)
    before = load_model(inputs.model, inputs.model_config).state_dict()
    after = load_model(inputs.output / "model", inputs.model_config).state_dict()
    # AdamW would have moved each weight by about lr; plain SGD moves by lr x gradient.
    assert all(torch.allclose(t, after[n], atol=1e-7) for n, t in before.items())


def test_sixteen_bit_weights_stay_sixteen_bit(
    inputs: StageInputs, tmp_path: Path, tiny_model: Callable[[str], Path]
) -> None:
    from trimpi.model import save_model

    half = inputs.model_config.model_copy(update={"dtype": "bfloat16"})
    model, processor = load_model(inputs.model, half), load_processor(inputs.model, half)
    source = save_model(model, processor, tmp_path / "half", {"steps": []})
    folder = cpt.run(settings(), StageInputs(**{**vars(inputs), "model": source}))
    assert load_model(folder, inputs.model_config).dtype == torch.bfloat16
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["verified"]["dtype"] == "bfloat16"
    assert 0 < stage["verified"]["mean_abs"] < stage["verified"]["limit"]


def test_bf16_autocast_on_the_cpu(inputs: StageInputs) -> None:
    cpt.run(settings(bf16=True), inputs)
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert stage["verified"]["max_abs"] <= stage["verified"]["limit"]
