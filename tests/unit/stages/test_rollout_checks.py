"""The self-test before the first step: it passes on a sound trainer and finds each fault."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import make_trainer, rl_config, rl_inputs, rollout_rows
from trimpi.errors import UserError
from trimpi.prompt import build_messages
from trimpi.sample import DataFolder
from trimpi.stages.rollout_checks import self_test


@pytest.fixture
def trainer(qwen: Path, data: DataFolder, tmp_path: Path) -> Any:
    return make_trainer(rl_config(), rl_inputs(qwen, data, tmp_path / "rl"))


def checked(trainer: Any, data: DataFolder) -> dict[str, Any]:
    sample = data.read("train")[0]
    views = build_messages(sample, None), build_messages(sample, data.policies["lumen"])
    return self_test(trainer, rollout_rows(trainer, prompts=1), *views)


def test_a_sound_trainer_passes_and_is_left_as_it_was(trainer: Any, data: DataFolder) -> None:
    state, mode = torch.get_rng_state(), trainer.model.training
    found = checked(trainer, data)
    assert torch.equal(torch.get_rng_state(), state) and trainer.model.training == mode
    assert not trainer._metrics["train"] and not trainer._logs["prompt"]
    assert (found["rows"], found["aware_rows"]) == (4, 2)
    assert "Condition 1" in found["generated_from"]
    assert "Condition 1" not in found["scored_against"]
    assert found["logp_difference"]["mean"] < 1e-4 and found["logp_difference"]["tokens"] > 0
    assert found["reference_difference"]["mean"] < 1e-5


def test_plain_grpo_passes_too(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    trainer = make_trainer(
        rl_config(policy_fraction=0.0, beta=0.0), rl_inputs(qwen, data, tmp_path)
    )
    found = checked(trainer, data)
    assert found["aware_rows"] == 0 and "reference_difference" not in found
    assert found["generated_from"] == found["scored_against"]


def test_another_scored_prompt_is_found(trainer: Any, data: DataFolder) -> None:
    tokenize = trainer._tokenize_prompts

    def shifted(prompts: list[Any]) -> Any:
        ids, images, fields = tokenize(prompts)
        return [[*row[:-1], row[-1] + 1] for row in ids], images, fields

    trainer._tokenize_prompts = shifted
    with pytest.raises(UserError, match=r"self-test: row 0 is scored against another prompt"):
        checked(trainer, data)


def test_a_scored_prompt_that_differs_in_one_row_is_found(trainer: Any, data: DataFolder) -> None:
    score = trainer._generate_and_score_completions

    def changed(rows: list[Any]) -> Any:
        output = score(rows)
        output["prompt_ids"][1, -1] += 1
        return output

    trainer._generate_and_score_completions = changed
    with pytest.raises(UserError, match=r"row 1 is scored against another prompt.*from token"):
        checked(trainer, data)


def test_other_pixels_are_found(trainer: Any, data: DataFolder) -> None:
    score = trainer._generate_and_score_completions

    def darker(rows: list[Any]) -> Any:
        output = score(rows)
        return {**output, "pixel_values": output["pixel_values"] * 0.9}

    trainer._generate_and_score_completions = darker
    with pytest.raises(UserError, match="pixel_values of the scored rows"):
        checked(trainer, data)


def test_scoring_that_disagrees_with_generation_is_found(trainer: Any, data: DataFolder) -> None:
    trainer.temperature = 0.7  # scoring was built for 1.0
    with pytest.raises(UserError, match="generation and scoring of a policy-free row differ"):
        checked(trainer, data)


def test_another_reference_is_found(trainer: Any, data: DataFolder) -> None:
    with torch.no_grad():
        for parameter in trainer.ref_model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    with pytest.raises(UserError, match="the KL reference and the model"):
        checked(trainer, data)
