"""Two processes that sample from one vLLM server: the same calls on both, rows dealt right."""

import json
import multiprocessing
import os
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import rl_config, rl_inputs
from tests.vllm_fakes import Answers, Server, install, running
from trimpi.model import load_model, load_processor
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder
from trimpi.stages.rl import build_trainer
from trimpi.stages.rl_arguments import plan_batches


def rollout_of(rank: int, port: int, model: Path, data: Path, output: Path, url: str) -> None:
    """One of two processes: a rollout batch of four prompts, the second never solved."""
    torch.set_num_threads(1)
    inputs = rl_inputs(model, DataFolder(data), output)
    processor = load_processor(inputs.model, inputs.model_config)
    install(pytest.MonkeyPatch(), Answers(processor))
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": "2"}
    config = rl_config(
        beta=0.0,
        aware_when="all_failed",
        prompts_per_step=4,
        trainer={"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": url},
    )
    samples = inputs.data.read("train")
    plan = plan_batches(config, len(samples), 2)
    net = load_model(inputs.model, inputs.model_config, train=True)
    trainer = build_trainer(config, inputs, samples, plan, net, processor)
    reward, prompts = trainer.reward_funcs[0], trainer.source.take(4)
    trainer.source.restore({"taken": 0})

    def grade(rows: Any, drawn: Any) -> list[Any]:
        reward([sampled.completion_ids for sampled in drawn], rows)
        pairs = zip(reward.last, rows, strict=True)
        return [replace(graded, accuracy=float(row != prompts[1])) for graded, row in pairs]

    trainer.grade = grade
    trainer.model.train()
    found = trainer._generate_and_score_completions([dict(trainer.train_dataset[0])] * 8)
    rows = zip(found["completion_ids"], found["completion_mask"], strict=True)
    kinds = [processor.tokenizer.decode(ids[mask.bool()]).split()[0] for ids, mask in rows]
    record = {
        "kinds": kinds,
        "aware": found["is_aware"].tolist(),
        "prompts": prompts,
        "place": found["place"].tolist(),
        "ratio": found["importance_sampling_ratio"].flatten().tolist(),
    }
    (output / f"rank-{rank}.json").write_text(json.dumps(record))
    os._exit(0)  # the test runner's own end is not this process'


def test_a_process_without_an_aware_row_makes_the_same_calls(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    answers = Answers(load_processor(qwen, ModelConfig(path=str(qwen))))
    output = tmp_path / "rl"
    output.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn = multiprocessing.get_context("spawn")  # a fork would wait for threads it lacks
    with running(Server(answers)) as server:
        arguments = (port, qwen, data.root, output, server.url)
        ranks = [spawn.Process(target=rollout_of, args=(rank, *arguments)) for rank in range(2)]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(timeout=240)
            process.kill()
        assert [process.exitcode for process in ranks] == [0, 0]
    found = [json.loads((output / f"rank-{rank}.json").read_text()) for rank in range(2)]
    prompts = found[0]["prompts"]
    assert [rank["place"] for rank in found] == [
        [prompts[0]] * 4 + [prompts[1]] * 4,
        [prompts[2]] * 4 + [prompts[3]] * 4,
    ]
    assert found[0]["kinds"] == ["free"] * 4 + ["free", "aware"] * 2
    assert found[1]["kinds"] == ["free"] * 8
    for rank in found:
        assert rank["aware"] == [kind == "aware" for kind in rank["kinds"]]
        assert [ratio == 1.0 for ratio in rank["ratio"]] == rank["aware"]
    # The free halves of four prompts; then of one group a process the other places with the policy
    # (those of the second process are thrown away); then those of the solved prompts without it,
    # two groups a process since the second needs two.
    assert server.log.count("weights") == 1
    calls = [entry for entry in server.log if entry.startswith("generate")]
    assert calls == ["generate free x2"] * 4 + ["generate aware x2"] * 2 + ["generate free x2"] * 4
