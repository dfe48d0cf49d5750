"""Completions that share their prompts: the same logits and tokens as one by one."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.adapters import learned_adapter
from tests.tiny_models import FAMILIES, missing, qwen2_5_vl
from trimpi.batch import Encoded, collate, encode_text
from trimpi.generate import stop_token_ids, to_model
from trimpi.group_decoding import Family, Prompts, can_share, decode, families, prefill
from trimpi.model import load_model, load_processor
from trimpi.pictures import store_of
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.processor import visual_token_ids
from trimpi.prompt import build_messages
from trimpi.quantization import prepare_quantized
from trimpi.recipe import ModelConfig
from trimpi.row_draws import sample_by_row, uniforms
from trimpi.sample import Sample
from trimpi.shared_attention import (
    NotShared,
    Readers,
    SegmentedCache,
    SegmentedLayer,
    attend,
    shared_attention,
)

COPIES = [3, 2, 1, 4, 2]


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Two requests without a policy (a picture, none), three with one that holds a picture."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = {name: str(folder / f"{name}.png") for name in ("wide", "high", "square")}
    sizes = {"wide": (96, 64), "high": (64, 96), "square": (64, 64)}
    for number, (name, path) in enumerate(paths.items()):
        Image.effect_noise(sizes[name], 40 + 60 * number).convert("RGB").save(path)
    words = "a red object? Go to 1.2. Is there a large metal cylinder? Go to Condition 1.1. " * 3
    policy = Policy("X", (TextPart("Is there "), ImagePart(paths["wide"]), TextPart(words)))
    asked: list[tuple[tuple[str, ...], str, Policy | None]] = [
        ((paths["square"],), "Which response applies?", None),
        ((), "Which?", None),
        ((paths["high"], paths["wide"]), "Which response applies, and why? " * 2, policy),
        ((paths["square"],), "Which response?", policy),
        ((), "Which?", policy),
    ]
    return [
        build_messages(Sample(str(n), images, query, "X", "a"), shown)
        for n, (images, query, shown) in enumerate(asked)
    ]


def load(folder: Path, dtype: Any = "auto") -> tuple[Any, Any]:
    config = ModelConfig(path=str(folder), dtype=dtype)
    return load_model(folder, config).eval(), load_processor(folder, config)


def adapted(folder: Path, quantization: Any) -> tuple[Any, Any]:
    """A quantized base with an adapter, as a stage of RL has it."""
    pytest.importorskip("bitsandbytes", reason="the extra 'quantized' is not installed")
    config = ModelConfig(path=str(folder), quantization=quantization)
    model = load_model(folder, config)
    prepare_quantized(model)
    return learned_adapter(model).eval(), load_processor(folder, config)


def prompts_of(model: Any, processor: Any, rows: Sequence[Encoded], batch: int = 2) -> Prompts:
    store = store_of(processor)
    visual = frozenset(visual_token_ids(model.config, processor.tokenizer))
    pad = processor.tokenizer.pad_token_id
    ids = lambda path: store.expansion(path).ids  # noqa: E731
    return Prompts(rows, COPIES, pad, store.pixels, ids, visual, batch)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "gemma3"])
def test_first_logits_and_all_tokens_are_those_of_each_prompt_alone(
    family: str, messages: list[Any], tmp_path: Path
) -> None:
    """Greedy and drawn; the drawn rows end at different places."""
    if reason := missing(family):
        pytest.skip(reason)
    model, processor = load(FAMILIES[family](tmp_path / family))
    rows = [encode_text(processor, m) for m in messages]
    prompts = prompts_of(model, processor, rows)
    assert can_share(model) == ""
    assert sorted(len(f.members) for f in families(prompts) if f.prefix) == [3]
    batches = [to_model(collate(processor, [row], side="left"), model) for row in rows]
    for batch in batches:
        del batch["labels"]
    with torch.no_grad():
        _, first, _ = prefill(model, prompts)
        alone = torch.cat([model(**batch).logits[:, -1] for batch in batches])
    wanted = alone.repeat_interleave(torch.tensor(COPIES), dim=0)
    assert torch.allclose(first.log_softmax(-1), wanted.log_softmax(-1), atol=1e-5)
    whole = collate(processor, rows, side="left")
    common = {"max_new_tokens": 12, "pad_token_id": prompts.pad}
    # Many tokens end a turn here, so that rows leave the loop one after the other.
    ends = sorted(stop_token_ids(model, processor) | set(range(100, 130)))
    for sampling in ({"do_sample": False}, {"do_sample": True, "top_k": 0, "temperature": 0.7}):
        options = {**common, **sampling, "eos_token_id": ends, "repetition_penalty": 1.1}
        numbers = uniforms((0, 0, 0), range(sum(COPIES)), 12)
        found = model.generate(
            input_ids=whole["input_ids"],
            attention_mask=whole["attention_mask"],
            custom_generate=partial(decode, prompts=prompts, numbers=numbers),
            **options,
        )[:, whole["input_ids"].shape[1] :]
        at, lengths = 0, set()
        for batch, copies in zip(batches, COPIES, strict=True):
            draw = partial(sample_by_row, numbers=numbers[at : at + copies])
            times = copies if sampling["do_sample"] else 1  # greedy copies are the same
            slow = model.generate(
                **batch, custom_generate=draw, num_return_sequences=times, **options
            )[:, batch["input_ids"].shape[1] :].repeat(copies // times, 1)
            for one, other in zip(found[at : at + copies].tolist(), slow.tolist(), strict=True):
                end = next((i for i, token in enumerate(other) if token in ends), 11) + 1
                assert one[:end] == other[:end]
                lengths.add(end)
            at += copies
        assert len(lengths) > 1
    assert model.config.get_text_config()._attn_implementation != "trimpi_shared"


def every_step(
    model: Any, processor: Any, messages: list[Any], suppressed: list[int]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Of each row: log-probabilities of six steps of the loop, and of one pass, [6, V]."""
    rows = [encode_text(processor, m) for m in messages]
    prompts = prompts_of(model, processor, rows, batch=3)
    seen: list[torch.Tensor] = []

    def note(input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        seen.append(scores.log_softmax(-1))
        return scores

    whole = collate(processor, rows, side="left")
    width = whole["input_ids"].shape[1]
    found = model.generate(
        input_ids=whole["input_ids"],
        attention_mask=whole["attention_mask"],
        custom_generate=partial(
            decode, prompts=prompts, numbers=uniforms((1,), range(sum(COPIES)), 6)
        ),
        logits_processor=[note],
        max_new_tokens=6,
        do_sample=True,
        top_k=0,
        eos_token_id=[0],
        suppress_tokens=suppressed or None,
        pad_token_id=prompts.pad,
    )[:, width:]
    assert (found != 0).all()  # none ended, so that rows stay where they are
    owners = [encoded for encoded, copies in zip(rows, COPIES, strict=True) for _ in range(copies)]
    for row, encoded in enumerate(owners):
        ids = encoded.input_ids + found[row].tolist()
        types = {name: values + [0] * 6 for name, values in encoded.types.items()}
        one = collate(processor, [Encoded(ids, [0] * len(ids), types, encoded.pictures)])
        batch = to_model(one, model)
        del batch["labels"]
        with torch.no_grad():
            full = model(**batch).logits[0, -7:-1].float()
        full[:, suppressed] = -torch.inf
        yield torch.stack([step[row] for step in seen]), full.log_softmax(-1)


def test_every_step_is_a_full_pass_of_prompt_and_completion(
    messages: list[Any], tmp_path: Path
) -> None:
    model, processor = load(qwen2_5_vl(tmp_path / "model"))
    for steps, full in every_step(model, processor, messages, []):
        assert torch.allclose(steps, full, atol=1e-5)


@pytest.mark.parametrize(("kind", "apart"), [("bfloat16", 0.03), ("nf4", 3e-3), ("int8", 0.03)])
def test_every_step_is_a_full_pass_up_to_the_rounding_of_narrow_weights(
    kind: str, apart: float, messages: list[Any], tmp_path: Path
) -> None:
    """Within `apart` nats, mean; those of other tokens are 2 to 3 nats apart. Quantized bases,
    which round by batch, have an adapter that has learned something."""
    folder = qwen2_5_vl(tmp_path / "model")
    model, processor = load(folder, kind) if kind == "bfloat16" else adapted(folder, kind)
    visual = sorted(visual_token_ids(model.config, processor.tokenizer))
    for steps, full in every_step(model, processor, messages, visual):
        kept = full.isfinite()
        differ = (steps - full)[kept].abs()
        assert kept.sum() == full.numel() - len(full) * len(visual)
        assert differ.mean() < apart and differ.max() < 20 * apart


def test_families_are_common_beginnings_pictures_by_file(
    messages: list[Any], tmp_path: Path
) -> None:
    model, processor = load(qwen2_5_vl(tmp_path / "model"))
    rows = [encode_text(processor, m) for m in messages]
    found = families(prompts_of(model, processor, rows))
    [shared] = [f for f in found if f.prefix]
    assert set(shared.members) == {2, 3, 4} and shared.shown == 1
    assert all(rows[n].input_ids[: shared.prefix] == rows[2].input_ids[: shared.prefix]
               for n in shared.members)  # fmt: skip
    rest = [f for f in found if not f.prefix]
    assert sorted(n for f in rest for n in f.members) == [0, 1]
    # Another file of the same size in the policy: the same ids, and nothing in common after it.
    other = Encoded(rows[3].input_ids, rows[3].labels, rows[3].types, ("no file", "b"))
    same = prompts_of(model, processor, [rows[3], other])
    run = same.picture_ids(rows[3].pictures[0])
    small = same.picture_ids(rows[3].pictures[1])
    ids = {"no file": run, "b": small, rows[3].pictures[0]: run, rows[3].pictures[1]: small}
    named = Prompts(same.rows, [1, 1], 0, same.pixels, lambda path: ids[path], same.visual, 2)
    assert families(named) == [Family((0, 1))]


def test_attention_by_hand() -> None:
    """Two rows read one entry, the third another that has padding; scores are 0 or log 3."""
    low, high = 0.0, torch.tensor(3.0).log().item()
    keys = torch.tensor([[[[low], [high]]], [[[low], [high]]]])  # [2, 1, 2, 1]
    values = torch.tensor([[[[0.0], [4.0]]], [[[8.0], [99.0]]]])
    readers = Readers(torch.tensor([[0, 1], [2, -1]]), torch.tensor([[True, True], [True, False]]))
    layer = SegmentedLayer([(keys, values)], 2)
    cache = SegmentedCache([layer], [readers])
    own = torch.tensor([2.0, 6.0, 10.0]).view(3, 1, 1, 1)
    key, value = layer.update(torch.zeros(3, 1, 1, 1), own)
    model, module = _Model(), torch.nn.Module()
    module.layer_idx = 0  # type: ignore[assignment]
    with shared_attention(model, cache):
        out, _ = attend(module, torch.ones(3, 1, 1, 1), key, value, None, scaling=1.0)
        assert model.inner.config._attn_implementation == "trimpi_shared"
        with pytest.raises(NotShared):
            attend(module, torch.ones(3, 1, 1, 1), key, value, None, scaling=1.0, softcap=30.0)
    assert model.inner.config._attn_implementation == "sdpa"
    # Weights 1, 3 and 1 over 0, 4 and the own value; 1 and 1 over 8 and the own value.
    assert out.flatten().tolist() == pytest.approx([(12 + 2) / 5, (12 + 6) / 5, 9.0])
    cache.keep(torch.tensor([2]))
    assert cache.readers[0].places.tolist() == [[-1], [0]]
    cache.keep(torch.tensor([0]))
    assert layer.keys.shape[0] == 1 and len(layer.segments) == 1


def test_readers_that_are_all_gone_take_their_segment_with_them() -> None:
    readers = Readers(torch.tensor([[0, 2], [1, -1]]), None)
    left = readers.kept(torch.tensor([1, 2]))
    assert left is not None and left.places.tolist() == [[1], [0]]
    assert Readers(torch.tensor([[0]]), None).kept(torch.tensor([1, 2])) is None


def test_a_model_with_other_states_says_why(tmp_path: Path) -> None:
    model, _ = load(FAMILIES["gemma3"](tmp_path / "gemma3"))
    assert can_share(model) == "it keeps other states than keys and values of all tokens"


class _Config:
    _attn_implementation = "sdpa"

    def get_text_config(self) -> "_Config":
        return self


class _Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.nn.Module()
        self.config = self.inner.config = _Config()  # type: ignore[assignment]
