"""A vLLM server that the RL stage samples from: is it there, and does it run as it must?

Asked over HTTP before a model is loaded. TRL asks too, after that, and without a limit of time for
a host that takes the connection and says nothing.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from trimpi.recipe import ModelConfig, RolloutConfig

START = (
    'VLLM_SERVER_DEV_MODE=1 vllm serve MODEL --weight-transfer-config \'{"backend": "nccl"}\' '
    "--logprobs-mode processed_logprobs"
)
"""How a server for training is started."""
TIMEOUT, PAUSE, ONE_ANSWER = 240.0, 2.0, 10.0
"""Seconds: until a server is given up (TRL's default), between two tries, and for one answer."""


def address(trainer: Mapping[str, Any]) -> str:
    """URL of the server that `trainer:` names."""
    if base := trainer.get("vllm_server_base_url"):
        return str(base).rstrip("/")
    host, port = trainer.get("vllm_server_host", "0.0.0.0"), trainer.get("vllm_server_port", 8000)
    return f"http://{host}:{port}"


def server_problems(
    config: RolloutConfig,
    model: ModelConfig,
    key: str,
    *,
    tokens: int | None = None,
    wait: float | None = None,
    say: Callable[[str], object] = print,
) -> list[str]:
    """What keeps the RL stage at `key` from using its server; empty where it uses none.

    Args:
        config: the stage.
        model: how the recipe processes pictures.
        key: dotted key of the stage for messages.
        tokens: of the longest row with its completion; None where it is not known.
        wait: seconds until a server that does not answer is given up; None for the stage's
            `vllm_server_timeout`, 0 asks once.
        say: receives a line where the server is waited for, and one of what costs time alone.
    """
    trainer = config.trainer
    if not trainer.get("use_vllm") or trainer.get("vllm_mode") != "server":
        return []
    url = address(trainer)
    where = f"{key}.trainer.vllm_server_base_url"
    wait = float(trainer.get("vllm_server_timeout", TIMEOUT)) if wait is None else wait
    if (fault := _reach(url, wait, lambda: say(f"{key}: waits for the vLLM server"))) is not None:
        waited = f" after {wait:g} seconds" if wait else ""
        return [f"{where}: no vLLM server at {url}{waited} ({fault}); start one: {START}"]
    status, text = _get(f"{url}/server_info?config_format=json")
    try:
        info = json.loads(text)["vllm_config"] if status == 200 else None
    except (ValueError, KeyError, TypeError):
        info = None
    if not isinstance(info, dict):
        return [f"{where}: {url} is no vLLM server that takes weights; start it so: {START}"]
    problems = []
    if info.get("weight_transfer_config") is None:
        problems.append("takes no weights; start it with --weight-transfer-config")
    served = info.get("model_config") or {}
    corrects = trainer.get("vllm_importance_sampling_correction", True)
    if corrects and (mode := served.get("logprobs_mode")) != "processed_logprobs":
        problems.append(
            f"gives {mode} where the importance-sampling correction needs those after temperature "
            "and bias; start it with --logprobs-mode processed_logprobs"
        )
    length = served.get("max_model_len")
    if tokens is not None and isinstance(length, int) and length < tokens:
        problems.append(
            f"takes {length} tokens and the longest row has {tokens} (policy, request and "
            f"max_new_tokens); start it with --max-model-len {tokens} or more"
        )
    problems += _pictures(served, model)
    if (info.get("cache_config") or {}).get("enable_prefix_caching") is False:
        say(
            f"warning: {key}: the vLLM server computes the policy anew for every row; start it "
            "with --enable-prefix-caching"
        )
    return [f"{where}: the server at {url} {problem}" for problem in problems]


def _pictures(served: Mapping[str, Any], model: ModelConfig) -> list[str]:
    """Whether the server bounds pictures as the recipe does; a server that does not say passes."""
    if "mm_processor_kwargs" not in (inner := served.get("multimodal_config") or served):
        return []
    theirs = inner["mm_processor_kwargs"] or {}
    given = {"min_pixels": model.min_pixels, "max_pixels": model.max_pixels}
    ours = {name: value for name, value in given.items() if value is not None}
    if ours == {name: theirs[name] for name in given if theirs.get(name) is not None}:
        return []
    bounds = json.dumps(ours)
    return [
        f"bounds pictures by {theirs or 'nothing'} and the recipe by {ours or 'nothing'}; start it "
        f"with --mm-processor-kwargs '{bounds}'"
    ]


def _reach(url: str, wait: float, waits: Callable[[], object]) -> str | None:
    """Why the server cannot be used when the time is over; None once it is healthy."""
    end, told = time.monotonic() + wait, False
    while True:
        status, text = _get(f"{url}/health", min(ONE_ANSWER, max(wait, PAUSE)))
        if status == 200:
            return None
        fault = text if status is None else f"status {status}"
        if time.monotonic() + PAUSE > end:
            return fault
        if not told:
            waits()
            told = True
        time.sleep(PAUSE)


def _get(url: str, timeout: float = ONE_ANSWER) -> tuple[int | None, str]:
    """Status and text of an answer; no status and the reason where there is none."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return None, " ".join(str(reason).split()) or type(error).__name__
