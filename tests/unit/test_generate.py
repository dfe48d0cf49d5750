"""Generation: order, stops, truncation, seeds, and no dependence on who shares the batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from trimpi.errors import UserError
from trimpi.generate import (
    Generated,
    ScriptedGenerator,
    TransformersGenerator,
    stop_token_ids,
)
from trimpi.model import load_model, load_processor, visual_token_ids
from trimpi.prompt import Message, build_messages
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder


@pytest.fixture(scope="module")
def loaded(qwen: Path, qwen_config: ModelConfig) -> tuple[Any, Any]:
    return load_model(qwen, qwen_config), load_processor(qwen, qwen_config)


@pytest.fixture
def prompts(data: DataFolder) -> list[list[Message]]:
    """Prompts of three lengths, pictures in some."""
    samples = data.read("test")
    made = [build_messages(s, data.policy_of(s) if i % 2 else None) for i, s in enumerate(samples)]
    return [*made, [{"role": "user", "content": [{"type": "text", "text": "Which case?"}]}]]


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory.")])
def test_no_memory_is_one_line(
    loaded: tuple[Any, Any],
    prompts: list[list[Message]],
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(**rest: Any) -> None:
        raise error

    monkeypatch.setattr(loaded[0], "generate", full)
    with pytest.raises(UserError, match="out of memory while generating for 2 prompts of up to "):
        TransformersGenerator(*loaded, batch_size=2)(prompts, max_new_tokens=4)


def greedy_by_hand(loaded: tuple[Any, Any], prompt: list[Message], steps: int) -> list[int]:
    """Decode with full forward passes, no cache, no padding."""
    from trimpi.batch import encode_prompt

    model, processor = loaded
    visual = sorted(visual_token_ids(model.config, processor.tokenizer))
    inputs = encode_prompt(processor, prompt)
    new: list[int] = []
    for _ in range(steps):
        with torch.no_grad():
            logits = model(**inputs).logits[0, -1]
        logits[visual] = -torch.inf
        token = int(logits.argmax())
        if token in stop_token_ids(model, processor):
            break
        new.append(token)
        for name, fill in (("input_ids", token), ("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = torch.cat([inputs[name], torch.tensor([[fill]])], 1)
    return new


def test_greedy_batches_say_what_a_plain_loop_says(
    loaded: tuple[Any, Any], prompts: list[list[Message]]
) -> None:
    generator = TransformersGenerator(*loaded, batch_size=4)
    answers = generator(prompts, max_new_tokens=8)
    assert len({answer.text for answer in answers}) > 1
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = greedy_by_hand(loaded, prompt, 8)
        assert answer.text == loaded[1].tokenizer.decode(ids)
        assert answer.tokens == len(ids)
        assert answer.truncated == (len(ids) == 8)


def test_the_seed_fixes_sampling_and_leaves_the_global_state_alone(
    loaded: tuple[Any, Any], prompts: list[list[Message]]
) -> None:
    generator = TransformersGenerator(*loaded, batch_size=8)
    state = torch.get_rng_state()
    first = generator(prompts, max_new_tokens=6, temperature=1.0, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert generator(prompts, max_new_tokens=6, temperature=1.0, seed=1) == first
    assert generator(prompts, max_new_tokens=6, temperature=1.0, seed=2) != first


def test_a_completion_ends_at_the_turn_end_and_long_ones_are_marked(
    loaded: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, processor = loaded
    tokenizer = processor.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    short = [*tokenizer("Case 1")["input_ids"], end]
    long = tokenizer("Case 2 Case 2 Case 2")["input_ids"]
    width = max(len(short), len(long))

    def generate(input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        rows = [row + [tokenizer.pad_token_id] * (width - len(row)) for row in (long, short)]
        return torch.cat([input_ids, torch.tensor(rows)], 1)

    monkeypatch.setattr(model, "generate", generate)
    ask = [{"role": "user", "content": [{"type": "text", "text": text}]} for text in ("a", "b b b")]
    # The longer prompt comes first in the batch; answers come back in the order of the prompts.
    answers = TransformersGenerator(model, processor)([[a] for a in ask], max_new_tokens=width)
    assert answers == [
        Generated("Case 1", len(short) - 1, False),
        Generated("Case 2 Case 2 Case 2", len(long), True),
    ]


def test_visual_tokens_are_never_written(
    loaded: tuple[Any, Any], prompts: list[list[Message]]
) -> None:
    model, processor = loaded
    visual = sorted(visual_token_ids(model.config, processor.tokenizer))
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(
        lambda _m, _i, out: out.index_fill(-1, torch.tensor(visual), 1e4)
    )
    try:
        for temperature in (0.0, 1.0):
            answers = TransformersGenerator(model, processor)(
                prompts[:3], max_new_tokens=5, temperature=temperature
            )
            for answer in answers:
                ids = processor.tokenizer(answer.text)["input_ids"]
                assert answer.text and not set(ids) & set(visual)
    finally:
        hook.remove()


def test_a_prompt_that_leaves_no_room_is_refused(
    loaded: tuple[Any, Any], prompts: list[list[Message]]
) -> None:
    with pytest.raises(UserError, match=r"prompt 1: \d+ tokens and max_new_tokens 4090"):
        TransformersGenerator(*loaded)(prompts, max_new_tokens=4090)


def test_no_prompts_no_answers(loaded: tuple[Any, Any]) -> None:
    assert TransformersGenerator(*loaded)([], max_new_tokens=4) == []


def test_a_scripted_generator_answers_by_list_or_function() -> None:
    ask: list[Message] = [{"role": "user", "content": [{"type": "text", "text": "hi there you"}]}]
    fixed = ScriptedGenerator(["one", "two three four"])
    assert [g.text for g in fixed([ask] * 3, max_new_tokens=9)] == ["one", "two three four", "one"]
    echo = ScriptedGenerator(lambda messages: messages[0]["content"][0]["text"])
    assert echo([ask], max_new_tokens=2) == [Generated("hi there", 2, True)]
