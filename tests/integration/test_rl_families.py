"""Each supported family through PolicyRollout: pictures in policy and query, self-test, a step."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import tiny_models
from tests.rl_cases import rl_config, rl_inputs
from trimpi.model import check_model_folder
from trimpi.runs import read_metrics
from trimpi.sample import DataFolder
from trimpi.stages import rl


@pytest.mark.parametrize("family", tiny_models.FAMILIES)
def test_policy_rollout(
    family: str, tiny_model: Callable[[str], Path], data: DataFolder, tmp_path: Path
) -> None:
    inputs = rl_inputs(tiny_model(family), data, tmp_path / "rl")
    config = rl_config(updates_per_rollout=2, max_steps=2, preflight_prompts=1)
    check_model_folder(rl.run(config, inputs))
    stage = json.loads((inputs.output / "stage.json").read_text())
    found = stage["selftest"]
    assert found["logp_difference"]["mean"] < 1e-3 and found["logp_difference"]["tokens"] > 0
    assert found["reference_difference"]["mean"] < 1e-3
    assert "Condition 1" in found["generated_from"]
    assert "Condition 1" not in found["scored_against"]
    assert stage["gradients"]["without_gradient"] == []
    first, second = read_metrics(inputs.output)
    assert first["rollout/aware/length"] > 0 and first["clip_ratio/region_mean"] == 0
    assert second["kl"] > 0
