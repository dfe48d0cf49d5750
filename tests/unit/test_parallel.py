"""`parallel`: configurations that accelerate itself reads, and what cannot go with them."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from trimpi.checks import check_recipe
from trimpi.errors import UserError
from trimpi.launch import run_stage
from trimpi.parallel import configuration, launch_command, parallel_problems
from trimpi.recipe import Recipe
from trimpi.sample import DataFolder


def recipe_of(qwen: Path, data: DataFolder, **more: Any) -> Recipe:
    stages = more.pop("stages", {"sft": {"max_steps": 1, "batch_size": 2, "micro_batch_size": 1}})
    raw = {"name": "r", "model": {"path": str(qwen)}, "data": {"folder": str(data.root)}}
    raw |= {"devices": 2, "stages": stages, "evaluation": {"settings": ["no_policy"]}}
    return Recipe.model_validate({**raw, **more})


@pytest.mark.parametrize(
    ("way", "kind"),
    [("ddp", "MULTI_GPU"), ("fsdp2", "FSDP"), ("zero2", "DEEPSPEED"), ("zero3", "DEEPSPEED")],
)
def test_accelerate_reads_the_configurations(way: str, kind: str) -> None:
    """Its parser refuses keys that it does not know."""
    config = load_config_from_file(str(configuration(way)))
    assert config.distributed_type == DistributedType(kind)
    if way == "fsdp2":
        assert config.fsdp_config["fsdp_version"] == 2
        assert config.fsdp_config["fsdp_state_dict_type"] == "FULL_STATE_DICT"
    if kind == "DEEPSPEED":
        assert config.deepspeed_config["zero_stage"] == int(way[-1])
        # Weights are put together at a stage's end; without this DeepSpeed refuses to.
        assert way == "zero2" or config.deepspeed_config["zero3_save_16bit_model"]


def test_devices_decide_the_number_of_processes() -> None:
    command = launch_command("ddp", 3)
    assert command[command.index("--num_processes") + 1] == "3"
    assert Path(command[command.index("--config_file") + 1]).is_file()


def test_what_cannot_go_with_shards(qwen: Path, data: DataFolder) -> None:
    adapted = {"kind": "rl", "lora": {"r": 2}, "kl_reference": "base", "trainer": {"fsdp": True}}
    rl = {"prompts_per_step": 2, "group_size": 4, "beta": 0.1}
    model = {"path": str(qwen), "quantization": "nf4"}
    recipe = recipe_of(qwen, data, parallel="fsdp2", model=model, stages={"r": {**adapted, **rl}})
    found = parallel_problems(recipe)
    assert len(found) == 3
    assert found[0].startswith("model.quantization: FSDP2 cannot shard the packed bytes of nf4")
    assert found[1].startswith("stages.r.kl_reference: base under LoRA needs a second model")
    assert found[2].startswith("stages.r.trainer.fsdp: parallel: fsdp2 decides")
    assert parallel_problems(recipe_of(qwen, data, parallel="ddp", model=model)) == []
    own = {"r": {"kind": "sft", "lora": {"r": 2}, "trainer": {"fsdp": True}}}
    found = parallel_problems(recipe_of(qwen, data, model=model, stages=own))
    assert len(found) == 1 and "trainer.fsdp cannot shard the packed bytes of nf4" in found[0]


def test_deepspeed_that_is_missing(
    qwen: Path, data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run is refused before a process starts; a dry run, perhaps elsewhere, has a note."""
    find = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == "deepspeed" else find(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    recipe = recipe_of(qwen, data, parallel="zero3")
    said = r"parallel: zero3 needs deepspeed, which is not installed; pip install 'trimpi\[deep"
    with pytest.raises(UserError, match=said):
        run_stage(recipe, recipe.stages["sft"], qwen, data.root, tmp_path / "sft", 0)
    assert not (tmp_path / "sft").exists()
    with pytest.raises(UserError, match=said):
        check_recipe(recipe, tmp_path / "run", estimates=False).stop_if_faulty()
    dry = check_recipe(recipe, tmp_path / "run")
    assert not dry.problems and any("needs deepspeed" in line for line in dry.unchecked)


def test_one_way_for_more_than_one_device(qwen: Path, data: DataFolder) -> None:
    with pytest.raises(ValueError, match="launcher: 'parallel' starts the processes already"):
        recipe_of(qwen, data, parallel="ddp", launcher="torchrun")
    with pytest.raises(ValueError, match="parallel: one device has nothing to share"):
        recipe_of(qwen, data, parallel="ddp", devices=1)
