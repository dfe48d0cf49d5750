"""Tokens and rollouts a second, and the share of a device's peak."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from trimpi.stages import throughput
from trimpi.stages.throughput import Throughput, device_peak, flops_per_token, throughput_means


class Base:
    """As much of a trainer as the mix-in touches."""

    def __init__(self) -> None:
        self.state = SimpleNamespace(global_step=0, num_input_tokens_seen=0)
        self.accelerator = SimpleNamespace(num_processes=2)
        self._total_train_tokens = 0
        self.logged: list[dict[str, float]] = []

    def training_step(self) -> None:
        pass

    def log(self, logs: dict[str, float]) -> None:
        self.logged.append(logs)


class Trainer(Throughput, Base):
    def _parameters(self) -> tuple[int, int]:
        return 1000, 100


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return now


def test_tokens_a_second_over_the_interval_after_a_resume(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "device_peak", lambda: 42e3)
    trainer = Trainer()
    trainer._total_train_tokens = 5000  # of the sitting before
    trainer.training_step()
    for seconds, tokens in ((2.0, 5400), (4.0, 5600)):
        clock[0] += seconds
        trainer._total_train_tokens = tokens
        trainer.log({"loss": 1.0})
    trainer.log({"train_runtime": 6.0})
    # (4 x 1000 + 2 x 100) x 200 / (2 devices x 42e3) = 10
    assert trainer.logged == [
        {"loss": 1.0, "tokens_per_second": 200.0, "mfu": 10.0},
        {"loss": 1.0, "tokens_per_second": 50.0, "mfu": 2.5},
        {"train_runtime": 6.0},
    ]


def test_rollouts_of_several_updates(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens come with the rollout batch, every second update; rollouts with each update."""
    monkeypatch.setattr(throughput, "device_peak", lambda: None)
    trainer = Trainer()
    trainer.sequences_per_update = 8
    trainer.state = SimpleNamespace(global_step=4, num_input_tokens_seen=0)
    trainer.training_step()
    for step, tokens in ((5, 600), (6, 600), (7, 1200)):
        clock[0] += 2.0
        trainer.state = SimpleNamespace(global_step=step, num_input_tokens_seen=tokens)
        trainer.log({"loss": 0.0})
    assert trainer.logged == [
        {"loss": 0.0, "tokens_per_second": 300.0, "rollouts_per_second": 4.0},
        {"loss": 0.0, "rollouts_per_second": 4.0},
        {"loss": 0.0, "tokens_per_second": 150.0, "rollouts_per_second": 4.0},
    ]


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA L40S", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA GeForce RTX 4090 D", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
    ],
)
def test_peaks_are_known_by_whole_words(name: str, peak: float | None) -> None:
    assert device_peak(name) == peak


def test_training_all_parameters_is_six_n() -> None:
    assert flops_per_token(7, 7) == 42 and flops_per_token(7, 0) == 28


def test_means_leave_out_what_was_not_logged(tmp_path: Path) -> None:
    rows: list[Any] = [{"step": 1, "tokens_per_second": 10.0}, {"step": 2}]
    rows.append({"step": 3, "tokens_per_second": 30.0, "rollouts_per_second": 2.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert throughput_means(tmp_path) == {"tokens_per_second": 20.0, "rollouts_per_second": 2.0}
