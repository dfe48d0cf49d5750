"""Is a vLLM server there, and does it run as RL needs it? Over HTTP, before a model is loaded."""

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.rl_cases import rl_config
from tests.vllm_fakes import Server, running
from trimpi.recipe import ModelConfig, RlConfig
from trimpi.vllm_server import server_problems


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server(None)) as started:
        yield started


def asked(server: Server | str, model: dict[str, Any] | None = None, **more: Any) -> list[str]:
    url = server if isinstance(server, str) else server.url
    keys = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": url}
    config = rl_config(trainer={**keys, **more.pop("trainer", {})})
    arguments: dict[str, Any] = {"wait": 0, "tokens": 900, **more}
    return server_problems(config, ModelConfig(path="x", **(model or {})), "stages.rl", **arguments)


def test_a_server_that_runs_as_it_must_passes(server: Server) -> None:
    said: list[str] = []
    assert asked(server, say=said.append) == [] and said == []


def test_without_a_server_nothing_is_asked() -> None:
    for trainer in ({}, {"use_vllm": True}, {"use_vllm": True, "vllm_mode": "colocate"}):
        assert server_problems(rl_config(trainer=trainer), ModelConfig(path="x"), "rl") == []
    assert server_problems(RlConfig(), ModelConfig(path="x"), "rl") == []


def test_no_server_is_one_line_within_the_time_that_is_given() -> None:
    start, said = time.monotonic(), list[str]()
    (line,) = asked("http://127.0.0.1:9", wait=3.0, say=said.append)
    assert time.monotonic() - start < 6
    assert "no vLLM server at http://127.0.0.1:9 after 3 seconds" in line and "refused" in line
    assert "vllm serve MODEL" in line and said == ["stages.rl: waits for the vLLM server"]


def test_a_server_that_still_loads_is_waited_for(server: Server) -> None:
    server.healthy = False
    assert "status 503" in asked(server)[0]

    def comes_up(line: str) -> None:
        server.healthy = True

    assert asked(server, wait=8.0, say=comes_up) == []


def test_an_address_that_is_none() -> None:
    (line,) = asked("localhost:8000")
    assert line.startswith("stages.rl.trainer.vllm_server_base_url: no vLLM server at localhost")


@pytest.mark.parametrize(
    ("part", "content", "said"),
    [
        ("weight_transfer_config", None, "start it with --weight-transfer-config"),
        ("model_config", {"logprobs_mode": "raw_logprobs"}, "--logprobs-mode processed_logprobs"),
        (
            "model_config",
            {"logprobs_mode": "processed_logprobs", "max_model_len": 512},
            "takes 512 tokens and the longest row has 900 .*--max-model-len 900",
        ),
        (
            "model_config",
            {"logprobs_mode": "processed_logprobs", "multimodal_config": {
                "mm_processor_kwargs": {"max_pixels": 99}}},
            "bounds pictures by {'max_pixels': 99} and the recipe by nothing",
        ),
    ],
)  # fmt: skip
def test_each_setting_that_would_spoil_training_is_named(
    server: Server, part: str, content: Any, said: str
) -> None:
    server.info = {**server.info, part: content}
    (line,) = asked(server)
    assert re.search(said, line), line


def test_the_recipes_bounds_of_pictures_are_the_servers(server: Server) -> None:
    kwargs = {"mm_processor_kwargs": {"max_pixels": 99}}
    server.info["model_config"] |= kwargs
    assert asked(server, {"max_pixels": 99}) == []
    assert "--mm-processor-kwargs '{\"max_pixels\": 98}'" in asked(server, {"max_pixels": 98})[0]


def test_raw_log_probabilities_do_where_nothing_is_corrected(server: Server) -> None:
    server.info["model_config"] = {"logprobs_mode": "raw_logprobs"}
    assert asked(server, trainer={"vllm_importance_sampling_correction": False}) == []


def test_a_server_without_development_endpoints(server: Server) -> None:
    server.info = {}
    (line,) = asked(server)
    assert "takes weights" in line and "VLLM_SERVER_DEV_MODE=1" in line


def test_no_prefix_caching_is_a_warning(server: Server) -> None:
    said: list[str] = []
    server.info["cache_config"] = {"enable_prefix_caching": False}
    assert asked(server, say=said.append) == []
    assert "--enable-prefix-caching" in said[0]
