"""PolicyRollout over a vLLM back end: order of rows, and no correction of the policy gap.

The engine is a stand-in with the interface of TRL's `VLLMGeneration`.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import make_trainer, rl_config, rl_inputs, rollout_rows
from trimpi.sample import DataFolder


class Engine:
    """Answers each prompt with a text of its own; the n-th copy of a prompt ends in its number."""

    def __init__(self, server: bool, tokenizer: Any) -> None:
        self.server, self.tokenizer = server, tokenizer
        self.asked: list[tuple[list[list[int]], Any, int]] = []

    def sync_weights(self) -> None:
        pass

    def generate(
        self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any
    ) -> tuple[Any, ...]:
        self.asked.append((prompts, images, num_generations))
        if self.server:  # as TRL does: the first prompt of a group answers for all of it
            heads = prompts[::num_generations]
            prompts = [head for head in heads for _ in range(num_generations)]
        completions = []
        for place, prompt in enumerate(prompts):
            kind = "aware" if "Condition 1" in self.tokenizer.decode(prompt) else "free"
            text = f"{kind} {place % num_generations}"
            completions.append(self.tokenizer(text)["input_ids"])
        logprobs = [[[-0.5] for _ in ids] for ids in completions]
        return None, completions, logprobs, None


@pytest.fixture(params=["colocate", "server"])
def engine_and_trainer(
    request: pytest.FixtureRequest, qwen: Path, data: DataFolder, tmp_path: Path
) -> tuple[Engine, Any]:
    trainer = make_trainer(rl_config(), rl_inputs(qwen, data, tmp_path / "rl"))
    engine = Engine(request.param == "server", trainer.processing_class.tokenizer)
    trainer.use_vllm, trainer.vllm_mode = True, request.param
    trainer.vllm_generation, trainer._last_loaded_step = engine, -1
    trainer.vllm_importance_sampling_correction = True
    trainer.vllm_importance_sampling_mode = "sequence_mask"
    trainer.vllm_importance_sampling_clip_min = None
    trainer.vllm_importance_sampling_clip_max = 3.0
    trainer.model.train()
    return engine, trainer


def test_every_row_gets_a_completion_of_its_own_prompt(
    engine_and_trainer: tuple[Engine, Any],
) -> None:
    engine, trainer = engine_and_trainer
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    rows = zip(output["completion_ids"], output["completion_mask"], strict=True)
    texts = [engine.tokenizer.decode(ids[mask.bool()]) for ids, mask in rows]
    assert texts == ["free 0", "aware 0", "free 1", "aware 1"] * 2
    (free, free_images, n_free), (aware, aware_images, n_aware) = engine.asked
    assert n_free == n_aware == 2 and len(free) == len(aware) == 4
    assert max(map(len, free)) < min(map(len, aware))
    assert [len(i) for i in free_images] == [1] * 4 and [len(i) for i in aware_images] == [2] * 4


def test_correction_leaves_aware_rows_alone(engine_and_trainer: tuple[Engine, Any]) -> None:
    _, trainer = engine_and_trainer
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    ratio, mask = output["importance_sampling_ratio"], output["completion_mask"]
    gap = ((output["old_per_token_logps"] + 0.5) * mask).sum(1)
    assert (ratio[1::2] == 1).all() and gap[1::2].abs().min() > 0.1
    expected = torch.where(gap[::2].exp() > 3, 0.0, gap[::2].exp())
    assert torch.allclose(ratio[::2, 0], expected) and (ratio[::2] < 0.9).any()


def test_sampling_log_probabilities_are_never_the_old_ones(
    engine_and_trainer: tuple[Engine, Any],
) -> None:
    """Old values conditioned on the policy would turn the ratio into an importance weight."""
    _, trainer = engine_and_trainer
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    mask = output["completion_mask"].bool()
    assert (output["sampling_per_token_logps"][mask] == -0.5).all()
    assert (output["old_per_token_logps"][mask] != -0.5).all()
