"""General examples in CPT and SFT: what is trained of them, and how often."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.general_cases import general_folder
from tests.integration.test_sft import moved, spy_on_batches
from trimpi.batch import IGNORED
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.model import load_config, load_processor, visual_token_ids
from trimpi.recipe import CptConfig, ModelConfig, Recipe, SftConfig
from trimpi.sample import DataFolder
from trimpi.show import show_stage
from trimpi.stages import cpt, sft
from trimpi.stages.inputs import StageInputs

SIZE: dict[str, Any] = {"epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 4}


@pytest.fixture
def inputs(qwen: Path, qwen_config: ModelConfig, data: DataFolder, tmp_path: Path) -> StageInputs:
    replay = general_folder(tmp_path / "general")
    out = tmp_path / "stage"
    return StageInputs(qwen, qwen_config, data, out, 0, exact_answer, qwen, replay)


def test_half_of_the_sequences_are_general(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight rows of the stage, eight general ones, each of the four twice; response in the loss."""
    seen = spy_on_batches(monkeypatch)
    sft.run(SftConfig(**SIZE, replay_ratio=0.5), inputs)
    tokenizer = load_processor(inputs.model, inputs.model_config).tokenizer
    rows = [
        (tokenizer.decode(ids), tokenizer.decode(labels[labels != IGNORED]))
        for batch in seen
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
    ]
    own = [text for prompt, text in rows if "Lumen Charter" in prompt]
    color = [text for prompt, text in rows if "What color is disc" in prompt]
    under = [(prompt, text) for prompt, text in rows if "Orchid Code" in prompt]
    assert (len(rows), len(own), len(color), len(under)) == (16, 8, 6, 2)
    assert set(color) == {"\\boxed{cyan}<|im_end|>"}
    assert {text for _, text in under} == {"<think> All get it. </think> \\boxed{Case 9}<|im_end|>"}
    assert all("Orchid Code. All: Case 9." in prompt for prompt, _ in under)
    mixed = [{"Lumen Charter" in tokenizer.decode(i) for i in b["input_ids"]} for b in seen]
    assert {True, False} in mixed  # shuffled, not one after the other
    stage = json.loads((inputs.output / "stage.json").read_text())
    assert (stage["rows"], stage["steps"], stage["sequences"]) == (8, 4, 16)
    assert stage["schedule"].startswith("(8 rows + 8 general) x 1 epochs = 4 updates")
    assert (stage["replay"]["rows"], stage["replay"]["of"]) == (8, 4)
    in_loss = sum(int((b["labels"] != IGNORED).sum()) for b in seen)
    general = sum(
        int((labels != IGNORED).sum())
        for batch in seen
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True)
        if "Lumen Charter" not in tokenizer.decode(ids)
    )
    assert stage["tokens_in_loss"] == in_loss
    assert stage["replay"]["share_in_loss"] == pytest.approx(general / in_loss, abs=1e-4)


def test_cpt_trains_all_of_them_but_visual_tokens(
    inputs: StageInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spy_on_batches(monkeypatch)
    cpt.run(CptConfig(**SIZE, replay_ratio=0.2), inputs)
    processor = load_processor(inputs.model, inputs.model_config)
    config = load_config(inputs.model, inputs.model_config)
    visual = torch.tensor(sorted(visual_token_ids(config, processor.tokenizer)))
    general = 0
    for batch in seen:
        for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
            if "Lumen Charter" in (text := processor.tokenizer.decode(ids)):
                continue
            general += 1
            real = ids != processor.tokenizer.pad_token_id
            expected = torch.where(real & ~torch.isin(ids, visual), ids, IGNORED)
            assert (torch.equal(labels, expected) and "Which" in text) or "What" in text
    assert general == 2  # 8 x 0.2 / 0.8


def test_a_stage_without_general_examples_says_so(inputs: StageInputs) -> None:
    with pytest.raises(UserError, match="replay_ratio needs general examples"):
        sft.run(SftConfig(**SIZE, replay_ratio=0.5), moved(inputs, replay=None))


def test_show_counts_them_on_behind_the_rows(inputs: StageInputs, tmp_path: Path) -> None:
    assert inputs.replay is not None
    recipe = Recipe.model_validate(
        {
            "name": "shown",
            "model": {"path": str(inputs.model)},
            "data": {"folder": str(inputs.data.root)},
            "replay": {"folder": str(inputs.replay.root)},
            "stages": {"sft": {"replay_ratio": 0.25}},
        }
    )
    with (tmp_path / "out").open("w") as file:
        console = Console(record=True, width=160, file=file)
        show_stage(recipe, tmp_path / "run", "sft", 8, console)
        with pytest.raises(UserError, match="row 12: train_cot has rows 0 to 7, replay rows 8 to"):
            show_stage(recipe, tmp_path / "run", "sft", 12, console)
    said = console.export_text()
    assert "sft (sft), replay row 0, id general-0" in said and "What color is disc 0?" in said
