"""Equal pictures go through the vision tower once, and no number changes: all families."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from tests import tiny_models
from trimpi.batch import collate, encode_text
from trimpi.model import freeze_vision, load_model, load_processor
from trimpi.picture_features import PictureFeatures, share_pictures
from trimpi.recipe import ModelConfig

SHOWN = ("ab", "a", "", "ba", "aa")
"""Pictures of each row: several, one, none, in another order, twice the same."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two pictures of different sizes, all pixels drawn."""
    folder, draw = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name, size in (("a", (64, 96)), ("b", (96, 64))):
        Image.fromarray(draw.integers(0, 255, (*size, 3), np.uint8)).save(folder / f"{name}.png")
    return {name: str(folder / f"{name}.png") for name in "ab"}


@pytest.fixture
def family(
    request: pytest.FixtureRequest,
    tiny_model: Callable[[str], Path],
    pictures: dict[str, str],
) -> tuple[Any, dict[str, torch.Tensor]]:
    """A model and a batch that shows pictures as `SHOWN` says."""
    folder = tiny_model(request.param)
    config = ModelConfig(path=str(folder))
    processor = load_processor(folder, config)
    rows = [
        encode_text(
            processor,
            [{"role": "user", "content": [*({"type": "image", "image": pictures[p]} for p in row),
                                          {"type": "text", "text": "Is there a red object?"}]}],
        )
        for row in SHOWN
    ]  # fmt: skip
    batch = collate(processor, rows, side="left")
    del batch["labels"]
    return load_model(folder, config), batch


every_family = pytest.mark.parametrize("family", tiny_models.FAMILIES, indirect=True)
one_family = pytest.mark.parametrize("family", ["qwen2_5_vl"], indirect=True)


def seen_by_tower(model: Any) -> list[int]:
    """Values of pixels that go through the vision tower, by call."""
    calls: list[int] = []

    def look(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        pixels = next(v for v in (*args, *kwargs.values()) if torch.is_tensor(v))
        calls.append(pixels.numel())

    tower = model.get_encoder(modality="image")
    tower.register_forward_pre_hook(look, with_kwargs=True)
    return calls


def outcome(model: Any, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Logits, and gradients of all weights that get one."""
    model.zero_grad()
    logits = model(**batch).logits[batch["attention_mask"].bool()]
    logits.square().mean().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **grads}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        scale = max(1.0, float(value.abs().max()))
        torch.testing.assert_close(other[name], value, atol=2e-6 * scale, rtol=1e-4, msg=name)


@every_family
def test_trained_tower(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """Logits and gradients stay, and each picture goes through the tower once a call."""
    model, batch = family
    calls = seen_by_tower(model)
    plain = outcome(model, batch)
    features = share_pictures(model)
    assert isinstance(features, PictureFeatures) and not features.static
    same(plain, outcome(model, batch))
    # Seven pictures, two of them different.
    assert calls[1] * 7 <= calls[0] * 3 and features.unknown is None
    assert features.computed < features.asked
    outcome(model, batch)
    assert calls[2] == calls[1], "a trained tower is asked in every call"
    features.release()
    outcome(model, batch)
    assert calls[3] == calls[0]


@every_family
def test_frozen_tower(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """With nothing trained before the language model, a picture is computed once for good."""
    model, batch = family
    language = {id(p) for p in model.base_model.get_decoder().parameters()}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in language)
    calls = seen_by_tower(model)
    plain = outcome(model, batch)
    features = share_pictures(model)
    assert features is not None and features.static
    same(plain, outcome(model, batch))
    same(plain, outcome(model, batch))
    with torch.no_grad():
        model(**batch)
    assert len(calls) == 2, "one call of the plain way, and one for good"


@pytest.mark.parametrize("family", ["qwen2_5_vl", "smolvlm"], indirect=True)
def test_generation(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """`generate` finds the method's signature, and repeats rows as before."""
    model, batch = family
    asked = {"max_new_tokens": 3, "do_sample": False, "num_return_sequences": 2, "num_beams": 2}
    plain = model.generate(**batch, **asked)
    features = share_pictures(model)
    assert features is not None
    assert torch.equal(plain, model.generate(**batch, **asked))
    assert features.computed < features.asked


@one_family
def test_projector_of_a_frozen_tower(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """`freeze_vision` of a Qwen leaves nothing trained before the language model."""
    model, _ = family
    freeze_vision(model)
    features = share_pictures(model)
    assert features is not None and features.static


@one_family
def test_a_block_without_updates(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """Features of a trained tower are kept in a block, never beyond it, never with gradients."""
    model, batch = family
    features = share_pictures(model)
    assert features is not None
    with features.kept(), torch.no_grad():
        first = model(**batch).logits
        model(**batch)
        assert features.computed == 2
        with torch.enable_grad():
            model(**batch)
        assert features.computed == 4
    with torch.no_grad():
        for weight in model.get_encoder(modality="image").parameters():
            weight.mul_(1.1)
        with features.kept():
            assert not torch.allclose(model(**batch).logits, first)
        features.release()


@one_family
def test_adapters_of_the_tower(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """Features with the adapter on are not those with it off, so none are kept."""
    model, batch = family
    names = [n for n, m in model.get_encoder(modality="image").named_modules() if "qkv" in n]
    model = get_peft_model(model, LoraConfig(target_modules=names, init_lora_weights=False))
    features = share_pictures(model)
    assert features is not None and not features.static
    with features.kept(), torch.no_grad():
        on = model(**batch).logits
        with model.disable_adapter():
            off = model(**batch).logits
    assert not torch.allclose(on, off)


@one_family
def test_bound_of_the_store(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """What does not fit is computed again, and the numbers stay."""
    model, batch = family
    model.requires_grad_(False)
    plain = model(**batch).logits
    one_picture = 24 * 64 * 4
    features = share_pictures(model, limit=one_picture)
    assert features is not None
    for computed in (2, 3):
        torch.testing.assert_close(model(**batch).logits, plain, atol=2e-6, rtol=1e-4)
        assert features.computed == computed
    assert features._bytes == one_picture


@one_family
def test_dropout_takes_the_plain_way(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """Copies of a picture draw on their own in training; in evaluation nothing draws."""
    model, batch = family
    tower = model.get_encoder(modality="image")
    tower.added = torch.nn.Dropout(0.5)
    features = share_pictures(model)
    assert features is not None
    model.train()(**batch)
    assert features.asked == 0 and "dropout" in str(features.unknown)
    model.eval()(**batch)
    assert (features.asked, features.computed) == (7, 2)


@one_family
def test_unknown_inputs_take_the_plain_way(family: tuple[Any, dict[str, torch.Tensor]]) -> None:
    """Inputs of pictures that are not known here are never cut."""
    model, batch = family
    features = share_pictures(model)
    assert features is not None
    pixels, grid = batch["pixel_values"], batch["image_grid_thw"]
    cut = features._cut(
        model.base_model, model.base_model, pixels, grid, image_cu_seqlens=torch.arange(3)
    )
    assert cut is None and "image_cu_seqlens" in str(features.unknown)


@one_family
def test_a_copy_of_the_model_has_its_own_tower(
    family: tuple[Any, dict[str, torch.Tensor]],
) -> None:
    model, batch = family
    assert share_pictures(model) is not None
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.get_encoder(modality="image").parameters():
            weight.mul_(1.5)
        assert not torch.allclose(model(**batch).logits, other(**batch).logits)


def test_text_models_have_nothing_to_share() -> None:
    assert share_pictures(torch.nn.Linear(1, 1)) is None
