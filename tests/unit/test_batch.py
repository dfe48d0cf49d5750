"""Encoding: prompts as the chat template makes them, masks computed by hand, budgets by part."""

import shutil
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from trimpi.batch import (
    IGNORED,
    collate,
    completion_ids,
    completion_mask,
    encode_example,
    encode_prompt,
    encode_text,
    text_mask,
    turn_end,
)
from trimpi.budget import TokenBudget, check_budgets, summarize_budgets, token_budget
from trimpi.errors import UserError
from trimpi.model import load_config, load_processor, visual_token_ids
from trimpi.pictures import PictureStore, store_of
from trimpi.prompt import Message, build_messages, render_target
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder


@pytest.fixture(scope="module")
def processor(qwen: Path, qwen_config: ModelConfig) -> Any:
    return load_processor(qwen, qwen_config)


@pytest.fixture(scope="module")
def visual(qwen: Path, qwen_config: ModelConfig, processor: Any) -> frozenset[int]:
    return visual_token_ids(load_config(qwen, qwen_config), processor.tokenizer)


def messages_of(data: DataFolder, row: int = 0, policy: bool = True) -> list[Message]:
    sample = data.read("train_cot")[row]
    return build_messages(sample, data.policy_of(sample) if policy else None)


def test_masks_on_lists() -> None:
    assert completion_mask(2, 5) == [False, False, True, True, True]
    assert text_mask([7, 1, 2, 7, 3], {1, 2}) == [True, False, False, True, True]


def test_layout_between_visual_tokens_is_visual_and_around_them_it_is_text() -> None:
    """9 is a line break: out of the loss between tiles, in it before and after a picture."""
    tiles, single = [9, 1, 2, 9, 1, 2, 9], [1, 2]
    ids = [7, *single, 9, *tiles, 9, 7]
    assert text_mask(ids, {1, 2}, [single, tiles]) == [
        True, False, False, True, True, False, False, False, False, False, True, True, True,
    ]  # fmt: skip
    with pytest.raises(ValueError):
        text_mask(ids, {1, 2}, [tiles, tiles])


@pytest.mark.parametrize("policy", [True, False])
def test_a_prompt_is_what_the_processor_makes(
    processor: Any, data: DataFolder, policy: bool
) -> None:
    messages = messages_of(data, policy=policy)
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


def test_the_whole_text_is_the_prompt_then_the_completion_then_the_turn_end(
    processor: Any, data: DataFolder
) -> None:
    encoded = encode_example(processor, messages_of(data), "\\boxed{Case 1}", "completion")
    text = processor.tokenizer.decode(encoded.input_ids)
    pad = "<|image_pad|>"
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        "Lumen Charter. Condition 1: is there an object like "
        f"<|vision_start|>{pad * 4}<|vision_end|>? Yes: Case 1. No: Case 2.\n\n"
        f"<|vision_start|>{pad * 24}<|vision_end|>"
        "Which response applies under the Lumen Charter?\n"
        "Think inside <think> </think>, then give the answer in \\boxed{}.<|im_end|>\n"
        "<|im_start|>assistant\n\\boxed{Case 1}<|im_end|>"
    )
    assert turn_end(processor) == "<|im_end|>"


def test_sft_labels_are_the_completion_and_nothing_else(processor: Any, data: DataFolder) -> None:
    prompt = encode_text(processor, messages_of(data))
    encoded = encode_example(processor, messages_of(data), "\\boxed{Case 1}", "completion")
    added = processor.tokenizer("\\boxed{Case 1}<|im_end|>")["input_ids"]
    assert encoded.input_ids == prompt.input_ids + added
    assert encoded.labels == [IGNORED] * len(prompt.input_ids) + added


def test_cpt_labels_are_every_token_but_the_visual_ones(
    processor: Any, visual: frozenset[int], data: DataFolder
) -> None:
    """By hand: start, 4, end of the policy's picture; start, 24, end of the query's."""
    encoded = encode_example(processor, messages_of(data), "\\boxed{Case 1}", "text", visual)
    token = processor.tokenizer.convert_tokens_to_ids
    start, end = token("<|vision_start|>"), token("<|vision_end|>")
    expected = list(encoded.input_ids)
    pad = token("<|image_pad|>")
    starts = [place for place, i in enumerate(encoded.input_ids) if i == start]
    for place, patches in zip(starts, (4, 24), strict=True):
        assert (
            encoded.input_ids[place + 1 : place + 1 + patches] == [token("<|image_pad|>")] * patches
        )
        shown = encoded.input_ids[place + 1 : place + 2 + patches]
        assert shown == [pad] * patches + [end]
        expected[place : place + 2 + patches] = [IGNORED] * (2 + patches)
    assert encoded.labels == expected
    kept = processor.tokenizer.decode([i for i in encoded.labels if i != IGNORED])
    assert "is there an object like ? Yes: Case 1." in kept
    assert kept.startswith("<|im_start|>system") and kept.endswith("\\boxed{Case 1}<|im_end|>")
    assert "|vision" not in kept and "_pad" not in kept


def test_a_batch_pads_and_joins_pictures(processor: Any, data: DataFolder) -> None:
    long = encode_example(processor, messages_of(data), "\\boxed{Case 1}", "completion")
    short = encode_example(processor, messages_of(data, 1, False), "\\boxed{Case 2}", "completion")
    none = encode_text(processor, [{"role": "user", "content": [{"type": "text", "text": "hi"}]}])
    right = collate(processor, [long, short, none])
    left = collate(processor, [long, short, none], side="left")
    length = len(long.input_ids)
    assert right["input_ids"].shape == left["input_ids"].shape == (3, length)
    gap = length - len(short.input_ids)
    assert right["input_ids"][1, : length - gap].tolist() == short.input_ids
    assert left["input_ids"][1, gap:].tolist() == short.input_ids
    assert right["labels"][1, length - gap :].tolist() == [IGNORED] * gap
    assert right["attention_mask"].sum(1).tolist() == [
        len(row.input_ids) for row in (long, short, none)
    ]
    image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert torch.equal(right["mm_token_type_ids"], (right["input_ids"] == image).long())
    assert right["image_grid_thw"].tolist() == [[1, 4, 4], [1, 8, 12], [1, 8, 12]]
    assert right["pixel_values"].shape == (16 + 96 + 96, 3 * 2 * 8 * 8)


