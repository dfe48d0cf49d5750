"""Two processes learn what one learns that takes twice the rows a pass: all stages, one launch."""

import json
from pathlib import Path
from typing import Any

from benchmarks.two_processes import chain_of, compare, in_two, run_jobs
from tests.conftest import small_data
from tests.rl_cases import rl_config
from trimpi.recipe import CptConfig, LoraConfig, SftConfig
from trimpi.runs import read_json
from trimpi.sample import Completion, Sample, Score

SUPERVISED: dict[str, Any] = {"epochs": 2, "lr": 1e-3, "batch_size": 4, "micro_batch_size": 2}


def uneven(sample: Sample, completion: Completion) -> Score:
    """Some samples fail without the policy, others do not."""
    number = int(sample.id.rpartition("-")[2])
    if number % 4 == 3:
        return Score(0.0)
    return Score((number + sum(map(ord, completion.text))) % 7 / 6)


def both(stages: dict[str, Any], qwen: Path, root: Path, way: str) -> tuple[Path, Path]:
    """Folders of the stages, run by one process and by two; seven rows, which do not divide."""
    data = small_data(root / "data", rows=7).root
    grader = "tests.integration.test_two_processes:uneven"
    sides = {
        name: chain_of(stages, root / name, qwen, data, grader, name == "two")
        for name in ("one", "two")
    }
    (root / "jobs-of-one.json").write_text(json.dumps(sides["one"]))
    run_jobs(root / "jobs-of-one.json")
    in_two(sides["two"], root, way)
    return root / "one", root / "two"


def test_all_stages_by_ddp(qwen: Path, tmp_path: Path) -> None:
    """CPT with an adapter, SFT of all weights, a group on two processes, and the options of RL."""
    small = {"micro_batch_size": 4, "lr": 1e-4, "preflight_prompts": 2, "preflight_rollouts": 2}
    stages = {
        "cpt": CptConfig(**SUPERVISED, lora=LoraConfig(r=2, dropout=0.0)),
        "sft": SftConfig(**SUPERVISED, lora=None),
        # One group of eight, four rows on each process.
        "rl": rl_config(prompts_per_step=1, group_size=8, **small),
        "options": rl_config(
            prompts_per_step=4,
            group_size=4,
            updates_per_rollout=2,
            dynamic_sampling={"max_tries": 3},
            aware_when="all_failed",
            aware_weighting="importance",
            aware_positives_only=True,
            downsample={"keep": 12},
            advantage="beta_norm",
            loss_type="dapo",
            epochs=9.0,
            **{**small, "max_steps": 4},
        ),
    }
    one, two = both(stages, qwen, tmp_path, "ddp")
    start = qwen
    for name in stages:
        apart = compare(one / name, two / name, start)
        assert apart.rows_equal and apart.groups_equal in (None, True), name
        beyond = {key for key, value in apart.metrics.items() if value > 1e-4}
        # TRL logs means over passes of means over their tokens, and passes hold other rows here.
        by_pass = ("kl", "entropy", "clip_ratio") if name in ("rl", "options") else ()
        assert not {key for key in beyond if not key.startswith(by_pass)}, name
        # Adam divides a gradient by its own size: of one that is nothing but rounding, such as
        # that of a key's bias, the noise counts as much as the signal of others.
        assert apart.share < 0.02, name
        start = one / name / "model"
    stage = read_json(two / "rl" / "stage.json")
    assert "x 2 devices" in stage["schedule"] and stage["selftest"]["aware_rows"] == 4
    rows = [json.loads(line) for line in (two / "options" / "metrics.jsonl").open()]
    shares = {row["rollout/aware/share"] for row in rows if "reward" in row}
    assert max(shares) > 0 and len(shares) > 1  # where all failed, and elsewhere none


def test_shards_become_a_whole_model(qwen: Path, tmp_path: Path) -> None:
    """FSDP2: nothing is whole in a process while it trains, and the stage leaves a model."""
    stages = {
        "sft": SftConfig(**SUPERVISED, lora=LoraConfig(r=2, dropout=0.0), max_steps=2),
        "rl": rl_config(
            prompts_per_step=2, group_size=4, micro_batch_size=4, lr=1e-4, max_steps=1, beta=0.0
        ),
    }
    one, two = both(stages, qwen, tmp_path, "fsdp2")
    start = qwen
    for name in stages:
        apart = compare(one / name, two / name, start)
        assert apart.rows_equal and apart.groups_equal in (None, True), name
        assert apart.worst("loss", "reward", "kl") < 1e-4, name
        assert apart.share < 0.02, name
        assert read_json(two / name / "stage.json")["gradients"]["tensors"] > 0
        start = one / name / "model"
