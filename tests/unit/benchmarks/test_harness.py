"""MMLU-Pro through lm-eval gives our strict number on the same outputs."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmark_fakes import mmlu_row, shot, source, write
from tests.evaluation_fakes import prompt_text
from trimpi.benchmarks import mmlu_pro
from trimpi.benchmarks.harness import run_harness
from trimpi.benchmarks.items import Options

pytest.importorskip("lm_eval", reason="lm-eval is not installed")

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data" / "mmlu_pro"
RECORDED = SHARED / "recorded_outputs.jsonl"


def asked_number(messages: list[dict[str, Any]]) -> int:
    return int(prompt_text(messages).rpartition("Question:\nQuestion ")[2].split("?")[0])


def run(folder: Path, texts: list[str], golds: list[str], shots: int = 0) -> tuple[Any, list[str]]:
    """The harness over rows whose outputs are given, and the prompts that it put."""
    rows = [
        mmlu_row(
            n,
            "computer science" if n % 3 else "math",
            options=[f"option {n}" for n in range(10)],
            answer=gold,
            answer_index="ABCDEFGHIJ".index(gold),
        )
        for n, gold in enumerate(golds)
    ]
    write(folder / "test.jsonl", rows)
    categories = ("math", "computer science")
    examples = [shot(n, categories[n % 2]) for n in range(4)]
    write(folder / "validation.jsonl", examples)
    seen: list[str] = []

    def answer(asked: Any) -> list[str]:
        seen.extend(prompt_text(messages) for _, messages in asked)
        return [texts[asked_number(messages)] for _, messages in asked]

    return run_harness(source(folder), Options(shots=shots), answer), seen


@pytest.mark.skipif(not RECORDED.is_file(), reason=f"no {RECORDED}")
def test_agreement_on_recorded_outputs(tmp_path: Path) -> None:
    recorded = [json.loads(line) for line in RECORDED.read_text().split("\n") if line]
    texts = [row["model_output"] for row in recorded]
    found, _ = run(tmp_path, texts, [row["answer"] for row in recorded])
    assert found["rows"] == len(recorded) == 420
    assert [o["id"] for o in found["outputs"] if o["lm_eval"] != o["ours"]] == []
    assert found["accuracy"] == found["ours"]


def test_prompts_differ_in_blank_lines_alone(tmp_path: Path) -> None:
    texts = ["The answer is (B)\nQuestion: the answer is (C)", "answer: B", "the answer is B", "B"]
    found, seen = run(tmp_path, texts, ["B"] * 4, shots=2)
    assert (found["accuracy"], found["ours"], found["rows"]) == (0.5, 0.5, 4)
    ours = mmlu_pro.load(source(tmp_path), Options(shots=2), tmp_path)
    squeezed = sorted("".join(prompt_text(item.messages).split()) for item in ours)
    assert sorted("".join(text.split()) for text in seen) == squeezed