def test_each_picture_is_processed_once(
    processor: Any, data: DataFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    kind = type(processor.image_processor)
    process = kind.__call__
    monkeypatch.setattr(
        kind, "__call__", lambda self, *a, **k: (calls.append(1), process(self, *a, **k))[1]
    )
    rows = [encode_text(processor, messages_of(data, row % 4)) for row in range(12)]
    collate(processor, rows)
    collate(processor, rows, side="left")
    assert len(calls) == 5  # four queries' pictures and the policy's


def test_a_processor_that_looks_at_more_than_the_size_is_noticed(
    processor: Any, data: DataFolder
) -> None:
    store = PictureStore(processor)
    first, second = (data.read("train_cot")[row].images[0] for row in (0, 1))
    known = store.expansion(first)
    store._by_size[96, 64] = replace(known, text=known.text + "<|image_pad|>")
    with pytest.raises(RuntimeError, match="different runs of placeholders"):
        store.pixels(second)


def test_a_full_store_forgets_pixels_and_makes_the_same_again(
    processor: Any, data: DataFolder
) -> None:
    store = PictureStore(processor, limit=1)
    first, second = (data.read("train_cot")[row].images[0] for row in (0, 1))
    before = store.pixels(first)["pixel_values"]
    store.pixels(second)
    assert len(store._pixels) == 1
    assert torch.equal(store.pixels(first)["pixel_values"], before)


def test_a_picture_changed_on_disk_is_read_again(processor: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (32, 32), "red").save(path)
    before = store_of(processor).expansion(str(path))
    Image.new("RGB", (64, 32), "red").save(path)
    assert store_of(processor).expansion(str(path)).ids == before.ids * 2 and len(before.ids) == 4


def broken_chunk() -> bytes:
    """A PNG whose second chunk has no valid name, for which Pillow raises SyntaxError."""
    whole = BytesIO()
    Image.new("RGB", (8, 8)).save(whole, "PNG")
    return whole.getvalue()[:33] + b"\0\0\0\4\1\2\3\4" + b"\0" * 60


@pytest.mark.parametrize("content", [None, b"no picture", b"\x89PNG\r\n\x1a\n cut", broken_chunk()])
def test_a_bad_picture_is_one_line(
    processor: Any, data: DataFolder, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "bad.png"
    if content is not None:
        path.write_bytes(content)
    prompt = [{"role": "user", "content": [{"type": "image", "image": str(path)}]}]
    with pytest.raises(UserError, match=r"bad\.png: (no such|not a readable) picture") as caught:
        encode_text(processor, prompt)
    assert len(str(caught.value).splitlines()) == 1


def test_a_placeholder_written_in_the_text_is_refused(processor: Any) -> None:
    prompt = [{"role": "user", "content": [{"type": "text", "text": "see <|image_pad|> here"}]}]
    with pytest.raises(UserError, match="placeholder"):
        encode_text(processor, prompt)


def test_the_budget_adds_up_to_the_sequence(processor: Any, data: DataFolder) -> None:
    sample = data.read("train_cot")[0]
    policy = data.policy_of(sample)
    budget = token_budget(processor, sample, policy, "cot")
    messages = build_messages(sample, policy)
    encoded = encode_example(processor, messages, render_target(sample, "cot"), "completion")
    assert budget.total == len(encoded.input_ids)
    assert budget.images == 4 + 24
    answer = processor.tokenizer("\\boxed{Case 1}<|im_end|>")["input_ids"]
    assert budget.answer == len(answer)
    completion = completion_ids(processor, render_target(sample, "cot"))
    assert budget.rationale == len(completion) - len(answer)
    assert policy is not None
    text = processor.tokenizer(policy.text)["input_ids"]
    assert abs(budget.policy - len(text)) <= 1
    without = token_budget(processor, sample, None, "cot")
    assert without.policy == 0 and without.images == 24
    generated = token_budget(processor, sample, policy, "cot", max_new_tokens=100)
    assert generated.total == budget.total - len(completion) + 100


def test_rows_beyond_the_context_are_all_named_with_their_parts() -> None:
    budgets = [
        (f"train:{index}", TokenBudget(size, 10, 24, 30, 5, 8))
        for index, size in enumerate((50, 900, 60, 2000))
    ]
    check_budgets(budgets, None)
    check_budgets(budgets[:1], 127)
    with pytest.raises(UserError) as caught:
        check_budgets(budgets, 500)
    first, second = str(caught.value).splitlines()
    assert first.startswith("train:1: 977 tokens (policy 900, query 10, images 24")
    assert "context of 500; shorten the policy" in first
    assert second.startswith("train:3: 2077")
    summary = summarize_budgets(b for _, b in budgets)
    assert summary["policy"] == {"mean": 752.5, "max": 2000}


def test_stores_are_not_shared(qwen: Path, qwen_config: ModelConfig, tmp_path: Path) -> None:
    copy = shutil.copytree(qwen, tmp_path / "copy")
    one, two = load_processor(qwen, qwen_config), load_processor(copy, qwen_config)
    assert store_of(one) is store_of(one)
    assert store_of(one) is not store_of(two)
