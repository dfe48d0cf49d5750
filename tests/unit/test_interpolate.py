"""Between two models: arithmetic on files, hand-computed; what does not match is refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from tests.unit.test_pipeline import model_folder
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.interpolate import between, interpolate
from trimpi.model import load_model, load_processor, model_digest, read_lineage, save_model
from trimpi.recipe import ModelConfig


def folder_of(root: Path, shards: dict[str, dict[str, Any]], kind: str = "TinyVlm") -> Path:
    """A folder that passes for a model, with these tensors by file."""
    folder = model_folder(root)
    config = {"architectures": [kind], "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").unlink()
    for file, tensors in shards.items():
        save_file(tensors, folder / file, metadata={"format": "pt"})
    if len(shards) > 1:
        weight_map = {name: file for file, tensors in shards.items() for name in tensors}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def one(**tensors: torch.Tensor) -> dict[str, dict[str, torch.Tensor]]:
    return {"model.safetensors": tensors}


def test_a_quarter_of_the_way_by_hand(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", one(a=torch.tensor([0.0, 4.0]), n=torch.tensor([3])))
    model = folder_of(tmp_path / "model", one(a=torch.tensor([8.0, 4.0]), n=torch.tensor([3])))
    moved = interpolate(base, model, 0.25, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found["a"].tolist() == [2.0, 4.0] and found["n"].tolist() == [3]
    assert (moved.tensors, moved.changed, moved.distance) == (2, 1, 2.0)


def test_files_names_and_precision_are_those_of_the_model(tmp_path: Path) -> None:
    """The base lies in other files and another precision."""
    base = folder_of(tmp_path / "base", one(a=torch.ones(2), b=torch.zeros(2)))
    half = {"a": torch.tensor([3.0, 5.0], dtype=torch.bfloat16)}
    model = folder_of(
        tmp_path / "m", {"1.safetensors": half, "2.safetensors": {"b": torch.ones(2)}}
    )
    interpolate(base, model, 0.5, tmp_path / "out")
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        f.name for f in (*model.iterdir(), Path("lineage.json"))
    }
    found = load_file(tmp_path / "out" / "1.safetensors")["a"]
    assert found.dtype == torch.bfloat16 and found.tolist() == [2.0, 3.0]
    assert load_file(tmp_path / "out" / "2.safetensors")["b"].tolist() == [0.5, 0.5]
    steps = read_lineage(tmp_path / "out")["steps"]
    assert steps[-1]["config"] == {"weight": 0.5}
    assert (steps[-1]["input"], steps[-1]["base"]) == (model_digest(model), model_digest(base))


@given(st.floats(-1e4, 1e4, width=32), st.floats(-1e4, 1e4, width=32), st.floats(0, 1))
def test_the_ends_are_exact_and_all_else_lies_between(a: float, b: float, weight: float) -> None:
    base, model = torch.tensor([a]), torch.tensor([b])
    assert torch.equal(between(base, model, 0.0), base)
    assert torch.equal(between(base, model, 1.0), model)
    found, slack = float(between(base, model, weight)), 1e-6 * max(abs(a), abs(b))
    assert min(a, b) - slack <= found <= max(a, b) + slack


@pytest.mark.parametrize("stored", ["base", "model"])
def test_a_tied_tensor_may_be_stored_once_or_twice(tmp_path: Path, stored: str) -> None:
    shapes: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in (("base", 0.0), ("model", 4.0)):
        tensors = {"embed": torch.full((2, 2), value)}
        if name == stored:
            tensors["lm_head"] = tensors["embed"].clone()
        shapes[name] = tensors
    base, model = (folder_of(tmp_path / n, one(**shapes[n])) for n in ("base", "model"))
    interpolate(base, model, 0.5, tmp_path / "out")
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert set(found) == set(shapes["model"])
    assert all(tensor.eq(2.0).all() for tensor in found.values())


def test_all_that_does_not_match_is_told_at_once(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", one(a=torch.ones(2), b=torch.ones(3)))
    model = folder_of(tmp_path / "model", one(a=torch.ones(3), c=torch.zeros(3)))
    with pytest.raises(UserError) as caught:
        interpolate(base, model, 0.5, tmp_path / "out")
    assert str(caught.value).splitlines() == [
        f"a: [3] in {model}, [2] in the base",
        f"c: in {model}, not in {base}",
        f"b: in {base}, not in {model}",
        "take a model that was trained from this base",
    ]
    assert {f.name for f in tmp_path.iterdir()} == {"base", "model"}


def test_another_architecture_and_numbers_without_a_mean_are_refused(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", one(a=torch.tensor([1])))
    other = folder_of(tmp_path / "other", one(a=torch.tensor([1])), "OtherVlm")
    with pytest.raises(UserError, match=f"{other}: is a OtherVlm, the base {base} a TinyVlm"):
        interpolate(base, other, 0.5, tmp_path / "out")
    packed = folder_of(tmp_path / "packed", one(a=torch.tensor([2])))
    with pytest.raises(UserError, match="a: holds int64 values that differ, which have no mean"):
        interpolate(base, packed, 0.5, tmp_path / "out")
    with pytest.raises(UserError, match=r"weight 1\.5: must be from 0"):
        interpolate(base, packed, 1.5, tmp_path / "out")
    # nothing half-written stays behind, hidden or not
    assert {f.name for f in tmp_path.iterdir()} == {"base", "other", "packed"}


def test_weights_of_the_model_in_another_format_are_not_taken_along(tmp_path: Path) -> None:
    base = folder_of(tmp_path / "base", one(a=torch.tensor([0.0])))
    model = folder_of(tmp_path / "model", one(a=torch.tensor([1.0])))
    for name in ("pytorch_model.bin", "consolidated.safetensors", "model.gguf"):
        (model / name).write_bytes(b"the model's own")
    (model / "LICENSE.md").write_text("free")
    interpolate(base, model, 0.5, tmp_path / "out")
    names = {f.name for f in (tmp_path / "out").iterdir()}
    assert names == {f.name for f in base.iterdir()} | {"LICENSE.md", "lineage.json"}


def test_a_real_model_with_tied_weights(qwen: Path, tmp_path: Path) -> None:
    """What loads is the mean of what both models hold, by name and in every tensor."""
    config = ModelConfig(path=str(qwen))
    model = load_model(qwen, config)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    trained = save_model(model, load_processor(qwen, config), tmp_path / "t", read_lineage(qwen))
    interpolate(qwen, trained, 0.25, tmp_path / "out")
    start, end, found = (
        load_model(folder, config).state_dict() for folder in (qwen, trained, tmp_path / "out")
    )
    assert set(start) == set(found) and "lm_head.weight" in found
    for name in start:
        expected = 0.75 * start[name] + 0.25 * end[name]
        assert torch.allclose(found[name], expected, atol=1e-7), name
    interpolate(qwen, trained, 1.0, tmp_path / "whole")
    assert model_digest(tmp_path / "whole") == model_digest(trained)


def run(*words: object) -> Any:
    return CliRunner().invoke(app, ["model", "interpolate", *map(str, words)])


def test_the_command_writes_a_folder_for_each_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_of(tmp_path / "base", one(a=torch.zeros(2)))
    folder_of(tmp_path / "model", one(a=torch.ones(2)))
    monkeypatch.chdir(tmp_path)
    done = run("base", "model", "--weight", 0.5, "--weight", 0.7, "--output", "curve")
    assert done.exit_code == 0, done.output
    assert "curve/w0.5: 50% of model, which differs from the base in 1 of 1 tensors" in done.stdout
    found = load_file(tmp_path / "curve" / "w0.7" / "model.safetensors")["a"]
    assert torch.allclose(found, torch.full((2,), 0.7))
    assert run("base", "model", "--weight", 1, "--output", "one").exit_code == 0
    assert model_digest(tmp_path / "one") == model_digest(tmp_path / "model")


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("base", "model", "--weight", 0.5, "--output", "model"), "model: is there already"),
        (("base", "model", "--weight", 0.5, "--weight", 0.5, "--output", "x"), "given twice"),
        (("base", "./gone", "--weight", 0.5, "--output", "x"), "MODEL: no model folder"),
        (("package://trimpi/models/none", "model", "--weight", 0, "--output", "x"), "BASE: packa"),
    ],
)
def test_what_the_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], fault: str
) -> None:
    folder_of(tmp_path / "base", one(a=torch.zeros(2)))
    shutil.copytree(tmp_path / "base", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 2 and fault in done.stderr
    assert not (tmp_path / "x").exists()
