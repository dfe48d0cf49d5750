"""The audits of the first updates: tensors without a gradient, gradients that are not finite."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from trimpi.errors import UserError
from trimpi.stages.monitor import FiniteGradients, GradientAudit


class State:
    global_step = 6
    is_world_process_zero = True


@pytest.fixture
def model() -> nn.Module:
    """Two tensors, `a` and `b`."""
    found = nn.Module()
    found.a, found.b = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    return found


def step(callback: Any, model: nn.Module, a: float, b: float) -> None:
    model.a.grad, model.b.grad = torch.tensor([0.0, a]), torch.tensor([b, 0.0])
    told(callback, model)


def told(callback: Any, model: nn.Module) -> None:
    arguments = SimpleNamespace(output_dir="nowhere")
    callback.on_pre_optimizer_step(arguments, State(), None, model=model)


def test_silent_steps_are_not_counted_after_a_first_signal(
    model: nn.Module, tmp_path: Path
) -> None:
    audit = GradientAudit(tmp_path, steps=3)
    for a, b in [(1.0, 0.0), (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)]:
        step(audit, model, a, b)
    assert not (tmp_path / "gradients.json").exists()  # one step with signal: too early to say
    step(audit, model, 0.0, 1.0)
    found = json.loads((tmp_path / "gradients.json").read_text())
    assert found == {"steps": 5, "tensors": 2, "without_gradient": []}


def test_a_tensor_without_gradient_in_steps_with_signal_is_named(
    model: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = GradientAudit(tmp_path, steps=3)
    for _ in range(3):
        step(audit, model, 1.0, 0.0)
    found = json.loads((tmp_path / "gradients.json").read_text())
    assert found["without_gradient"] == ["b"]
    assert "1 of 2 trainable tensors had no gradient" in capsys.readouterr().out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_stops_any_stage(model: nn.Module, value: float) -> None:
    callback = FiniteGradients("cpt", SimpleNamespace())
    step(callback, model, 1.0, 1.0)
    line = "cpt: step 7: the gradient is not finite; lower lr; there is no checkpoint yet"
    with pytest.raises(UserError, match=line):
        step(callback, model, 1.0, value)


def test_a_norm_that_deepspeed_alone_knows_stops_too(model: nn.Module) -> None:
    norm: float | None = None
    engine = SimpleNamespace(get_global_grad_norm=lambda: norm)
    callback = FiniteGradients("cpt", SimpleNamespace(deepspeed_engine_wrapped=engine))
    told(callback, model)
    norm = 1.5
    told(callback, model)
    norm = float("nan")
    with pytest.raises(UserError, match="cpt: step 7: the gradient is not finite"):
        told(callback, model)
