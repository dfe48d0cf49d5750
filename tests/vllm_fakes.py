"""Stand-ins for vLLM under TRL's own code: an engine in this process, and a server behind HTTP.

Both keep what vLLM's interfaces say. A prompt's completions name the half that it belongs to
("aware" when its text holds the policy) and count up, each token at log-probability -0.5.
"""

import base64
import io
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from trl.generation import vllm_client, vllm_generation

LOGP = -0.5


class Answers:
    """Completions by prompt, and all that was asked for."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor
        self.asked: list[tuple[list[int], list[Any], dict[str, Any]]] = []
        """(prompt as it was sent, its pictures, sampling parameters), one a request."""
        self.lock = threading.Lock()

    def of(self, ids: Sequence[int]) -> str:
        return "aware" if "Condition 1" in self.processor.tokenizer.decode(ids) else "free"

    def count(self, picture: Any) -> int:
        """Visual tokens of a picture."""
        grid = self.processor.image_processor([picture], return_tensors="pt")["image_grid_thw"]
        return int(grid.prod()) // self.processor.image_processor.merge_size**2

    def expanded(self, ids: Sequence[int], pictures: Sequence[Any]) -> list[int]:
        """As vLLM does with token ids: the next placeholder becomes those of the next picture."""
        placeholder, left, found = self.processor.image_token_id, list(pictures), []
        for token in ids:
            if token == placeholder and left:
                found += [placeholder] * self.count(left.pop(0))
            else:
                found.append(token)
        assert not left, "more pictures than placeholders"
        return found

    def completion(self, ids: Sequence[int], number: int) -> list[int]:
        return list(self.processor.tokenizer(f"{self.of(ids)} {number}")["input_ids"])


class FakeLLM:
    """`vllm.LLM` as TRL's colocated mode uses it."""

    answers: Answers
    made: list["FakeLLM"]

    def __init__(self, **arguments: Any) -> None:
        self.arguments, self.loads, self.log = arguments, 0, list[str]()
        self.counts: dict[tuple[Any, ...], int] = {}
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self._load))
        worker = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(
            model_executor=worker, model_config=SimpleNamespace(max_model_len=4096)
        )
        type(self).made.append(self)

    def _load(self, weights: Any) -> None:
        for name, value in weights:
            assert isinstance(name, str) and isinstance(value, torch.Tensor)
        self.loads += 1

    def reset_prefix_cache(self) -> None:
        self.log.append("weights")  # TRL does it once, after a sync

    def sleep(self, level: int) -> None:
        self.log.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.log += [f"wake {tag}" for tag in tags]

    def generate(self, prompts: list[Any], sampling_params: Any, use_tqdm: bool) -> list[Any]:
        outputs = []
        kinds = set()
        for prompt in prompts:
            ids = prompt["prompt_token_ids"]
            pictures = prompt.get("multi_modal_data", {}).get("image", [])
            pictures = pictures if isinstance(pictures, list) else [pictures]
            self.answers.asked.append((ids, pictures, vars(sampling_params)))
            kinds.add(self.answers.of(ids))
            same = (tuple(ids), *(picture.tobytes() for picture in pictures))
            number = self.counts.get(same, 0)
            self.counts[same] = number + 1
            tokens = self.answers.completion(ids, number)
            logprobs = [{t: SimpleNamespace(logprob=LOGP, rank=1)} for t in tokens]
            outputs.append(
                SimpleNamespace(
                    prompt_token_ids=self.answers.expanded(ids, pictures),
                    outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)],
                )
            )
        self.log.append(f"generate {'+'.join(sorted(kinds))} {len(prompts)}")
        return outputs


class Server:
    """A vLLM server as TRL's client asks it. `info` is what it says of itself."""

    def __init__(self, answers: Answers | None) -> None:
        self.answers, self.log, self.healthy = answers, list[str](), True
        self.info: dict[str, Any] = {
            "weight_transfer_config": {"backend": "nccl"},
            "model_config": {"logprobs_mode": "processed_logprobs", "max_model_len": 4096},
            "cache_config": {"enable_prefix_caching": True},
        }
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None:
                pass

            def _say(self, content: Any, status: int = 200) -> None:
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/health":
                    self._say({}, 200 if outer.healthy else 503)
                elif path == "/server_info" and outer.info:
                    self._say({"vllm_config": outer.info})
                elif path == "/v1/models":
                    self._say({"data": [{"id": "tiny"}]})
                else:
                    self._say({}, 404)

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"] or 0)
                content = json.loads(self.rfile.read(length) or b"{}")
                self._say(*outer.post(self.path, content))

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    def post(self, path: str, content: Any) -> tuple[Any, int]:
        if path == "/reset_prefix_cache":
            self.log.append("weights")
            return {"success": True}, 200
        assert self.answers is not None
        if path == "/v1/chat/completions/render":
            parts = content["messages"][0]["content"]
            urls = [part["image_url"]["url"] for part in parts]
            places = [{"offset": 0, "length": self.answers.count(_picture(url))} for url in urls]
            return {"features": {"mm_placeholders": {"image": places}, "pictures": urls}}, 200
        if path == "/inference/v1/generate":
            ids, features = content["token_ids"], content["features"]
            pictures = [_picture(url) for url in features["pictures"]] if features else []
            for place, picture in zip(
                features["mm_placeholders"]["image"] if features else (), pictures, strict=True
            ):
                assert place["length"] == self.answers.count(picture)
            with self.answers.lock:
                self.answers.asked.append((ids, pictures, content["sampling_params"]))
                number = content["sampling_params"]["n"]
                self.log.append(f"generate {self.answers.of(ids)} x{number}")
            return {"choices": [self._choice(ids, n) for n in range(number)]}, 200
        return {}, 404

    def _choice(self, ids: list[int], number: int) -> dict[str, Any]:
        assert self.answers is not None
        tokens = self.answers.completion(ids, number)
        said = [{"token": f"token_id:{t}", "logprob": LOGP, "top_logprobs": []} for t in tokens]
        return {"token_ids": tokens, "logprobs": {"content": said}}


def _picture(url: str) -> Any:
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB")


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """The server in a thread of its own."""
    thread = threading.Thread(target=server.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
        thread.join()


class FakeClient(vllm_client.VLLMClient):
    """TRL's client; the way of the weights, which is NCCL's, ends here."""

    def init_communicator(self, device: Any = 0) -> None:
        assert self.get_server_info()["weight_transfer_config"] is not None

    def update_named_params(self, metadata: Any, parameters: Any) -> None:
        assert [m[0] for m in metadata] == [name for name, _ in parameters]


def install(patch: pytest.MonkeyPatch, answers: Answers) -> None:
    """Let TRL's `VLLMGeneration` find these in the place of vLLM's."""
    engine = type("Engine", (FakeLLM,), {"answers": answers, "made": []})
    for module in (vllm_generation, vllm_client):
        patch.setattr(module, "is_vllm_available", lambda *args, **kwargs: True)
    patch.setattr(vllm_generation, "LLM", engine, raising=False)
    patch.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
    patch.setattr(vllm_generation, "VLLMClient", FakeClient)
    # TRL sets these for the engine; they are put back after the test.
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        patch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        patch.setenv(name, "127.0.0.1" if name == "MASTER_ADDR" else "29555")
