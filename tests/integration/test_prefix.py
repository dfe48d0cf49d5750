"""A cached prefix changes nothing: the same logits for all families, pictures in the policy too."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.tiny_models import FAMILIES, missing, qwen2_5_vl
from trimpi.batch import Encoded, encode_text
from trimpi.errors import UserError
from trimpi.evaluate.model_server import TransformersServer
from trimpi.evaluate.serving import WAYS
from trimpi.evaluate.settings import Request
from trimpi.model import load_model, load_processor
from trimpi.pictures import store_of
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.prefix import lay_out, shared_prefix, size_in_bytes
from trimpi.recipe import ModelConfig
from trimpi.sample import Sample


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> list[Request]:
    """Three requests under a policy of two pictures: one picture, two pictures, none."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = {name: str(folder / f"{name}.png") for name in ("wide", "high", "square")}
    sizes = {"wide": (96, 64), "high": (64, 96), "square": (64, 64)}
    for number, (name, path) in enumerate(paths.items()):
        Image.effect_noise(sizes[name], 40 + 60 * number).convert("RGB").save(path)
    parts = (
        TextPart("Condition 1: is there "),
        ImagePart(paths["wide"]),
        TextPart("a red object? Go to 1.2. "),
        ImagePart(paths["high"]),
    )
    policy = Policy("X", parts)
    asked = [
        ((paths["square"],), "Which response applies?"),
        ((paths["high"], paths["wide"]), "Which response applies, and why? " * 3),
        ((), "Which?"),
    ]
    return [
        Request(Sample(str(n), images, query, "X", "a"), policy, "cot")
        for n, (images, query) in enumerate(asked)
    ]


def load(folder: Path) -> tuple[object, object]:
    config = ModelConfig(path=str(folder))
    return load_model(folder, config), load_processor(folder, config)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_the_whole_prompt(
    family: str, requests: list[Request], tmp_path: Path
) -> None:
    if reason := missing(family):
        pytest.skip(reason)
    server = TransformersServer(*load(FAMILIES[family](tmp_path / family)), new_tokens=4)
    # One request each; Gemma 3 measures its window over padding, which lies elsewhere in a batch.
    batches = [[request] for request in requests] + ([] if family == "gemma3" else [requests])
    for batch in batches:
        prepared = server.prepare(batch)
        prefix = prepared.prefix
        assert prefix.fault == "" and prefix.logit_difference is not None
        assert prefix.logit_difference < 1e-4 * (prefix.logit_scale or 0)
        saved = prepared.prompt_tokens["with_policy"] - prepared.prompt_tokens["cached_prefix"]
        assert saved == pytest.approx(prefix.tokens)
        assert prefix.tokens >= (
            prepared.prompt_tokens["with_policy"] - prepared.prompt_tokens["without_policy"]
        )


def test_decoding_goes_on_alike_and_leaves_the_prefix_as_it_is(
    requests: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = TransformersServer(*load(qwen2_5_vl(tmp_path / "model")), new_tokens=8)
    prepared = server.prepare(requests)
    kept = [layer.keys.clone() for layer in prepared.inputs.cache.layers]
    written: dict[str, list[list[int]]] = {}
    chosen = server._chosen
    for way in (*WAYS, "cached_prefix"):
        written[way] = []

        def record(logits: torch.Tensor, into: list[list[int]] = written[way]) -> torch.Tensor:
            tokens = chosen(logits)
            into.append(tokens.tolist())
            return tokens

        monkeypatch.setattr(server, "_chosen", record)
        timing = server.time(prepared, way, 8)
        assert timing is not None
        assert 0 < timing.prefill < timing.first_token < timing.request
    assert written["cached_prefix"] == written["with_policy"] != written["without_policy"]
    assert len(written["with_policy"]) == 8
    for layer, keys in zip(prepared.inputs.cache.layers, kept, strict=True):
        assert torch.equal(layer.keys, keys)
    # 2 layers, keys and values, 2 heads of 16 dimensions in 4 bytes
    assert prepared.prefix.size == prepared.prefix.tokens * 2 * 2 * 2 * 16 * 4
    assert prepared.prefix.size == size_in_bytes(prepared.inputs.cache)


def test_positions_after_the_pictures_of_the_prefix(
    requests: list[Request], tmp_path: Path
) -> None:
    model, processor = load(qwen2_5_vl(tmp_path / "model"))
    rows = [encode_text(processor, requests[0].messages)]
    pixels = store_of(processor).pixels
    prefix = rows[0].input_ids.index(rows[0].input_ids[-1])  # anywhere; here in the first words
    whole = lay_out(model, rows, 0, pixels).tensors["position_ids"]
    rest = lay_out(model, rows, 0, pixels, prefix).tensors["position_ids"]
    assert torch.equal(whole[..., prefix:], rest) and whole.shape[0] == 3
    # Pictures of 96x64, 64x96 and 64x64 are 4x6, 6x4 and 4x4 tokens, and take 6, 6 and 4 positions.
    assert whole.max() + 1 == len(rows[0].input_ids) - (24 + 24 + 16) + (6 + 6 + 4)


def test_padding_lies_between_prefix_and_request(requests: list[Request], tmp_path: Path) -> None:
    model, processor = load(qwen2_5_vl(tmp_path / "model"))
    rows = [Encoded([5, 6, 7, 8, 9], [0] * 5, {}, ()), Encoded([5, 6, 4], [0] * 3, {}, ())]
    assert shared_prefix(rows) == 2
    tensors = lay_out(model, rows, 1, store_of(processor).pixels, prefix=2).tensors
    assert tensors["input_ids"].tolist() == [[7, 8, 9], [1, 1, 4]]
    assert tensors["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 0, 0, 1]]
    assert tensors["position_ids"][1].tolist()[-1] == 2


def test_a_prefix_leaves_a_token_of_every_row() -> None:
    row = Encoded([1, 2, 3], [0] * 3, {}, ())
    assert shared_prefix([row, row]) == 2


def test_other_logits_are_a_fault(requests: list[Request], tmp_path: Path) -> None:
    model, processor = load(qwen2_5_vl(tmp_path / "model"))
    server = TransformersServer(model, processor, new_tokens=4)
    rows = [encode_text(processor, requests[0].messages)]
    server.prepare_rows(rows, rows, 30, 0)  # keeps the prefix
    kept = server._kept
    assert kept is not None
    for layer in kept[2].layers:
        layer.keys = torch.zeros_like(layer.keys)
    fault = server.prepare_rows(rows, rows, 30, 0).prefix.fault
    assert fault.startswith("logits with the cached prefix differ by")


def test_a_prompt_beyond_the_context(requests: list[Request], tmp_path: Path) -> None:
    model, processor = load(qwen2_5_vl(tmp_path / "model", max_position_embeddings=100))
    with pytest.raises(UserError, match=r"prompt of \d+ tokens and new_tokens 4 exceed .* of 100"):
        TransformersServer(model, processor, new_tokens=4).prepare(requests[:1])
