"""The objective on a toy of two tokens, every number worked out by hand.

The model has one parameter: p(a) = 1 / (1 + e^-theta), p(b) = 1 - p(a), at every position.
"""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from trl import GRPOTrainer

from tests.rl_cases import given, make_trainer, recorded, rl_config, rl_inputs, rollout_rows
from trimpi.sample import Completion, DataFolder, Sample, Score

A, B = 40, 41  # any two ordinary tokens
ADVANTAGE = 0.5 / (math.sqrt(1 / 3) + 1e-4)  # rewards 1, 0, 1, 0: mean 1/2, std sqrt(1/3)


class Toy:
    """Stands in for the model's log-probabilities."""

    def __init__(self) -> None:
        self.theta = torch.zeros((), requires_grad=True)
        self.reference = torch.zeros(())

    def log_probabilities(self, trainer: Any, model: Any, input_ids: Any, *args: Any, **more: Any):
        theta = self.reference if model is trainer.ref_model else self.theta
        tokens = input_ids[:, -args[1] :]
        logps = torch.where(
            tokens == A,
            torch.nn.functional.logsigmoid(theta),
            torch.nn.functional.logsigmoid(-theta),
        )
        return logps, torch.zeros_like(logps), None


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Toy:
    toy = Toy()
    monkeypatch.setattr(
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        lambda trainer, *args, **more: toy.log_probabilities(trainer, *args, **more),
    )
    return toy


def first_group(
    qwen: Path, data: DataFolder, output: Path, beta: float, **more: Any
) -> tuple[Any, dict[str, Any]]:
    """One pooled group of four: a+ (free), ab- (aware), bb+ (free), b- (aware)."""
    verdicts = iter([1.0, 0.0, 1.0, 0.0] + [0.0] * 4)

    def grader(sample: Sample, completion: Completion) -> Score:
        return Score(next(verdicts))

    config = rl_config(updates_per_rollout=2, beta=beta, **more)
    trainer = make_trainer(config, rl_inputs(qwen, data, output, grader))
    # By half: first the free rows of both groups, then the aware ones.
    given(trainer, [[A], [A, B], [B, B], [B]] + [[A]] * 4)
    trainer.model.train()
    rollout = trainer._generate_and_score_completions(rollout_rows(trainer))
    trainer.current_gradient_accumulation_steps = 1
    return trainer, {
        key: value[:4] if isinstance(value, torch.Tensor) and value.ndim else value
        for key, value in rollout.items()
    }


def test_advantages_are_pooled_over_both_halves(
    qwen: Path, data: DataFolder, tmp_path: Path, toy: Toy
) -> None:
    _, group = first_group(qwen, data, tmp_path / "rl", 0.0)
    expected = [ADVANTAGE, -ADVANTAGE, ADVANTAGE, -ADVANTAGE]
    assert group["advantages"].tolist() == pytest.approx(expected, rel=1e-6)
    assert group["completion_ids"][group["completion_mask"].bool()].tolist() == [A, A, B, B, B, B]
    assert group["is_aware"].tolist() == [False, True, False, True]
    old = group["old_per_token_logps"][group["completion_mask"].bool()].tolist()
    assert old == pytest.approx([-math.log(2)] * 6)


def test_first_update_is_the_policy_gradient(
    qwen: Path, data: DataFolder, tmp_path: Path, toy: Toy
) -> None:
    """At theta = theta_old all ratios are 1: J = mean A = 0, dJ = mean of A (mean dlog p)."""
    trainer, group = first_group(qwen, data, tmp_path / "rl", 0.0)
    loss = trainer.compute_loss(trainer.model, group)
    loss.backward()
    # dlog p(a) = 1 - p(a) = 1/2, dlog p(b) = -p(a) = -1/2; row ab: mean 0.
    gradient = ADVANTAGE * (1 / 2 - 0 + (-1 / 2) - (-1 / 2)) / 4
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert toy.theta.grad.item() == pytest.approx(-gradient, rel=1e-5)
    assert trainer._metrics["train"]["clip_ratio/region_mean"] == [0.0]


def test_second_update_clips(qwen: Path, data: DataFolder, tmp_path: Path, toy: Toy) -> None:
    """theta_old = 0, theta = ln 2: p(a) = 2/3, so r(a) = 4/3 > 1.3 and r(b) = 2/3 < 0.8.

    row   A   tokens  min(r A, clip(r) A) / |A|        derivative of it
    0     +   a       1.3 (clipped above)              0
    1     -   a, b    -4/3, -0.8 (clipped below)       -r(a) (1 - p(a)) = -4/9, 0
    2     +   b, b    2/3, 2/3                         r(b) (-p(a)) = -4/9 twice
    3     -   b       -0.8 (clipped below)             0
    """
    trainer, group = first_group(qwen, data, tmp_path / "rl", 0.0)
    toy.theta = torch.tensor(math.log(2), requires_grad=True)
    loss = trainer.compute_loss(trainer.model, group)
    loss.backward()
    objective = ADVANTAGE * (1.3 + (-4 / 3 - 0.8) / 2 + 2 / 3 - 0.8) / 4
    gradient = ADVANTAGE * (0 + (-4 / 9) / 2 - 4 / 9 + 0) / 4
    assert loss.item() == pytest.approx(-objective, rel=1e-5)
    assert toy.theta.grad.item() == pytest.approx(-gradient, rel=1e-5)
    # Clipped tokens: a of row 0, b of row 1, b of row 3, out of six.
    assert trainer._metrics["train"]["clip_ratio/region_mean"] == [pytest.approx(3 / 6)]


