"""Memory estimates against counts made by hand, trainer keys against TRL."""

from pathlib import Path

import pytest
from safetensors import safe_open

from trimpi.memory import ModelSize, estimate, read_size
from trimpi.recipe import CptConfig, LoraConfig, ModelConfig, RlConfig, SftConfig
from trimpi.trainer_fields import engine_missing, rl_conflicts, trainer_problems

GIB = 2**30
SIZE = ModelSize(
    parameters=GIB,
    vision_parameters=GIB // 4,
    lora_inputs=GIB // 64,
    quantizable=GIB // 2,
    layers=10,
    hidden=1024,
    mlp=4096,
    vocabulary=2048,
    cache_per_token=1024,
    vision_per_token=65536,
    context=4096,
    dtype="bfloat16",
)
MODEL = ModelConfig(path="x")
LAYER = 9 * 1024 + 4 * 4096
"""Entries that a layer keeps for a token."""


def test_all_parameters_in_float32() -> None:
    found = estimate(SIZE, MODEL, CptConfig(micro_batch_size=2), 512, 0, 1, 16)
    assert (found["weights"], found["gradients"], found["moments"]) == (4, 4, 8)
    assert found["activations"] == 2 * 512 * 10 * LAYER * 4 / GIB
    assert found["vision"] == 2 * 16 * 65536 * 4 / GIB
    # One tile of logits; gradients of hidden states and of the head, in float32.
    logits = 2 * 512 * 32768 * 4 + 2 * 512 * 1024 * 4 + 2048 * 1024 * 4
    assert found["logits"] == pytest.approx(logits / GIB)
    assert found["total"] == pytest.approx(sum(v for k, v in found.items() if k != "total"))
    # Without Triton a tile as wide as the vocabulary is copied in float32.
    cpu = estimate(SIZE, MODEL, CptConfig(), 512, 0, 1, triton=False)["logits"] * GIB
    assert cpu == pytest.approx(512 * 2048 * 4 * 8 + 512 * 1024 * 4 + 2048 * 1024 * 4)
    # Logits of a long row are never whole.
    long = estimate(SIZE, MODEL, CptConfig(), 100_000, 0, 1)["logits"] * GIB
    assert long == pytest.approx(4096 * 32768 * 4 + 100_000 * 1024 * 4 + 2048 * 1024 * 4)


def test_what_makes_it_smaller() -> None:
    base = estimate(SIZE, MODEL, CptConfig(), 512, 0, 4, 16)
    frozen = estimate(SIZE, MODEL, CptConfig(freeze_vision=True), 512, 0, 4, 16)
    assert frozen["gradients"] == 0.75 * base["gradients"] and "vision" not in frozen
    sharded = estimate(SIZE, MODEL, CptConfig(trainer={"fsdp": True}), 512, 0, 4)
    assert sharded["weights"] == base["weights"] / 4
    saved = estimate(SIZE, MODEL, CptConfig(gradient_checkpointing=True), 512, 0, 4)
    assert saved["activations"] == 512 * (10 * 1024 + LAYER) * 4 / GIB < base["activations"] / 3
    half = estimate(SIZE, MODEL, CptConfig(bf16=True), 512, 0, 4)
    assert half["weights"] == base["weights"] and half["activations"] == base["activations"] / 2
    assert half["autocast"] == 2  # copies of the weights in bfloat16, for the backward pass
    small = {"adamw_8bit": 2.06, "adafactor": 0.01, "sgd": 0, "lion_8bit": 1.03}
    for name, moments in small.items():
        found = estimate(SIZE, MODEL, CptConfig(trainer={"optim": name}), 512, 0, 4)
        assert found.get("moments", 0) == pytest.approx(moments)


def test_adapters_train_little() -> None:
    found = estimate(SIZE, MODEL, SftConfig(lora=LoraConfig(r=8)), 512, 0, 1, 16)
    assert found["weights"] == 2  # stored precision
    assert found["gradients"] == 8 / 64 * 4 and found["moments"] == 2 * found["gradients"]
    assert "vision" not in found
    tower = SftConfig(lora=LoraConfig(target_modules="all"))
    assert estimate(SIZE, MODEL, tower, 512, 0, 1, 16)["vision"] > 0


def test_quantized_weights_with_their_scales_and_what_stays_dense() -> None:
    for changes, width in (
        ({"quantization": "nf4"}, 0.5 + (1 + 4 / 256) / 64),
        ({"quantization": "nf4", "double_quant": False}, 0.5 + 4 / 64),
        ({"quantization": "int8"}, 1.0),
    ):
        found = estimate(SIZE, MODEL.model_copy(update=changes), SftConfig(), 512, 0, 1)
        assert found["weights"] == pytest.approx(0.5 * width + 0.5 * 4)  # dense parts in float32


