"""Model folders: what is refused, what survives a save, and adapters that merge exactly."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import peft
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.adapters import learned_adapter
from trimpi.adapter import logits_of
from trimpi.batch import collate, encode_prompt, encode_text
from trimpi.errors import UserError
from trimpi.memory import read_size
from trimpi.model import (
    check_model_folder,
    check_quantization,
    context_limit,
    count_parameters,
    freeze_vision,
    load_config,
    load_model,
    load_processor,
    locate,
    lora_config,
    merge_adapter,
    model_digest,
    read_lineage,
    save_model,
    verify_reload,
    visual_token_ids,
)
from trimpi.pictures import store_of
from trimpi.prompt import build_messages
from trimpi.recipe import LoraConfig, ModelConfig
from trimpi.sample import DataFolder


@pytest.fixture
def copy(qwen: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(qwen, tmp_path / "copy"))


def test_loads_for_use_and_for_training(qwen: Path, qwen_config: ModelConfig) -> None:
    half = qwen_config.model_copy(update={"dtype": "bfloat16"})
    assert load_model(qwen, half).dtype == torch.bfloat16
    assert load_model(qwen, qwen_config, train=True).dtype == torch.float32
    model = load_model(qwen, qwen_config)
    assert not model.training
    assert context_limit(model.config) == 4096
    assert model.config._attn_implementation == "sdpa"


def test_auto_dtype_trains_sixteen_bit_weights_in_float32(
    qwen: Path, qwen_config: ModelConfig, tmp_path: Path
) -> None:
    half = load_model(qwen, qwen_config.model_copy(update={"dtype": "bfloat16"}))
    folder = save_model(half, load_processor(qwen, qwen_config), tmp_path / "half", {"steps": []})
    assert load_model(folder, qwen_config).dtype == torch.bfloat16
    assert load_model(folder, qwen_config, train=True).dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("config.json", "config.json"),
        ("model.safetensors", "model.safetensors"),
        ("tokenizer.json", "tokenizer"),
        ("processor_config.json", "processor"),
        ("chat_template.jinja", "chat template"),
    ],
)
def test_a_folder_that_lacks_a_file_is_refused(copy: Path, name: str, word: str) -> None:
    check_model_folder(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=word) as caught:
        check_model_folder(copy)
    assert len(str(caught.value).splitlines()) == 1


def test_all_faults_of_a_folder_at_once(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    (copy / "chat_template.jinja").unlink()
    (copy / "model.safetensors").write_bytes((copy / "model.safetensors").read_bytes()[:-100])
    with pytest.raises(UserError) as caught:
        check_model_folder(copy)
    assert len(str(caught.value).splitlines()) == 3
    assert "cut off" in str(caught.value)


def test_a_missing_shard_is_named(copy: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-1.safetensors"}}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"model-1\.safetensors: missing"):
        check_model_folder(copy)


def test_a_text_model_is_refused(copy: Path) -> None:
    (copy / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 8}))
    with pytest.raises(UserError, match="no vision part"):
        check_model_folder(copy)


def test_a_missing_folder_is_refused(tmp_path: Path, qwen_config: ModelConfig) -> None:
    with pytest.raises(UserError, match="no such model folder"):
        load_model(tmp_path / "nowhere", qwen_config)
    with pytest.raises(UserError, match="holds no folder"):
        locate("package://trimpi/models/none")


def test_a_processor_without_template_is_refused(copy: Path, qwen_config: ModelConfig) -> None:
    (copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="no chat template"):
        load_processor(copy, qwen_config)
    (copy / "processor_config.json").unlink()
    with pytest.raises(UserError, match="no processor"):
        load_processor(copy, qwen_config)


def test_pixel_bounds_reach_the_image_processor(
    qwen: Path, qwen_config: ModelConfig, data: DataFolder
) -> None:
    sample = data.read("test")[0]
    free = load_processor(qwen, qwen_config)
    bound = load_processor(qwen, qwen_config.model_copy(update={"max_pixels": 48 * 32}))
    counts = [
        encode_prompt(p, build_messages(sample, None))["image_grid_thw"].prod().item()
        for p in (free, bound)
    ]
    assert counts == [96, 24]


def test_visual_tokens_of_a_known_and_an_unknown_family(
    qwen: Path, qwen_config: ModelConfig
) -> None:
    config, processor = load_config(qwen, qwen_config), load_processor(qwen, qwen_config)
    names = ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")
    expected = {processor.tokenizer.convert_tokens_to_ids(f"<|{name}|>") for name in names}
    assert visual_token_ids(config, processor.tokenizer) == expected
    config.model_type = "brand_new_vl"
    found = visual_token_ids(config, processor.tokenizer)
    assert found == expected - {processor.tokenizer.convert_tokens_to_ids("<|vision_pad|>")}


def test_freezing_takes_the_vision_tower_alone(qwen: Path, qwen_config: ModelConfig) -> None:
    model = load_model(qwen, qwen_config)
    everything = count_parameters(model)
    frozen = freeze_vision(model)
    assert 0 < frozen < everything
    assert count_parameters(model, trainable=True) == everything - frozen
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (".visual." not in name), name


def test_a_save_is_complete_and_keeps_digest_and_lineage(
    qwen: Path, qwen_config: ModelConfig, tmp_path: Path
) -> None:
    lineage = read_lineage(qwen)
    assert lineage["steps"] == [] and lineage["base_digest"] == model_digest(qwen)
    lineage["steps"].append({"stage": "cpt"})
    processor = load_processor(qwen, qwen_config)
    folder = save_model(load_model(qwen, qwen_config), processor, tmp_path / "out", lineage)
    assert read_lineage(folder) == lineage
    assert not list(tmp_path.glob(".out*"))
    first, second = (load_file(f / "model.safetensors") for f in (qwen, folder))
    assert all(torch.equal(first[key], second[key]) for key in first)
    again = save_model(load_model(folder, qwen_config), processor, tmp_path / "out", lineage)
    assert model_digest(again) == model_digest(folder)
    tensors = {key: value + 1 for key, value in second.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert model_digest(folder) != model_digest(qwen)


def test_an_adapter_goes_to_the_language_model_and_never_to_the_head(
    qwen: Path, qwen_config: ModelConfig
) -> None:
    model = load_model(qwen, qwen_config)
    wrapped = peft.get_peft_model(model, lora_config(model, LoraConfig()))
    adapted = {n.split(".lora_A")[0] for n, _ in wrapped.named_parameters() if ".lora_A" in n}
    assert len(adapted) == 2 * 7
    assert all(".language_model.layers." in name for name in adapted)
    with pytest.raises(UserError, match="'qproj' is no linear layer"):
        lora_config(model, LoraConfig(target_modules=["qproj"]))


def test_a_merged_adapter_is_the_same_model_and_a_wrong_one_is_noticed(
    qwen: Path, qwen_config: ModelConfig, data: DataFolder, tmp_path: Path
) -> None:
    model, processor = load_model(qwen, qwen_config), load_processor(qwen, qwen_config)
    torch.manual_seed(1)
    wrapped = learned_adapter(model)
    rows = [encode_text(processor, build_messages(s, None)) for s in data.read("test")[:2]]
    batch = collate(processor, rows)
    expected = logits_of(wrapped, batch)
    with wrapped.disable_adapter():
        base = logits_of(wrapped, batch)
    assert (base - expected).abs().max() > 0.1
    folder = save_model(merge_adapter(wrapped), processor, tmp_path / "merged", {"steps": []})
    found = verify_reload(expected, lambda: load_model(folder, qwen_config), batch, base)
    assert found["max_abs"] < found["limit"] and found["kept"] == pytest.approx(1, abs=1e-4)
    assert found["learned"] == pytest.approx(float((expected - base).abs().mean()))
    with pytest.raises(UserError, match="not the trained one"):
        verify_reload(expected, lambda: load_model(qwen, qwen_config), batch)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for x %}", "the chat template does not render"),
        ("{{ raise_exception('no') }}", r"the chat template does not render \(no\)"),
        ("hello", "the chat template leaves out what the user says"),
        ("  ", "no chat template"),
    ],
)
def test_templates_that_cannot_be_used(
    copy: Path, qwen_config: ModelConfig, template: str, message: str
) -> None:
    (copy / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match=message):
        check_model_folder(copy)
        load_processor(copy, qwen_config)


def test_configurations_that_make_no_model(copy: Path) -> None:
    for content in ('{"model_type": "nosuch", "vision_config": {}}', '{"vision_config": 3}'):
        (copy / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json: makes no vision-language model"):
            read_size(copy)


def test_a_picture_that_the_image_processor_refuses(
    qwen: Path, qwen_config: ModelConfig, tmp_path: Path
) -> None:
    Image.new("RGB", (2000, 3)).save(tmp_path / "strip.png")
    processor = load_processor(qwen, qwen_config)
    with pytest.raises(UserError, match=r"strip\.png: .* refuses the picture, 2000 x 3 pixels"):
        store_of(processor).expansion(str(tmp_path / "strip.png"))


def test_an_adapter_that_rounding_swallows_is_noticed(
    qwen: Path, qwen_config: ModelConfig, data: DataFolder, tmp_path: Path
) -> None:
    """Of a shift far below the spread of the logits, the folder of the base has nothing."""
    model, processor = load_model(qwen, qwen_config), load_processor(qwen, qwen_config)
    batch = collate(processor, [encode_text(processor, build_messages(data.read("test")[0], None))])
    base = logits_of(model, batch)
    shift = 1e-4 * base.std() * torch.sign(base)
    whole = verify_reload(base, lambda: load_model(qwen, qwen_config), batch, base - shift)
    assert whole["kept"] == pytest.approx(1)
    with pytest.raises(UserError, match=r"holds 0% of what its adapter learned: float32 rounds"):
        verify_reload(base + shift, lambda: load_model(qwen, qwen_config), batch, base)


def test_quantization_that_cannot_work_is_refused(
    qwen_config: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = qwen_config.model_copy(update={"quantization": "nf4"})
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"needs bitsandbytes; pip install"):
        check_quantization(config)
    known = SimpleNamespace(supported_torch_devices={"elsewhere"})
    monkeypatch.setitem(sys.modules, "bitsandbytes", known)
    with pytest.raises(UserError, match=r"no kernels for (cpu|cuda)"):
        check_quantization(config)
    known.supported_torch_devices |= {"cpu", "cuda"}
    check_quantization(config)
    with pytest.raises(UserError, match=r"give the stage a 'lora'"):
        check_quantization(config, train=True)
    check_quantization(qwen_config, train=True)


def test_no_torch_is_needed_to_check_a_folder(qwen: Path, run_python: Callable[[str], str]) -> None:
    code = f"""
import sys
from trimpi.model_folder import check_model_folder
check_model_folder({str(qwen)!r})
print('torch' in sys.modules)
"""
    assert run_python(code) == "False"