ROOT = math.sqrt(8 / 9)  # sqrt(r(a) r(b)), the ratio of row ab as a whole


@pytest.mark.parametrize(
    ("settings", "objective", "gradient"),
    [
        # Tokens count alike: the sum over them, divided by half of the ten of both groups.
        pytest.param(
            {"loss_type": "dapo"},
            ADVANTAGE * (1.3 + (-4 / 3 - 0.8) + 2 * 2 / 3 - 0.8) / 5,
            ADVANTAGE * (0 - 4 / 9 - 2 * 4 / 9 + 0) / 5,
            id="dapo",
        ),
        # Advantages of +-1/2, not divided; four rows of at most six tokens.
        pytest.param(
            {"loss_type": "dr_grpo", "advantage": "group_mean"},
            0.5 * (1.3 + (-4 / 3 - 0.8) + 2 * 2 / 3 - 0.8) / (4 * 6),
            0.5 * (0 - 4 / 9 - 2 * 4 / 9 + 0) / (4 * 6),
            id="dr_grpo",
        ),
        # One ratio a row, e^(mean of log r): 4/3 clipped to 1.3, ROOT, 2/3, 2/3 clipped to 0.8.
        # Its derivative is itself times the mean of dlog p: of row ab (1/3 - 2/3) / 2.
        pytest.param(
            {"loss_type": "grpo", "trainer": {"importance_sampling_level": "sequence"}},
            ADVANTAGE * (1.3 - ROOT + 2 / 3 - 0.8) / 4,
            ADVANTAGE * (0 + ROOT / 6 - 4 / 9 + 0) / 4,
            id="sequence",
        ),
    ],
)
def test_other_objectives_of_the_second_update(
    settings: dict[str, Any],
    objective: float,
    gradient: float,
    qwen: Path,
    data: DataFolder,
    tmp_path: Path,
    toy: Toy,
) -> None:
    """Rows, ratios and what is clipped as above."""
    trainer, group = first_group(qwen, data, tmp_path / "rl", 0.0, **settings)
    toy.theta = torch.tensor(math.log(2), requires_grad=True)
    loss = trainer.compute_loss(trainer.model, group)
    loss.backward()
    assert loss.item() == pytest.approx(-objective, rel=1e-5)
    assert toy.theta.grad.item() == pytest.approx(-gradient, rel=1e-5)


def test_kl_is_towards_the_reference_and_carries_no_ratio(
    qwen: Path, data: DataFolder, tmp_path: Path, toy: Toy
) -> None:
    """k3 = q/p - log(q/p) - 1, its derivative (1 - q/p) dlog p, at p(a) = 2/3 and q(a) = 1/2."""
    beta = 0.1
    trainer, group = first_group(qwen, data, tmp_path / "rl", beta)
    toy.theta = torch.tensor(math.log(2), requires_grad=True)
    loss = trainer.compute_loss(trainer.model, group)
    loss.backward()
    objective = ADVANTAGE * (1.3 + (-4 / 3 - 0.8) / 2 + 2 / 3 - 0.8) / 4
    gradient = ADVANTAGE * (0 + (-4 / 9) / 2 - 4 / 9 + 0) / 4
    kl_a, kl_b = 3 / 4 - math.log(3 / 4) - 1, 3 / 2 - math.log(3 / 2) - 1
    slope_a, slope_b = (1 - 3 / 4) * (1 / 3), (1 - 3 / 2) * (-2 / 3)
    kl = (kl_a + (kl_a + kl_b) / 2 + kl_b + kl_b) / 4
    slope = (slope_a + (slope_a + slope_b) / 2 + slope_b + slope_b) / 4
    assert loss.item() == pytest.approx(-objective + beta * kl, rel=1e-4)
    assert toy.theta.grad.item() == pytest.approx(-gradient + beta * slope, rel=1e-4)


def test_clipping_bounds_are_the_stages(
    qwen: Path, data: DataFolder, tmp_path: Path, toy: Toy
) -> None:
    """With bounds beyond 2/3 and 4/3 nothing is clipped."""
    trainer, group = first_group(qwen, data, tmp_path / "rl", 0.0, epsilon=0.4, epsilon_high=0.4)
    toy.theta = torch.tensor(math.log(2), requires_grad=True)
    trainer.compute_loss(trainer.model, group).backward()
    # r(a) dlog p(a) = 4/9, r(b) dlog p(b) = -4/9: rows a, ab, bb, b.
    gradient = ADVANTAGE * (4 / 9 - 0 + (-4 / 9) - (-4 / 9)) / 4
    assert toy.theta.grad.item() == pytest.approx(-gradient, rel=1e-5)


def test_scoring_asks_for_every_row_once(
    qwen: Path, data: DataFolder, tmp_path: Path, toy: Toy
) -> None:
    trainer, _ = first_group(qwen, data, tmp_path / "rl", 0.1)
    given(trainer, [[A], [A, B], [B, B], [B]] + [[A]] * 4)
    trainer.reward_funcs[0]._grader = lambda sample, completion: Score(0.0)
    with recorded(trainer, "_get_per_token_logps_and_entropies") as calls:
        trainer._generate_and_score_completions(rollout_rows(trainer))
    assert [call[0] is trainer.ref_model for call in calls] == [False, True]  # old, reference
    assert torch.equal(calls[0][1], calls[1][1]) and calls[0][1].shape[0] == 8
