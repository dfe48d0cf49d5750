"""Scoring without copies and padding: the numbers of TRL's plain way, with less work."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from tests.rl_cases import given, gradients, make_trainer, rl_config, rl_inputs, rollout_rows
from tests.unit.test_picture_features import seen_by_tower
from trimpi.recipe_rl import Scoring
from trimpi.sample import DataFolder
from trimpi.stages.scoring_passes import by_length, deal, in_rows, pick, trim

PLAIN = Scoring(share_pictures=False, trim_padding=False, deal_rows=False)
LENGTHS = (1, 6, 2, 4, 3, 5, 1, 2)
"""Tokens of the completions of two groups of four."""


def trainer_of(
    model: Path, data: DataFolder, folder: Path, scoring: Scoring, **more: Any
) -> tuple[Any, list[dict[str, Any]]]:
    """A trainer with two micro batches an update, its completions given, and its rows."""
    settings = {"micro_batch_size": 4, "policy_fraction": 0.0, "beta": 0.1, **more}
    trainer = make_trainer(rl_config(scoring=scoring, **settings), rl_inputs(model, data, folder))
    tokens = torch.arange(100, 200).tolist()
    written = [tokens[row : row + length] for row, length in enumerate(LENGTHS)]
    for row in written[1::3]:
        row[-1] = trainer._tokenizer.eos_token_id  # the others are cut off
    given(trainer, written)
    return trainer, rollout_rows(trainer)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl", "smolvlm"])
@pytest.mark.parametrize("loss_type", ["grpo", "dapo"])
def test_losses_and_gradients_of_families(
    family: str,
    loss_type: str,
    tiny_model: Callable[[str], Path],
    data: DataFolder,
    tmp_path: Path,
) -> None:
    both = [
        gradients(*trainer_of(tiny_model(family), data, tmp_path / name, way, loss_type=loss_type))
        for name, way in (("plain", PLAIN), ("sooner", Scoring()))
    ]
    same(*both)


@pytest.mark.parametrize(
    "more",
    [
        {"loss_type": "dr_grpo", "updates_per_rollout": 2, "micro_batch_size": 2},
        {"loss_type": "bnpo", "micro_batch_size": 2},
        {"freeze_vision": True, "trainer": {"importance_sampling_level": "sequence"}},
        {"trainer": {"mask_truncated_completions": True}},
        {"trainer": {"top_entropy_quantile": 0.5}, "micro_batch_size": 2},
        {"gradient_checkpointing": True, "lora": {"r": 2}},
        {"lora": {"r": 2, "target_modules": "all"}},
    ],
    ids=lambda more: ",".join(more),
)
def test_losses_and_gradients_of_options(
    more: dict[str, Any], qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    both = [
        gradients(*trainer_of(qwen, data, tmp_path / name, way, **more))
        for name, way in (("plain", PLAIN), ("sooner", Scoring()))
    ]
    same(*both)


def same(plain: dict[str, torch.Tensor], sooner: dict[str, torch.Tensor]) -> None:
    assert plain.keys() == sooner.keys() and any(value.any() for value in plain.values())
    for name, value in plain.items():
        # Absolute, of gradients around 1: float32 sums in another order.
        torch.testing.assert_close(sooner[name], value, atol=1e-6, rtol=1e-4, msg=name)


def test_log_probabilities_in_order_of_length(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    """Rows come back where they were; the padding of a pass is that of its own rows."""
    found, widths = [], []
    for name, way in (("plain", PLAIN), ("sooner", Scoring())):
        trainer, rows = trainer_of(
            qwen, data, tmp_path / name, way, updates_per_rollout=2, micro_batch_size=2
        )
        trainer.model.train()
        seen: list[int] = []

        def look(module: Any, args: Any, kwargs: dict[str, Any], seen: list[int] = seen) -> None:
            seen.append(kwargs["input_ids"].shape[1])

        trainer.model.register_forward_pre_hook(look, with_kwargs=True)
        torch.manual_seed(0)
        trainer._prepare_inputs(rows)
        batches = trainer._buffered_inputs
        old = {}
        for batch in batches:
            for place, row in enumerate(batch["completion_ids"].tolist()):
                old[tuple(row)] = batch["old_per_token_logps"][place]
        found.append(old)
        widths.append([width - min(seen) for width in seen])
    assert found[0].keys() == found[1].keys() and len(found[0]) == 8
    for row, logps in found[0].items():
        torch.testing.assert_close(found[1][row], logps, atol=1e-6, rtol=1e-5)
    assert widths[0] == [0, 0, 0, 0]
    assert widths[1] == [0, 1, 3, 5], "lengths 1 1, 2 2, 3 4, 5 6"


def test_every_picture_once_a_group(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    """Trained tower: once for generation and scoring of a rollout, once a group in the loss."""
    trainer, rows = trainer_of(
        qwen, data, tmp_path / "rl", Scoring(), micro_batch_size=4, max_steps=2
    )
    policy, reference = seen_by_tower(trainer.model), seen_by_tower(trainer.ref_model)
    one = 96 * 64 * 3 * 2  # two frames
    gradients(trainer, rows)
    assert policy == [one, one], "two micro batches, a group each"
    assert sum(reference) == 2 * one
    given(trainer, [[100 + row] for row in range(8)])
    gradients(trainer, rows)
    assert policy == [one] * 4
    assert sum(reference) == one * 2, "the reference is frozen: once a run"
    record = trainer.picture_record()["pictures"]
    assert record["reference"] == {"shown": 16, "computed": 2, "frozen": True}
    assert record["model"] == {"shown": 16, "computed": 4, "frozen": False}
    trainer.release_pictures()
    assert trainer.picture_record() == {}


def test_every_picture_once_a_run(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    """Frozen tower: the trained model too asks it once for each picture."""
    trainer, rows = trainer_of(qwen, data, tmp_path / "rl", Scoring(), freeze_vision=True)
    calls = seen_by_tower(trainer.model)
    for _ in range(2):
        given(trainer, [[100 + row] for row in range(8)])
        gradients(trainer, rows)
    assert sum(calls) == 2 * 96 * 64 * 3 * 2


def test_plain_way_is_trls(qwen: Path, data: DataFolder, tmp_path: Path) -> None:
    trainer, rows = trainer_of(qwen, data, tmp_path / "rl", PLAIN)
    calls = seen_by_tower(trainer.model)
    gradients(trainer, rows)
    assert sum(calls) == 8 * 96 * 64 * 3 * 2 and trainer.picture_record() == {}


@pytest.mark.parametrize(
    ("more", "deals"),
    [
        ({}, True),
        ({"loss_type": "bnpo"}, False),  # TRL divides by the tokens of a micro batch
        ({"trainer": {"top_entropy_quantile": 0.5}}, False),  # a quantile of a micro batch
        ({"trainer": {"entropy_coef": 0.1}}, False),  # a mean over a micro batch
        ({"lora": {"r": 2, "dropout": 0.1}}, False),  # draws by micro batch
        ({"micro_batch_size": 8}, False),  # nothing to deal
        ({"scoring": Scoring(deal_rows=False)}, False),
    ],
)
def test_rows_are_dealt_only_where_sums_stay(
    more: dict[str, Any], deals: bool, qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    scoring = more.pop("scoring", Scoring())
    trainer, _ = trainer_of(qwen, data, tmp_path / "rl", scoring, **more)
    assert trainer._deals() is deals


@settings(max_examples=40, deadline=None)
@drawn(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 4)), min_size=1, max_size=6))
def test_trimming(rows: list[tuple[int, int]]) -> None:
    """What is cut is padding in all rows; at least a column of prompt and of completion stays."""
    mask = torch.tensor([[0] * (5 - p) + [1] * p + [1] * c + [0] * (4 - c) for p, c in rows])
    ids = torch.arange(mask.numel()).view(mask.shape)
    cut, gone = trim({"input_ids": ids, "attention_mask": mask, "advantages": ids[:, 0]}, 4)
    longest, written = max(p for p, _ in rows), max(1, *(c for _, c in rows), 1)
    assert cut["attention_mask"].shape == (len(rows), longest + written) and gone == 4 - written
    assert torch.equal(cut["input_ids"], ids[:, 5 - longest : 5 + written])
    assert cut["attention_mask"].sum() == mask.sum()
    assert len(cut["advantages"]) == len(rows)


def test_order_by_length() -> None:
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 0], [1, 1, 1, 0], [0, 1, 1, 1]])
    assert by_length(mask, 2) == [1, 2, 3, 0]


@settings(max_examples=40, deadline=None)
@drawn(st.permutations(range(8)), st.booleans())
def test_dealing(order: list[int], by_prompt: bool) -> None:
    """Every row stays in its update, with its pictures; rows of a prompt come together."""
    counts = [row % 3 for row in order]
    whole = {
        "completion_mask": torch.tensor([[1] * (r + 1) + [0] * (7 - r) for r in order]),
        "place": torch.tensor([r // 2 for r in order]),
        "image_grid_thw": torch.ones(sum(counts), 3, dtype=torch.long),
        "pixel_values": torch.tensor([[r] for r, n in zip(order, counts, strict=True)
                                      for _ in range(n)]),
        "num_images": counts,
        "num_items_in_batch": torch.tensor(36),
    }  # fmt: skip
    rows = in_rows(whole)
    batches = [pick(rows, range(start, start + 2)) for start in (0, 2, 4, 6)]
    dealt = deal(batches, 2, by_prompt)
    for update in (0, 1):
        found = [b["completion_mask"].sum(1) - 1 for b in dealt[update * 2 : update * 2 + 2]]
        shown = torch.cat(found).tolist()
        assert sorted(shown) == sorted(order[update * 4 : update * 4 + 4])
        if not by_prompt:
            assert shown == sorted(shown)
        else:
            prompts = [row // 2 for row in shown]
            assert sum(a != b for a, b in pairwise(prompts)) + 1 == len(set(prompts))
    for batch in dealt:
        assert batch["num_items_in_batch"] == 36
        held = (batch["completion_mask"].sum(1) - 1).tolist()
        pixels = [row for row in held for _ in range(row % 3)]
        assert batch.get("pixel_values", torch.zeros(0)).flatten().tolist() == pixels
