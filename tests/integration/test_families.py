"""Each supported family through encoding, VM-CPT, CoT SFT with LoRA, and generation."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests import tiny_models
from trimpi.batch import IGNORED, collate, encode_example, encode_prompt, turn_of
from trimpi.generate import TransformersGenerator
from trimpi.grading import exact_answer
from trimpi.model import load_model, load_processor, visual_token_ids
from trimpi.prompt import build_messages, render_target
from trimpi.recipe import CptConfig, ModelConfig, SftConfig
from trimpi.sample import DataFolder
from trimpi.stages import cpt, sft
from trimpi.stages.inputs import StageInputs

TURNS = {
    "qwen2_5_vl": ("", "<|im_end|>"),
    "qwen3_vl": ("", "<|im_end|>"),
    "idefics3": (" ", "<end_of_utterance>"),
    "smolvlm": (" ", "<end_of_utterance>"),
    "gemma3": ("", "<end_of_turn>"),
    "internvl": ("", "<|im_end|>"),
}
# Tokens of the policy's picture (32x32) and of the query's (96x64) that are out of the loss.
VISUAL = {
    "qwen2_5_vl": 6 + 26,
    "qwen3_vl": 6 + 26,
    # A mark, a name and 4 placeholders a tile, three line breaks, the whole picture, the last mark.
    "idefics3": 2 * (4 * 6 + 3 + 6 + 1),
    "smolvlm": 2 * (4 * 6 + 3 + 6 + 1),
    "gemma3": 2 * 6,
    "internvl": (2 + 4) + (2 + 4 * 7),
}
families = pytest.mark.parametrize("family", tiny_models.FAMILIES)


@families
def test_prompts_and_masks(
    family: str, tiny_model: Callable[[str], Path], data: DataFolder
) -> None:
    folder = tiny_model(family)
    config = ModelConfig(path=str(folder))
    processor, model = load_processor(folder, config), load_model(folder, config)
    turn = turn_of(processor)
    assert (turn.lead, turn.end) == TURNS[family]
    sample = data.read("train_cot")[0]
    messages = build_messages(sample, data.policy_of(sample))
    own = encode_prompt(processor, messages)
    reference = processor.apply_chat_template(
        messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    assert set(own) == set(reference)
    for name in own:
        assert torch.equal(own[name], reference[name]), name
    visual = visual_token_ids(model.config, processor.tokenizer)
    row = encode_example(processor, messages, render_target(sample, "cot"), "text", visual)
    out = [i for i, label in zip(row.input_ids, row.labels, strict=True) if label == IGNORED]
    text = processor.tokenizer.decode([label for label in row.labels if label != IGNORED])
    assert "is there an object like" in text and "\\boxed{Case 1}" + turn.end in text
    assert len(out) == VISUAL[family], processor.tokenizer.decode(out)
    assert not set(row.labels) & visual


@families
def test_a_mixed_batch_equals_single_rows(
    family: str, tiny_model: Callable[[str], Path], data: DataFolder
) -> None:
    """Rows with two, one and no pictures in one padded batch see their own pictures alone."""
    folder = tiny_model(family)
    config = ModelConfig(path=str(folder))
    processor, model = load_processor(folder, config), load_model(folder, config)
    first, second = data.read("train_cot")[:2]
    plain = [{"role": "user", "content": [{"type": "text", "text": "Which case?"}]}]
    prompts = [
        build_messages(first, data.policy_of(first)),
        build_messages(second, None),
        plain,
    ]
    rows = [encode_example(processor, prompt, "Case 1", "completion") for prompt in prompts]
    batch = collate(processor, rows)
    del batch["labels"]
    with torch.no_grad():
        together = model(**batch).logits
        for index, row in enumerate(rows):
            alone = collate(processor, [row])
            del alone["labels"]
            logits = model(**alone).logits[0]
            found = together[index, : len(row.input_ids)]
            assert torch.allclose(found, logits, atol=1e-3), index


@families
def test_both_stages_and_generation(
    family: str, tiny_model: Callable[[str], Path], data: DataFolder, tmp_path: Path
) -> None:
    folder = tiny_model(family)
    config = ModelConfig(path=str(folder))
    shape = {"epochs": 1, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2}
    inputs = StageInputs(folder, config, data, tmp_path / "cpt", 0, exact_answer)
    first = cpt.run(CptConfig(**shape), inputs)
    stage = json.loads((tmp_path / "cpt" / "stage.json").read_text())
    assert stage["verified"]["max_abs"] <= stage["verified"]["limit"]
    assert stage["gradients"]["without_gradient"] == []
    second = sft.run(
        SftConfig(**shape), StageInputs(first, config, data, tmp_path / "sft", 0, exact_answer)
    )
    stage = json.loads((tmp_path / "sft" / "stage.json").read_text())
    assert stage["verified"]["kind"] == "merge"
    assert stage["verified"]["max_abs"] <= stage["verified"]["limit"]
    assert stage["gradients"]["without_gradient"] == []
    generator = TransformersGenerator(load_model(second, config), load_processor(second, config), 4)
    samples = data.read("test")
    prompts = [
        build_messages(s, data.policy_of(s) if i % 2 else None) for i, s in enumerate(samples)
    ]
    together = generator(prompts, max_new_tokens=6)
    alone = [generator([prompt], max_new_tokens=6)[0] for prompt in prompts]
    assert together == alone
