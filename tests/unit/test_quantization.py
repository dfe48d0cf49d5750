"""Quantized loading in all families: what stays dense, where adapters go, what training needs."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from pydantic import ValidationError
from transformers.quantizers.quantizers_utils import should_convert_module

from tests import tiny_models
from trimpi.adapter import linear_names, lora_config
from trimpi.errors import UserError
from trimpi.model import (
    check_adapter,
    check_quantization,
    count_parameters,
    load_config,
    load_model,
    skeleton,
)
from trimpi.quantization import (
    adapters_in_float32,
    bitsandbytes_config,
    compute_dtype,
    dense_modules,
    is_quantized,
    prepare_quantized,
)
from trimpi.quiet import quiet
from trimpi.recipe import LoraConfig, ModelConfig, SftConfig

families = pytest.mark.parametrize("family", list(tiny_models.FAMILIES))


def network_of(folder: Path) -> torch.nn.Module:
    return skeleton(load_config(folder, ModelConfig(path=str(folder))))


@families
def test_tower_projector_and_head_stay_dense(
    family: str, tiny_model: Callable[[str], Path]
) -> None:
    """By the rule that transformers itself applies to the names."""
    network = network_of(tiny_model(family))
    dense = dense_modules(network)
    inside, outside = linear_names(network, "language"), linear_names(network, "outside")
    assert inside and outside and "lm_head" in outside
    assert all(should_convert_module(name, dense) for name in inside)
    assert not any(should_convert_module(name, dense) for name in outside)


@families
def test_adapters_go_to_the_part_that_is_named(
    family: str, tiny_model: Callable[[str], Path]
) -> None:
    found = {}
    for part in ("language", "vision", "all"):
        network = network_of(tiny_model(family))
        wrapped = peft.get_peft_model(
            network, lora_config(network, LoraConfig(target_modules=part)), low_cpu_mem_usage=True
        )
        names = [name for name, _ in wrapped.named_parameters() if "lora_A" in name]
        found[part] = {name.split(".lora_A")[0] for name in names}
    network = network_of(tiny_model(family))
    named = {f"base_model.model.{name}" for name in linear_names(network, "language")}
    assert found["language"] == named
    outside = {f"base_model.model.{name}" for name in linear_names(network, "outside")}
    assert found["vision"] == outside - {"base_model.model.lm_head"} != set()
    assert found["all"] == found["language"] | found["vision"]


def test_targets_that_match_nothing_are_listed_with_what_there_is(
    tiny_model: Callable[[str], Path],
) -> None:
    folder = tiny_model("idefics3")
    lora = LoraConfig(target_modules=["q_proj", "qkv", "gate"])
    with pytest.raises(UserError) as caught:
        check_adapter(folder, ModelConfig(path=str(folder)), lora)
    line = str(caught.value)
    assert len(line.splitlines()) == 1
    assert "'qkv', 'gate' are no linear layers of this model" in line and "'q_proj'" not in line
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj (language model)" in line
    assert "(vision tower and projector); or one of the words language, vision, all" in line
    check_adapter(folder, ModelConfig(path=str(folder)), LoraConfig(target_modules=["out_proj"]))


def test_keys_that_contradict_each_other() -> None:
    with pytest.raises(ValidationError, match="must be one of language, vision, all, or a list"):
        LoraConfig(target_modules="tower")
    with pytest.raises(ValidationError, match=r"freeze_vision and lora\.target_modules 'all' con"):
        SftConfig(freeze_vision=True, lora=LoraConfig(target_modules="all"))
    with pytest.raises(ValidationError, match="compute_dtype and double_quant: only for quantiza"):
        ModelConfig(path="x", quantization="int8", compute_dtype="float16", double_quant=False)
    ModelConfig(path="x", quantization="nf4", compute_dtype="float16", double_quant=False)


def test_older_runs_do_not_know_the_keys_of_nf4() -> None:
    plain, nf4 = ModelConfig(path="x"), ModelConfig(path="x", quantization="nf4")
    assert not {"path", "revision", "compute_dtype", "double_quant"} & set(plain.loading)
    assert nf4.loading == {**plain.loading, "quantization": "nf4"}
    own = ModelConfig(path="x", quantization="nf4", compute_dtype="float16", double_quant=False)
    assert own.loading == {**nf4.loading, "compute_dtype": "float16", "double_quant": False}


def test_settings_reach_bitsandbytes(qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = network_of(qwen)
    config = ModelConfig(path=str(qwen), quantization="nf4")
    found = bitsandbytes_config(config, network)
    assert found.load_in_4bit and found.bnb_4bit_quant_type == "nf4"
    assert found.bnb_4bit_use_double_quant and found.bnb_4bit_compute_dtype == torch.bfloat16
    assert found.llm_int8_skip_modules == ["lm_head", "model.visual"]
    own = config.model_copy(update={"compute_dtype": "float32", "double_quant": False})
    found = bitsandbytes_config(own, network)
    assert not found.bnb_4bit_use_double_quant and found.bnb_4bit_compute_dtype == torch.float32
    assert bitsandbytes_config(ModelConfig(path="x", quantization="int8"), network).load_in_8bit
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    assert compute_dtype(config) == torch.float16


def test_a_bitsandbytes_that_does_not_load_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        def find_spec(self, name: str, *rest: object) -> None:
            if name == "bitsandbytes":
                raise RuntimeError("CUDA Setup failed\n  see above")

    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    config = ModelConfig(path="x", quantization="int8")
    with pytest.raises(UserError, match=r"int8: bitsandbytes does not load here \(CUDA Setup fail"):
        check_quantization(config)


def test_a_stage_says_nothing_of_kernels_that_it_does_not_need(
    caplog: pytest.LogCaptureFixture,
) -> None:
    quiet()
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no kernels")
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]


@pytest.fixture
def bitsandbytes() -> object:
    return pytest.importorskip("bitsandbytes", reason="the extra 'quantized' is not installed")


@families
def test_only_the_language_model_is_in_four_bits(
    family: str, tiny_model: Callable[[str], Path], bitsandbytes: SimpleNamespace
) -> None:
    folder = tiny_model(family)
    model = load_model(folder, ModelConfig(path=str(folder), quantization="nf4"))
    four = {n for n, m in model.named_modules() if isinstance(m, bitsandbytes.nn.Linear4bit)}
    assert is_quantized(model) and four == set(linear_names(model, "language"))
    assert count_parameters(model) == count_parameters(network_of(folder))


def test_gradients_are_the_same_after_a_pass_without_them(
    qwen: Path, bitsandbytes: SimpleNamespace
) -> None:
    """bitsandbytes re-packs 4-bit weights in such a pass on some CPUs, and they lose gradients."""
    model = load_model(qwen, ModelConfig(path=str(qwen), quantization="nf4"))
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert not any(getattr(layer, "support_avx512bf16_for_cpu", False) for layer in layers)
    prepare_quantized(model)
    torch.manual_seed(0)
    wrapped = peft.get_peft_model(model, lora_config(model, LoraConfig()))
    ids = torch.arange(20, 60).reshape(1, -1)

    def gradients() -> list[torch.Tensor]:
        wrapped.zero_grad()
        wrapped.train()(input_ids=ids, labels=ids, use_cache=False).loss.backward()
        return [p.grad.clone() for p in wrapped.parameters() if p.grad is not None]

    before = gradients()
    with torch.no_grad():
        wrapped.eval()(input_ids=ids, use_cache=False)
    after = gradients()
    assert len(before) == len(after) == 28
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert sum(bool(g.any()) for g in before) == 14  # of the second factors; the first ones follow


def test_what_trains_is_held_in_float32(qwen: Path, bitsandbytes: SimpleNamespace) -> None:
    half = ModelConfig(path=str(qwen), quantization="nf4", dtype="bfloat16")
    model = load_model(qwen, half)
    prepare_quantized(model)
    assert not any(p.requires_grad for p in model.parameters())
    kinds = {p.dtype for p in model.parameters()}
    assert kinds == {torch.float32, torch.uint8}
    wrapped = peft.get_peft_model(model, lora_config(model, LoraConfig()))
    trained = [p for p in wrapped.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.bfloat16()  # as TRL does
    adapters_in_float32(wrapped)
    assert {p.dtype for p in trained} == {torch.float32}
    plain = load_model(qwen, half.model_copy(update={"quantization": "none"}))
    prepare_quantized(plain)
    adapters_in_float32(plain)
    assert plain.dtype == torch.bfloat16 and all(p.requires_grad for p in plain.parameters())
