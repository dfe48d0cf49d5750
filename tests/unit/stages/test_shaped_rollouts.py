"""What is learned from a rollout batch: advantages, rows left out, weights of tokens."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import by_length, make_trainer, recorded, rl_config, rl_inputs, rollout_rows
from trimpi.batch import collate, encode_text
from trimpi.prompt import build_messages
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages.advantages import beta_weights
from trimpi.stages.two_views import policy_bearing_logps, policy_free_logps

Make = Callable[..., Any]


class Given:
    """Accuracies by the order of completions; what is beyond them is 0."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        return Score(next(self.values, 0.0))


@pytest.fixture
def make(qwen: Path, data: DataFolder, tmp_path: Path) -> Make:
    def build(grader: Any = by_length, **more: Any) -> Any:
        trainer = make_trainer(rl_config(**more), rl_inputs(qwen, data, tmp_path / "rl", grader))
        trainer.model.train()
        return trainer

    return build


def roll(trainer: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    return dict(trainer._generate_and_score_completions(rollout_rows(trainer)))


def of_trl(trainer: Any) -> torch.Tensor:
    """The advantages of the rollout batch before anything weighed them, [B]."""
    return torch.tensor(list(trainer._logs["advantages"])[-8:])


def logged(trainer: Any, name: str) -> float:
    [value] = trainer._metrics["train"][name]
    return float(value)


def test_beta_norm_uses_the_solve_rates_of_pooled_groups(make: Make) -> None:
    """Rates 1/4 and 3/4, forms all 0: weight 2/3 for accuracy, 1/3 for a form without spread."""
    trainer = make(Given(1, 0, 0, 0, 0, 1, 1, 1), advantage="beta_norm")
    advantages = roll(trainer)["advantages"].tolist()
    weight = float(beta_weights(torch.tensor([0.25, 0.75]))[0]) * 2 / 3
    expected = [0.75, -0.25, -0.25, -0.25, -0.75, 0.25, 0.25, 0.25]
    assert advantages == pytest.approx([weight * e for e in expected], rel=1e-4)
    assert logged(trainer, "rollout/beta_norm/alpha") >= 1


@pytest.mark.parametrize(
    ("advantage", "expected"),
    # Rewards 1 0 0 0 and 1 1 0 0: deviations of a group sqrt(1/4), sqrt(1/3), of the batch .5175.
    [("group", 0.75 / 0.5), ("group_mean", 0.75), ("batch", 0.75 / 0.51755)],
)
def test_what_trl_offers_goes_through_trl(make: Make, advantage: str, expected: float) -> None:
    trainer = make(Given(1, 0, 0, 0, 1, 1, 0, 0), advantage=advantage)
    assert roll(trainer)["advantages"][0].item() == pytest.approx(expected, rel=1e-3)


def test_sequence_level_ratios_are_trls(make: Make) -> None:
    options = {"importance_sampling_level": "sequence"}
    trainer = make(loss_type="dr_grpo", advantage="group_mean", trainer=options)
    assert trainer.importance_sampling_level == "sequence"
    assert (trainer.loss_type, trainer.scale_rewards) == ("dr_grpo", "none")


def test_only_the_most_varied_completions_are_learned_from(make: Make) -> None:
    verdicts = Given(1, 0, 0, 0, 0, 0, 1, 0)  # the lone successes are in places 0 and 6
    trainer = make(verdicts, downsample={"keep": 4}, loss_type="dapo", beta=0.0)
    output = roll(trainer)
    kept = output["tool_mask"].sum(1) > 0
    assert kept.sum() == 4 and kept[0] and kept[6]
    assert output["num_items_in_batch"] == output["completion_mask"][kept].sum()
    assert logged(trainer, "rollout/downsample/free_share") >= 0.5


def test_a_least_number_of_policy_free_completions_stays(make: Make) -> None:
    verdicts = Given(0, 1, 0, 0, 0, 0, 0, 1)  # the successes are policy-aware
    trainer = make(verdicts, downsample={"keep": 3, "min_free": 2})
    kept = roll(trainer)["tool_mask"].sum(1) > 0
    assert kept.sum() == 3 and kept[::2].sum() == 2 and kept[[1, 7]].sum() == 1


def test_negative_policy_aware_completions_are_left_out(make: Make) -> None:
    trainer = make(
        Given(1, 0, 0, 1, 0, 1, 0, 0), aware_positives_only=True, loss_type="dapo", beta=0.1
    )
    output = roll(trainer)
    kept = (output["tool_mask"].sum(1) > 0).tolist()
    assert kept == [True, False, True, True, True, True, True, False]
    assert logged(trainer, "rollout/aware/left_out") == 0.5
    assert output["num_items_in_batch"] == output["completion_mask"][kept].sum()
    # Neither objective nor KL of a row left out reaches the loss.
    trainer.current_gradient_accumulation_steps = 1
    losses = []
    for shift in (0.0, 7.0):
        changed = {**output, "advantages": output["advantages"].clone()}
        changed["advantages"][[1, 7]] -= shift
        changed["ref_per_token_logps"] = output["ref_per_token_logps"].clone()
        changed["ref_per_token_logps"][[1, 7]] -= shift
        losses.append(trainer.compute_loss(trainer.model, changed).item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-6) and losses[0] != 0


def by_hand(trainer: Any, data: DataFolder, output: dict[str, Any], row: int, policy: bool) -> Any:
    """Log-probabilities of a row's completion from one plain forward pass, [T]."""
    sample = data.read("train")[trainer.last_rows[row]["row"]]
    shown = data.policy_of(sample) if policy else None
    prompt = encode_text(trainer.processing_class, build_messages(sample, shown))
    batch = collate(trainer.processing_class, [prompt], side="left")
    ids = output["completion_ids"][row][output["completion_mask"][row].bool()].unsqueeze(0)
    del batch["labels"]
    start = batch["input_ids"].shape[1]
    batch["input_ids"] = torch.cat([batch["input_ids"], ids], dim=1)
    batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    types = batch["mm_token_type_ids"]
    batch["mm_token_type_ids"] = torch.cat([types, torch.zeros_like(ids)], dim=1)
    with torch.no_grad():
        logits = trainer.model(**batch).logits[0, start - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, ids.T).squeeze(1)


@pytest.mark.parametrize(("updates", "micro"), [(1, 4), (2, 2)])
def test_policy_aware_tokens_are_weighted_by_the_ratio_of_both_views(
    make: Make, data: DataFolder, updates: int, micro: int
) -> None:
    trainer = make(
        aware_weighting="importance",
        importance={"cap": 1.001},
        updates_per_rollout=updates,
        micro_batch_size=micro,
    )
    output = roll(trainer)
    assert output["advantages"].shape == output["completion_ids"].shape
    gaps, capped = [], []
    for row in range(8):
        length = int(output["completion_mask"][row].sum())
        free = by_hand(trainer, data, output, row, False)
        full = by_hand(trainer, data, output, row, True)
        weights = torch.ones(length)
        if row % 2:
            weights = (free - full).exp().clamp(max=1.001)
            gaps += (full - free).tolist()
            capped += ((free - full).exp() > 1.001).tolist()
        expected = of_trl(trainer)[row] * weights
        assert torch.allclose(output["advantages"][row, :length], expected, atol=1e-4)
    assert 0 < sum(capped) < len(capped)
    mean = sum(gaps) / len(gaps)
    assert logged(trainer, "rollout/aware/reliance") == pytest.approx(mean, abs=1e-5)
    assert logged(trainer, "rollout/importance/capped") == sum(capped) / len(capped)
    trainer.current_gradient_accumulation_steps = 1
    assert torch.isfinite(trainer.compute_loss(trainer.model, output))


def test_luffys_shaping(make: Make) -> None:
    trainer = make(aware_weighting="importance", importance={"shaping": "luffy", "gamma": 0.3})
    output = roll(trainer)
    free = policy_free_logps(trainer, output)
    prompts = [row["prompt_with_policy"] for row in trainer.last_rows]
    ids, mask = output["completion_ids"], output["completion_mask"]
    weights = (free - policy_bearing_logps(trainer, prompts, ids, mask, 2)).exp().clamp(max=1)
    expected = of_trl(trainer)[1] * weights[1] / (weights[1] + 0.3)
    assert torch.allclose(output["advantages"][1], expected, atol=1e-5)
    assert (output["advantages"][::2] == of_trl(trainer)[::2].unsqueeze(1)).all()


def test_reliance_is_measured_at_an_interval_and_changes_nothing(make: Make) -> None:
    trainer, plain = make(reliance_every=2), make()
    with recorded(trainer, "_get_per_token_logps_and_entropies") as calls:
        first = roll(trainer)
        measured = len(calls)
        trainer.state.global_step = 1
        roll(trainer)
    assert measured == 3 and len(calls) == 4  # reference, both views; then the reference alone
    assert len(trainer._metrics["train"]["rollout/aware/reliance"]) == 1
    other = roll(plain)
    assert all(
        torch.equal(value, other[name])
        for name, value in first.items()
        if isinstance(value, torch.Tensor)
    )


@pytest.mark.parametrize("fraction", [0.0, 0.5])
def test_the_teacher_acts_on_policy_free_rows_alone(
    make: Make, data: DataFolder, fraction: float
) -> None:
    teacher = {"weight": 0.5, "kl_clip": 0.3}
    trainer = make(teacher=teacher, policy_fraction=fraction, beta=0.0)
    output = roll(trainer)
    pulls = []
    for row in range(8):
        length = int(output["completion_mask"][row].sum())
        found = output["advantages"][row, :length] - of_trl(trainer)[row]
        if row % 2 and fraction:
            assert (found == 0).all()
            continue
        gap = by_hand(trainer, data, output, row, False) - by_hand(trainer, data, output, row, True)
        assert torch.allclose(found, -0.5 * gap.clamp(-0.3, 0.3), atol=1e-4)
        pulls += gap.tolist()
    mean = sum(pulls) / len(pulls)
    assert logged(trainer, "rollout/teacher/kl") == pytest.approx(mean, abs=1e-5)
    clipped = sum(abs(pull) > 0.3 for pull in pulls) / len(pulls)
    assert logged(trainer, "rollout/teacher/clipped") == pytest.approx(clipped)


@pytest.mark.parametrize(
    ("grades", "trust"),
    [((1, 0, 1, 0, 1, 0, 1, 0), 0.0), ((0, 1, 0, 1, 0, 1, 0, 1), 1.0), ((0, 0, 0, 1) * 2, 0.5)],
)
def test_a_teacher_is_followed_as_far_as_its_half_earns_more(
    make: Make, grades: tuple[int, ...], trust: float
) -> None:
    """Of rows free, aware, free, aware: leads of -1, 1 and 0.5 against a gap of 1."""
    teacher = {"weight": 0.5, "kl_clip": 0.3, "while_ahead": True}
    trainer = make(Given(*grades), teacher=teacher, adaptive={"gap": 1.0}, beta=0.0)
    with recorded(trainer, "_get_per_token_logps_and_entropies") as calls:
        output = roll(trainer)
    assert logged(trainer, "rollout/teacher/weight") == pytest.approx(0.5 * trust)
    assert bool(calls) == bool(trust)  # no pass is made for a teacher that is not followed
    pulls = output["advantages"].view(8, -1)[:, :1] - of_trl(trainer).unsqueeze(1)
    assert (pulls[1::2] == 0).all() and bool(pulls[::2].abs().max() > 1e-4) == bool(trust)
    assert pulls.abs().max() <= 0.5 * trust * 0.3 + 1e-6


def test_following_the_teacher_lowers_the_divergence(make: Make) -> None:
    """All rewards are equal: what moves the model is the teacher alone."""
    more = {"updates_per_rollout": 1, "beta": 0.0, "max_steps": 8, "epochs": 9.0, "lr": 5e-3}
    trainer = make(Given(), policy_fraction=0.0, teacher={"weight": 1.0, "kl_clip": 5.0}, **more)
    trainer.train()
    found = [r["rollout/teacher/kl"] for r in trainer.state.log_history if "loss" in r]
    assert sum(found[-2:]) < 0.7 * sum(found[:2]), found


# One of each way in which pictures become pixels.
@pytest.mark.parametrize("family", ["qwen2_5_vl", "idefics3", "internvl", "gemma3"])
def test_both_views_agree_in_every_layout_of_pixels(
    family: str, tiny_model: Callable[[str], Path], data: DataFolder, tmp_path: Path
) -> None:
    """Given the *policy-free* prompt, the second way to score gives what TRL's batch gives."""
    trainer = make_trainer(
        rl_config(micro_batch_size=2), rl_inputs(tiny_model(family), data, tmp_path)
    )
    trainer.model.train()
    output = roll(trainer)
    prompts = [row["prompt"] for row in trainer.last_rows]
    ids, mask = output["completion_ids"], output["completion_mask"]
    found = policy_bearing_logps(trainer, prompts, ids, mask, 5)  # one pass more than rows need
    kept = mask.bool()
    assert torch.allclose(found[kept], policy_free_logps(trainer, output)[kept], atol=1e-4)
    full = [row["prompt_with_policy"] for row in trainer.last_rows]
    other = policy_bearing_logps(trainer, full, ids, mask, 4)
    assert (other - found)[kept].abs().mean() > 1e-3
