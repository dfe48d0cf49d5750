"""Adapters merged on disk: the numbers of peft's own merge, several shards, bounded memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny_models
from tests.adapters import learned_adapter
from trimpi.errors import UserError
from trimpi.model import check_adapter, load_config, load_model, skeleton
from trimpi.recipe import LoraConfig, ModelConfig
from trimpi.shard_merge import Factors, factors_of, merge_shards, stored_names, weight_files

families = pytest.mark.parametrize("family", list(tiny_models.FAMILIES))


def in_shards(folder: Path, out: Path, size: str = "60KB") -> Path:
    """The same weights, saved in several files."""
    model = load_model(folder, ModelConfig(path=str(folder)))
    model.save_pretrained(out, max_shard_size=size)
    assert len(weight_files(out)) > 2
    return out


def adapted(folder: Path, part: str) -> Any:
    model = load_model(folder, ModelConfig(path=str(folder)))
    torch.manual_seed(1)
    return learned_adapter(model, LoraConfig(target_modules=part))


def contents(folder: Path) -> dict[str, torch.Tensor]:
    return {key: value for file in weight_files(folder) for key, value in load_file(file).items()}


@families
def test_several_shards_hold_what_a_merge_in_memory_gives(
    family: str, tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = tiny_model(family)
    wrapped = adapted(folder, "all")
    factors = factors_of(wrapped)
    base = in_shards(folder, tmp_path / "base")
    config = ModelConfig(path=str(folder))
    network = skeleton(load_config(folder, config))
    (tmp_path / "out").mkdir()
    merge_shards(base, network, factors, tmp_path / "out", shard_bytes=80_000)
    files = weight_files(tmp_path / "out")
    assert len(files) > 2 and all(f.stat().st_size < 80_000 + 60_000 for f in files)
    assert {f.name for f in (tmp_path / "out").glob("*.safetensors")} == {f.name for f in files}
    wrapped.merge_and_unload().save_pretrained(tmp_path / "expected")
    expected, found = contents(tmp_path / "expected"), contents(tmp_path / "out")
    before = contents(base)
    assert set(found) == set(before) == set(expected)
    for key, value in found.items():
        assert torch.allclose(value, expected[key], atol=1e-6), key
    changed = [key for key in found if not torch.equal(found[key], before[key])]
    assert len(changed) == len(factors) > 14


def test_other_precision_on_disk_and_one_file(qwen: Path, tmp_path: Path) -> None:
    wrapped = adapted(qwen, "language")
    network = skeleton(load_config(qwen, ModelConfig(path=str(qwen))))
    merge_shards(qwen, network, factors_of(wrapped), tmp_path, torch.bfloat16)
    assert [f.name for f in tmp_path.iterdir()] == ["model.safetensors"]
    found, base = load_file(tmp_path / "model.safetensors"), contents(qwen)
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    wrapped.merge_and_unload().save_pretrained(tmp_path / "expected")
    for key, value in contents(tmp_path / "expected").items():
        assert torch.equal(found[key], value.bfloat16()), key  # rounded once, not twice
    assert set(found) == set(base)


def test_one_layer_by_hand(qwen: Path, tmp_path: Path) -> None:
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    network = skeleton(load_config(qwen, ModelConfig(path=str(qwen))))
    assert stored_names(qwen, network)[name] == (
        qwen / "model.safetensors",
        "model.layers.0.self_attn.q_proj.weight",
    )
    a, b = torch.zeros(2, 64), torch.zeros(64, 2)
    a[0, 3], a[1, 5], b[7, 0], b[7, 1] = 2.0, 4.0, 0.5, 0.25
    merge_shards(qwen, network, {name: Factors(a, b, 3.0)}, tmp_path)
    key = "model.layers.0.self_attn.q_proj.weight"
    moved = contents(tmp_path)[key] - contents(qwen)[key]
    assert moved.nonzero().tolist() == [[7, 3], [7, 5]]
    assert moved[7, 3] == pytest.approx(3.0) and moved[7, 5] == pytest.approx(3.0)


def test_merges_that_cannot_be_made(qwen: Path, tmp_path: Path) -> None:
    network = skeleton(load_config(qwen, ModelConfig(path=str(qwen))))
    name = "model.language_model.layers.0.self_attn.q_proj.weight"
    endless = Factors(torch.full((1, 64), torch.inf), torch.ones(64, 1), 1.0)
    with pytest.raises(UserError, match=r"q_proj.weight is not finite\); lower the learning rate"):
        merge_shards(qwen, network, {name: endless}, tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match=r"holds no model\.nowhere\.weight"):
        merge_shards(qwen, network, {"model.nowhere.weight": endless}, tmp_path)


def test_layers_stored_in_another_form_are_refused_before_training(
    tiny_model: Callable[[str], Path], tmp_path: Path
) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_model("qwen3_vl"), tmp_path / "apart"))
    tensors = contents(folder)
    key = "model.language_model.layers.1.mlp.up_proj.weight"
    tensors[key.replace("up_proj", "up_proj_part")] = tensors.pop(key)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = ModelConfig(path=str(folder), quantization="nf4")
    with pytest.raises(UserError, match=r"up_proj \(1 layers in all\) in parts or fused, so the"):
        check_adapter(folder, config, LoraConfig())
    check_adapter(folder, config, LoraConfig(target_modules=["q_proj"]))
    check_adapter(folder, config.model_copy(update={"quantization": "none"}), LoraConfig())
