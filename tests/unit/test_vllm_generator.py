"""The vLLM generator against a module that plays vLLM."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.conftest import picture
from trimpi.errors import UserError
from trimpi.generate import Generated
from trimpi.vllm_generator import VllmGenerator


class FakeLLM:
    """Remembers what it was made with and asked; answers by the last text of the prompt."""

    def __init__(self, **settings: Any) -> None:
        if settings.get("dtype") == "odd":
            raise ValueError("unknown dtype\nodd")
        self.settings = settings

    def chat(self, prompts: Any, sampling: Any, use_tqdm: bool) -> list[Any]:
        self.prompts, self.sampling = prompts, sampling
        texts = [prompt[-1]["content"][-1].get("text", "a picture") for prompt in prompts]
        if "long" in texts:
            raise ValueError("The decoder prompt is longer than the maximum model length of 8")
        reason = ["length" if text == "cut" else "stop" for text in texts]
        return [
            SimpleNamespace(
                outputs=[SimpleNamespace(text=f"on {t}", token_ids=(1, 2, 3), finish_reason=r)]
            )
            for t, r in zip(texts, reason, strict=True)
        ]


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("vllm")
    module.LLM, module.SamplingParams = FakeLLM, lambda **k: SimpleNamespace(**k)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", module)


def ask(text: str, *parts: dict[str, str]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]


def test_prompts_become_chats(vllm: None, qwen: Path, tmp_path: Path) -> None:
    picture(tmp_path / "red.png", "red", (8, 8))
    generator = VllmGenerator(qwen, max_pixels=64, engine={"max_model_len": 8})
    image = {"type": "image", "image": str(tmp_path / "red.png")}
    found = generator([ask("one", image), ask("cut")], max_new_tokens=3, seed=5)
    assert found == [Generated("on one", 3, False), Generated("on cut", 3, True)]
    model: Any = generator._model
    assert model.settings == {
        "model": str(qwen),
        "limit_mm_per_prompt": {"image": 8},
        "mm_processor_kwargs": {"max_pixels": 64},
        "max_model_len": 8,
    }
    asked = vars(model.sampling)
    assert asked == {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "max_tokens": 3, "seed": 5}
    shown, said = model.prompts[0][0]["content"]
    assert shown["type"] == "image_url"
    assert shown["image_url"]["url"].startswith("data:image/png;base64,iVBOR")
    assert said == {"type": "text", "text": "one"}


def test_what_goes_wrong_in_one_line(vllm: None, qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"vLLM does not load it \(unknown dtype odd\)$"):
        VllmGenerator(qwen, engine={"dtype": "odd"})
    generator = VllmGenerator(qwen)
    with pytest.raises(UserError, match=r"vLLM refuses a prompt \(The decoder .*\); shorten it"):
        generator([ask("long")], max_new_tokens=3)
    gone = {"type": "image", "image": str(tmp_path / "gone.png")}
    with pytest.raises(UserError, match=r"gone.png: not a readable picture"):
        generator([ask("x", gone)], max_new_tokens=3)


def test_without_vllm(qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(UserError, match=r"vllm is missing .* pip install 'trimpi\[vllm\]'"):
        VllmGenerator(qwen)
    with pytest.raises(UserError, match="no such model folder"):
        VllmGenerator(tmp_path / "none")
