"""Batches of chosen groups: dynamic sampling and guidance inside the trainer, on a tiny model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import (
    by_length,
    given,
    make_trainer,
    recorded,
    rl_config,
    rl_inputs,
    rollout_rows,
)
from trimpi.model import load_model, load_processor
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages.rl import build_trainer
from trimpi.stages.rl_arguments import plan_batches

Make = Callable[..., Any]


class Silent:
    """All completions of some samples are worth the same; counts what it grades."""

    def __init__(self, silent: set[int], value: float = 1.0) -> None:
        self.silent, self.value, self.seen = silent, value, list[str]()

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        self.seen.append(sample.id)
        if int(sample.id.rpartition("-")[2]) in self.silent:
            return Score(self.value)
        return Score(len(self.seen) % 5 / 5)  # differs within any group


@pytest.fixture
def make(qwen: Path, data: DataFolder, tmp_path: Path) -> Make:
    def build(grader: Any = by_length, **more: Any) -> Any:
        trainer = make_trainer(rl_config(**more), rl_inputs(qwen, data, tmp_path / "rl", grader))
        trainer.model.train()
        return trainer

    return build


def completions_of(output: dict[str, Any]) -> list[list[int]]:
    rows = zip(output["completion_ids"], output["completion_mask"], strict=True)
    return [ids[mask.bool()].tolist() for ids, mask in rows]


def logged(trainer: Any, name: str) -> Any:
    [value] = trainer._metrics["train"][name]
    return value


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_silent_groups_are_replaced_by_new_prompts(make: Make, fraction: float) -> None:
    trainer = make(policy_fraction=fraction, dynamic_sampling={}, loss_type="dapo", beta=0.0)
    order = trainer.source.take(8)
    trainer.source.restore({"taken": 0})
    # Of the first two batches of two prompts, one each has signal.
    grader = Silent({order[0], order[3]})
    trainer.reward_funcs[0]._grader = grader
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    assert [row["row"] for row in trainer.last_rows] == [order[1]] * 4 + [order[2]] * 4
    assert trainer.source.state() == {"taken": 4}
    assert len(grader.seen) == 16  # each completion once
    assert (output["advantages"].view(2, 4).abs().sum(1) > 0.1).all()
    assert output["is_aware"].tolist() == [False, fraction > 0] * 4
    # The normaliser of the token-level loss is that of the batch that is trained on.
    assert output["num_items_in_batch"] == output["completion_mask"].sum()
    names = ("tries", "groups", "dropped", "signal", "exhausted")
    assert [logged(trainer, f"rollout/dynamic/{n}") for n in names] == [2, 4, 2, 0.5, 0]
    assert logged(trainer, "rollout/no_signal/pooled") == 0
    # What is sampled, dropped groups too, and what is trained on are told apart.
    kept = int(output["completion_mask"].sum() + output["prompt_mask"].sum())
    assert trainer._metrics["train"]["num_tokens"] == [kept]
    assert sum(trainer._metrics["train"]["rollout/tokens_generated"]) > 1.5 * kept


def test_the_prompts_of_what_is_kept_are_the_ones_scored(make: Make, data: DataFolder) -> None:
    trainer = make(Silent(set()), dynamic_sampling={})
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    rollout = trainer.last_rollout
    for row in range(8):
        kept = output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
        assert kept == rollout.scored_against[row]
        assert (rollout.generated_from[row] == kept) is (row % 2 == 0)
    completions = completions_of(output)
    assert len({tuple(ids) for ids in completions}) > 4


def test_rows_that_a_filter_took_out_are_never_drawn(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    """Prompts are counted in the rows that are left, and graded as the samples that they are."""
    grader = Silent(set())
    inputs = rl_inputs(qwen, data, tmp_path / "rl", grader)
    config, samples, left = rl_config(dynamic_sampling={}), data.read("train"), [1, 6, 7]
    plan = plan_batches(config, len(left), 1)
    processor = load_processor(inputs.model, inputs.model_config)
    model = load_model(inputs.model, inputs.model_config, train=True)
    trainer = build_trainer(config, inputs, samples, plan, model, processor, left)
    trainer.model.train()
    for _ in range(2):
        trainer._generate_and_score_completions(rollout_rows(trainer))
        seen = [samples[row["row"]].id for row in trainer.last_rows]
        assert seen == grader.seen[-8:] and set(seen) <= {"train-1", "train-6", "train-7"}
    assert set(grader.seen) == {"train-1", "train-6", "train-7"}


def test_exhaustion_trains_on_what_there_is_and_warns(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make(Silent(set(range(8)), 0.0), dynamic_sampling={"max_tries": 3})
    with recorded(trainer, "_generate_single_turn") as calls:
        output = trainer._generate_and_score_completions(rollout_rows(trainer))
    assert len(calls) == 3  # both halves together
    assert output["advantages"].tolist() == [0.0] * 8
    assert logged(trainer, "rollout/dynamic/exhausted") == 1
    assert "warning: rl: step 1: dynamic sampling: 0 of 6 groups" in capsys.readouterr().out


@pytest.mark.parametrize("updates", [1, 2])
def test_chosen_rows_are_scored_as_if_they_had_just_been_generated(
    make: Make, updates: int
) -> None:
    """Choosing changes which rows are learned from, and nothing of how."""
    more = {"updates_per_rollout": updates, "loss_type": "dapo", "micro_batch_size": 2}
    chosen = make(dynamic_sampling={}, **more)
    first = chosen._generate_and_score_completions(rollout_rows(chosen))
    plain = make(**more)
    given(plain, completions_of(first))
    second = plain._generate_and_score_completions(
        [dict(plain.train_dataset[row["row"]]) for row in chosen.last_rows]
    )
    assert first.keys() == second.keys() and ("old_per_token_logps" in first) is (updates == 2)
    for name, value in first.items():
        same = torch.equal(value, second[name]) if name != "num_images" else value == second[name]
        assert same, name


def test_only_prompts_that_fail_without_the_policy_are_guided(make: Make) -> None:
    def grader(sample: Sample, completion: Completion) -> Score:
        return Score(1.0 if sample.id.endswith(tuple("02468")) else 0.0)

    trainer = make(grader, aware_when="all_failed")
    rows = trainer.source.take(8)
    start = next(i for i in range(0, 8, 2) if rows[i] % 2 != rows[i + 1] % 2)
    trainer.source.restore({"taken": start})
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    pair = rows[start : start + 2]
    guided = [[False, row % 2 == 1] * 2 for row in pair]
    assert output["is_aware"].view(2, 4).tolist() == guided
    for row in range(8):
        text = trainer.processing_class.tokenizer.decode(trainer.last_rollout.generated_from[row])
        assert ("Lumen Charter. Condition 1" in text) is bool(output["is_aware"][row])
    assert logged(trainer, "rollout/aware/share") == 0.25
    assert len(trainer.reward_funcs[0].last) == 8


def test_an_annealed_share_ends_without_the_policy(make: Make) -> None:
    trainer = make(policy_share="annealed", max_steps=3, epochs=9.0)
    found = []
    for step in range(3):
        trainer.state.global_step = step
        output = trainer._generate_and_score_completions(rollout_rows(trainer))
        found.append(output["is_aware"].view(2, 4)[0].tolist())
    assert found == [[False, True] * 2, [False] * 3 + [True], [False] * 4]
    assert trainer._metrics["train"]["rollout/aware/share"] == [0.5, 0.25, 0.0]


def test_an_adaptive_share_reads_the_rewards_of_both_halves(make: Make) -> None:
    trainer = make(policy_share="adaptive", adaptive={"gap": 10.0, "decay": 0.0})
    trainer._generate_and_score_completions(rollout_rows(trainer))
    aware, free = (logged(trainer, f"rollout/{half}/reward") for half in ("aware", "free"))
    assert trainer.share.lead == pytest.approx(aware - free)


def test_evaluation_chooses_nothing(make: Make) -> None:
    trainer = make(dynamic_sampling={}, aware_when="all_failed")
    trainer.model.eval()
    with torch.no_grad():
        trainer._generate_and_score_completions(rollout_rows(trainer))
    assert trainer.source.state() == {"taken": 0}


def test_truncated_completions_can_be_masked(make: Make) -> None:
    """TRL's key; with dynamic sampling the normaliser counts what is left."""
    trainer = make(dynamic_sampling={}, trainer={"mask_truncated_completions": True})
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    cut = torch.tensor([g.completion.truncated for g in trainer.reward_funcs[0].last])
    assert cut.any() and (output["completion_mask"].sum(1) == 0).tolist() == cut.tolist()
    assert output["num_items_in_batch"] == output["completion_mask"].sum()