def test_rl_holds_a_reference_and_the_larger_of_training_and_generation() -> None:
    config = RlConfig(prompts_per_step=8, group_size=4, max_new_tokens=3, micro_batch_size=1)
    found = estimate(SIZE, MODEL, config, 4, 512, 2)
    assert found["reference"] == 4
    # Per device 16 completions of 3 tokens, 4 prompts of 1 token in two views, 4 policies of 508.
    grows = 1 + 0.5 / SIZE.layers
    tokens = 16 * 3 + 2 * 4 + 4 * 508
    assert found["cache"] == pytest.approx(tokens * 1024 * 4 / GIB * grows)
    assert found["choice"] == 16 * SIZE.vocabulary * 24 / GIB
    assert found["prefill"] == 509 * (3 * 1024 + 2 * 4096) * 4 / GIB
    one = estimate(SIZE, MODEL, config, 4, 512, 2, policies=1)
    assert one["cache"] == pytest.approx((16 * 3 + 2 * 4 + 508) * 1024 * 4 / GIB * grows)
    plain = config.model_copy(update={"generation": "plain"})
    whole = estimate(SIZE, MODEL, plain, 4, 512, 2)["cache"]
    assert whole == pytest.approx(16 * 512 * 1024 * 4 / GIB * grows)
    assert "activations" not in found and "logits" not in found
    trains = estimate(SIZE, MODEL, config, 2048, 8, 2)
    assert "activations" in trains and "cache" not in trains
    free = config.model_copy(update={"beta": 0.0, "trainer": {"use_vllm": True}})
    assert not {"reference", "cache"} & set(estimate(SIZE, MODEL, free, 64, 512, 2))


def test_a_colocated_engine_takes_its_share_of_the_device() -> None:
    asks = {"use_vllm": True, "vllm_gpu_memory_utilization": 0.25}
    config = RlConfig(prompts_per_step=8, group_size=4, trainer=asks)
    alone = estimate(SIZE, MODEL, config, 64, 512, 1)
    beside = estimate(SIZE, MODEL, config, 64, 512, 1, card=80 * GIB)
    assert "vllm" not in alone and beside["vllm"] == 20
    assert beside["total"] == pytest.approx(alone["total"] + 20)
    sleeps = config.model_copy(update={"trainer": {**asks, "vllm_enable_sleep_mode": True}})
    found = estimate(SIZE, MODEL, sleeps, 64, 512, 1, card=80 * GIB)
    assert found["vllm"] == 20 and "activations" not in found  # one or the other
    server = config.model_copy(update={"trainer": {**asks, "vllm_mode": "server"}})
    assert estimate(SIZE, MODEL, server, 64, 512, 1, card=80 * GIB) == alone


def test_an_adapter_pulled_to_the_base_holds_the_base_again() -> None:
    config = RlConfig(prompts_per_step=8, group_size=4, lora=LoraConfig())
    assert "reference" not in estimate(SIZE, MODEL, config, 64, 512, 1)
    pulled = config.model_copy(update={"kl_reference": "base"})
    found = estimate(SIZE, MODEL, pulled, 64, 512, 1)
    assert found["reference"] == found["weights"] == 2  # stored precision
    quantized = MODEL.model_copy(update={"quantization": "nf4"})
    found = estimate(SIZE, quantized, pulled, 64, 512, 1)
    assert found["reference"] == found["weights"] < 2.3


def test_sizes_are_those_of_the_weights(qwen: Path) -> None:
    size = read_size(qwen)
    with safe_open(qwen / "model.safetensors", "pt") as weights:
        shapes = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
    counts = {name: 1 for name in shapes}
    for name, shape in shapes.items():
        for width in shape:
            counts[name] *= width
    assert size.parameters == sum(counts.values())
    assert size.vision_parameters == sum(c for n, c in counts.items() if "visual" in n)
    inner = [
        s for n, s in shapes.items()
        if "visual" not in n and n.endswith("weight") and len(s) == 2 and "embed" not in n
        and "lm_head" not in n
    ]  # fmt: skip
    assert size.lora_inputs == sum(sum(shape) for shape in inner)


def test_trainer_keys_are_checked_against_the_class_that_gets_them() -> None:
    stages = {
        "a": SftConfig(trainer={"optim": "adafactor", "optimm": 1, "top_k": 5}),
        "b": RlConfig(trainer={"top_k": 5, "use_vllm": True, "nonsense_at_all": 1}),
        "c": CptConfig(),
    }
    assert trainer_problems(stages) == [
        "stages.a.trainer.optimm: unknown key; did you mean 'optim'?",
        "stages.a.trainer.top_k: unknown key; see the fields of SFTConfig",
        "stages.b.trainer.nonsense_at_all: unknown key; see the fields of GRPOConfig",
    ]


def test_vllm_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = RlConfig(trainer={"use_vllm": True})
    line = engine_missing(asked, "stages.rl")
    assert line is not None and line.startswith("stages.rl.trainer.use_vllm: vllm is not installed")
    assert "pip install 'trimpi[vllm]'" in line and len(line.splitlines()) == 1
    assert engine_missing(RlConfig(), "stages.rl") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert engine_missing(asked, "stages.rl") is None


def test_vllm_with_settings_that_break_policy_rollout() -> None:
    stage = RlConfig(trainer={"use_vllm": True, "off_policy_mask_threshold": 2.0})
    quantized = ModelConfig(path="x", quantization="nf4")
    lines = rl_conflicts(stage, quantized, "stages.rl")
    assert [line.split(":")[0] for line in lines] == [
        "stages.rl.trainer.off_policy_mask_threshold",
        "stages.rl.trainer.use_vllm",
    ]
    plain = stage.model_copy(update={"policy_fraction": 0.0})
    assert rl_conflicts(plain, ModelConfig(path="x"), "stages.rl") == []
