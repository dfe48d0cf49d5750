"""Batch arithmetic of RL, and what of TRL's settings is passed, set or refused."""

from pathlib import Path
from typing import Any

import pytest

from tests.rl_cases import rl_config, rl_inputs
from trimpi.errors import UserError
from trimpi.recipe import ModelConfig, RlConfig
from trimpi.sample import DataFolder
from trimpi.stages import rl
from trimpi.stages.rl_arguments import grpo_arguments, plan_batches
from trimpi.trainer_fields import engine_short, rl_conflicts


def arguments(
    config: RlConfig, qwen: Path, data: DataFolder, tmp_path: Path, quantization: str = "none"
) -> Any:
    inputs = rl_inputs(qwen, data, tmp_path)
    model_config = inputs.model_config.model_copy(update={"quantization": quantization})
    inputs = inputs.__class__(qwen, model_config, data, tmp_path, 3, inputs.grader)
    return grpo_arguments(config, inputs, plan_batches(config, 8, 1), {5, 4}, {9})


def test_the_papers_sizes() -> None:
    config = RlConfig(prompts_per_step=384, group_size=16, micro_batch_size=4, epochs=2.0)
    plan = plan_batches(config, 20_000, 8)
    assert plan.accumulation == 384 * 16 // (4 * 8) == plan.steps_per_generation
    assert plan.updates == 104 and plan.save_steps == 52
    assert "steps_per_generation 192, num_iterations 1" in plan.arithmetic


def test_several_updates_take_shares_of_one_rollout_batch() -> None:
    config = rl_config(prompts_per_step=4, updates_per_rollout=2, max_steps=None, epochs=1.5)
    plan = plan_batches(config, 8, 1)
    # 8 prompts: 2 rollout batches an epoch, 3 in all, 2 updates of 8 completions each.
    assert (plan.updates, plan.accumulation, plan.steps_per_generation) == (6, 2, 4)
    assert plan.save_steps == 4


def test_checkpoints_fall_between_rollout_batches() -> None:
    plan = plan_batches(rl_config(updates_per_rollout=2, save_steps=3), 8, 1)
    assert plan.save_steps == 4 and "save_steps 3 becomes 4" in plan.arithmetic


def test_devices_that_would_differ_in_aware_rows_are_refused() -> None:
    config = rl_config(prompts_per_step=3, micro_batch_size=1)
    with pytest.raises(UserError, match="not a multiple of 2"):
        plan_batches(config, 8, 4)
    plan_batches(rl_config(prompts_per_step=3, micro_batch_size=1, policy_fraction=0.0), 8, 4)


def test_the_stages_keys_reach_trl(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    config = rl_config(beta=0.02, epsilon=0.1, epsilon_high=0.28, temperature=0.9, lr=2e-6)
    found = arguments(config, qwen, data, tmp_path)
    assert (found.beta, found.epsilon, found.epsilon_high) == (0.02, 0.1, 0.28)
    assert (found.loss_type, found.temperature, found.learning_rate) == ("grpo", 0.9, 2e-6)
    assert found.use_bias_correction_kl is False and found.num_iterations == 1
    assert found.gradient_checkpointing is False and found.bf16 is False and found.seed == 3
    assert found.generation_kwargs == {"suppress_tokens": [4, 5]}
    assert found.max_completion_length == 6 and found.generation_batch_size == 8
    assert (found.top_p, found.top_k, found.repetition_penalty) == (1.0, 0, 1.0)


def test_other_fields_pass_through(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    trainer = {"scale_rewards": "none", "generation_kwargs": {"top_k": 7}}
    found = arguments(rl_config(trainer=trainer), qwen, data, tmp_path)
    assert found.scale_rewards == "none"
    assert found.generation_kwargs == {"suppress_tokens": [4, 5], "top_k": 7}


@pytest.mark.parametrize(
    ("trainer", "line"),
    [
        ({"scale_reward": "none"}, "did you mean 'scale_rewards'"),
        ({"use_cpu": True}, "use_cpu: is set by the stage"),
        ({"scale_rewards": "none", "delta": 1.0, "steps": 1}, "rl.trainer.steps: unknown"),
        ({"use_vllm": True, "off_policy_mask_threshold": 0.5}, "conditioned on the policy"),
        ({"log_completions_hub_repo": "a/b"}, "the trainer refuses its settings"),
    ],
)
def test_settings_that_cannot_work_are_named(
    trainer: dict[str, Any], line: str, qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=line):
        arguments(rl_config(trainer=trainer), qwen, data, tmp_path)


def test_quantized_weights_do_not_go_to_vllm(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    config = rl_config(trainer={"use_vllm": True})
    with pytest.raises(UserError, match=r"use_vllm.*quantization"):
        arguments(config, qwen, data, tmp_path, "nf4")
    found = arguments(config, qwen, data, tmp_path)
    assert found.generation_kwargs["logit_bias"] == {4: -100.0, 5: -100.0}
    assert found.generation_kwargs["stop_token_ids"] == [9]


@pytest.mark.parametrize(
    ("trainer", "said"),
    [
        ({"use_vllm": True, "vllm_mode": "serve"}, "'serve' is neither colocate nor server"),
        ({"vllm_mode": "server"}, "vllm_mode: nothing without use_vllm: true"),
        ({"use_vllm": True, "vllm_server_port": 9}, "is about a server, and vllm_mode is colocate"),
        (
            {"use_vllm": True, "vllm_mode": "server", "vllm_max_model_length": 9},
            "is about a colocated engine, and vllm_mode is server",
        ),
        ({"use_vllm": True, "vllm_tensor_parallel_size": 2}, "2 does not divide the 3 devices"),
    ],
)
def test_keys_of_vllm_that_do_nothing_or_fail_late(trainer: dict[str, Any], said: str) -> None:
    (line,) = rl_conflicts(rl_config(trainer=trainer), ModelConfig(path="x"), "stages.rl", 3)
    assert line.startswith("stages.rl.trainer") and said in line
    good = {"use_vllm": True, "vllm_tensor_parallel_size": 3, "vllm_max_model_length": 9}
    assert rl_conflicts(rl_config(trainer=good), ModelConfig(path="x"), "stages.rl", 3) == []


def test_an_engine_without_room_for_the_longest_row() -> None:
    config = rl_config(trainer={"use_vllm": True, "vllm_max_model_length": 40})
    line = engine_short(config, "stages.rl", 41)
    assert line is not None and "40 tokens, and the longest row has 41" in line
    assert engine_short(config, "stages.rl", 40) is None
    assert engine_short(rl_config(trainer={"use_vllm": True}), "stages.rl", 41) is None


def test_vllm_is_asked_for_before_a_model_is_loaded(
    qwen: Path, data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = rl_inputs(qwen, data, tmp_path)
    config = rl_config(trainer={"use_vllm": True, "vllm_max_model_length": 40})
    with pytest.raises(UserError, match="40 tokens, and the longest row has 900"):
        rl.check_engine(config, inputs, 900)
    keys = {"use_vllm": True, "vllm_mode": "server", "vllm_server_timeout": 0.1}
    config = rl_config(trainer={**keys, "vllm_server_base_url": "http://127.0.0.1:9"})
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="there is no GPU here"):
        rl.check_engine(config, inputs, 900)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(UserError, match="no vLLM server at"):
        rl.check_engine(config, inputs, 900)
    rl.check_engine(rl_config(), inputs, 900)
