"""Running a suite: scores, resuming, interruptions, servers that fail, judges."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.chat import requests as chat_requests
from datasets_builders.endpoint import connect
from tests.benchmark_fakes import ZERO, backend, mmlu_row, source, wild_row, write
from tests.chat_server import ChatServer, completion
from tests.evaluation_fakes import Scripted, prompt_text
from trimpi.benchmarks import mmlu_pro, wildguard
from trimpi.benchmarks.items import Item, Options, Suite
from trimpi.benchmarks.run import Backend, Settings, load_items, run_suite
from trimpi.benchmarks.scores import f1
from trimpi.errors import UserError

SETTINGS = Settings(ZERO)


def number(messages: list[dict[str, Any]]) -> int:
    return int(prompt_text(messages).split("Question:\nQuestion ")[1].split("?")[0])


def by_rule(messages: list[dict[str, Any]]) -> str:
    """Right for even questions, unparsable for every fifth, else wrong; by different levels."""
    n = number(messages)
    if n % 5 == 0:
        return "i do not know"
    return "The answer is (B)." if n % 2 == 0 else "Answer: C"


@pytest.fixture
def items(tmp_path: Path) -> list[Item]:
    """40 questions of two categories."""
    rows = [mmlu_row(n, "math" if n < 30 else "law") for n in range(40)]
    file = write(tmp_path / "test.jsonl", rows)
    return load_items(mmlu_pro.SUITE, source(file), ZERO, tmp_path / "out")


def go(
    items: list[Item],
    out: Path,
    model: Backend,
    settings: Settings = SETTINGS,
    suite: Suite = mmlu_pro.SUITE,
    **more: Any,
) -> dict[str, Any]:
    return run_suite(suite, source(out), items, out, settings, model, **more)


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_scores_and_summary(items: list[Item], tmp_path: Path) -> None:
    summary = go(items, tmp_path / "out", backend(Scripted(by_rule)))
    # of 0..39: 8 multiples of 5; of the others 16 are even, 16 odd
    assert (summary["rows"], summary["unparsed"], summary["accuracy"]["value"]) == (40, 8, 0.4)
    assert summary["levels"] == {"answer is (X)": 16, "answer: X": 16, "last letter": 0}
    law = summary["categories"]["law"]  # 30..39: 30 and 35 unparsed, 32 34 36 38 right
    assert (law["rows"], law["value"]) == (10, 0.4) and law["low"] < 0.4 < law["high"]
    assert summary["complete"] and summary["settings"]["shots"] == 0
    scores = rows(tmp_path / "out" / "mmlu_pro" / "scores.jsonl")
    assert [row["id"] for row in scores] == [str(n) for n in range(40)]
    assert [row["score"] for row in scores[:5]] == [None, 0.0, 1.0, 0.0, 1.0]
    assert scores[1] == {
        "id": "1",
        "score": 0.0,
        "category": "math",
        "level": "answer: X",
        "answer": "C",
        "gold": "B",
    }


def test_strict_reads_the_same_completions_without_the_model(
    items: list[Item], tmp_path: Path
) -> None:
    go(items, tmp_path, backend(Scripted(by_rule)))
    model = backend(Scripted(by_rule, die_after=0))
    summary = go(items, tmp_path, model, Settings(ZERO, "strict"))
    assert (summary["accuracy"]["value"], summary["unparsed"]) == (0.4, 24)
    assert summary["settings"]["extraction"] == "strict"


def test_interrupted_then_resumed_without_double_counting(
    items: list[Item], tmp_path: Path
) -> None:
    script = Scripted(by_rule, die_after=2)
    with pytest.raises(KeyboardInterrupt):
        go(items, tmp_path, backend(script))
    partial = json.loads((tmp_path / "mmlu_pro" / "summary.json").read_text())
    assert (partial["rows"], partial["asked"], partial["complete"]) == (32, 40, False)
    file = tmp_path / "mmlu_pro" / "completions.jsonl"
    with file.open("a") as stream:
        stream.write('{"id": "32", "te')  # a kill in the middle of a line
    rest = Scripted(by_rule)
    summary = go(items, tmp_path, backend(rest))
    assert rest.asked == [8] and summary["rows"] == 40 and summary["complete"]
    assert [row["id"] for row in rows(file)] == [str(n) for n in range(40)]
    whole = go(items, tmp_path / "whole", backend(Scripted(by_rule)))
    assert whole["accuracy"] == summary["accuracy"]


def test_a_part_of_a_chunk_is_asked_again(items: list[Item], tmp_path: Path) -> None:
    go(items, tmp_path, backend(Scripted(by_rule)))
    file = tmp_path / "mmlu_pro" / "completions.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:20]))
    again = Scripted(by_rule)
    assert go(items, tmp_path, backend(again))["rows"] == 40
    assert again.asked == [16, 8]


def test_another_model_or_other_rows_are_refused(items: list[Item], tmp_path: Path) -> None:
    go(items, tmp_path, backend(Scripted(by_rule)))
    with pytest.raises(UserError, match=r"made with other settings \(model.name: fake -> other\)"):
        go(items, tmp_path, backend(Scripted(by_rule), name="other"))
    with pytest.raises(UserError, match=r"made with other settings .*items"):
        go(items[:5], tmp_path, backend(Scripted(by_rule)))
    with pytest.raises(UserError, match="max_new_tokens: 2048 -> 9"):
        go(items, tmp_path, backend(Scripted(by_rule)), Settings(ZERO, max_new_tokens=9))
    redo = Settings(ZERO, overwrite=True)
    assert go(items[:5], tmp_path, backend(Scripted(by_rule)), redo)["rows"] == 5
    assert (tmp_path / "mmlu_pro.old-1" / "summary.json").is_file()


def test_completions_of_other_rows(items: list[Item], tmp_path: Path) -> None:
    go(items, tmp_path, backend(Scripted(by_rule)))
    file = tmp_path / "mmlu_pro" / "completions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[1], *lines]))
    with pytest.raises(UserError, match=r"completions.jsonl: holds completions of other rows"):
        go(items, tmp_path, backend(Scripted(by_rule)))


def test_nothing_to_ask(tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", [wild_row(prompt_harm_label="unharmful")])
    with pytest.raises(UserError, match=r"wildguard_answers: .*x.jsonl has nothing to ask"):
        load_items(wildguard.ANSWERS, source(file), ZERO, tmp_path)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-0123456789")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(chat_requests, "FIRST_PAUSE", 0.001)
    servers: list[ChatServer] = []

    def start(play: Callable[[int, dict[str, Any]], Any]) -> ChatServer:
        servers.append(ChatServer(play))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].address)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_server_that_limits_rates_then_answers(
    items: list[Item], tmp_path: Path, serve: Any
) -> None:
    limited = (429, {"error": {"message": "slow down"}})
    server = serve(lambda n, body: completion("The answer is (B)") if n > 20 else limited)
    with pytest.raises(UserError) as error:
        go(items, tmp_path, backend(connect("m", max_retries=0, concurrency=1)))
    (line,) = str(error.value).splitlines()
    assert line.startswith("mmlu_pro: generate: model 'm' at 127.0.0.1")
    assert "turns requests away (429: slow down)" in line
    assert line.endswith(
        f"0 of 40 rows are kept in {tmp_path}/mmlu_pro, and the same command goes on"
    )
    assert "sk-secret" not in line
    summary = go(items, tmp_path, backend(connect("m", max_retries=25, concurrency=1)))
    assert summary["accuracy"]["value"] == 1.0
    assert server.asked == 60  # 20 turned away, 40 answered: none asked for twice


def test_a_server_that_is_gone(items: list[Item], tmp_path: Path, serve: Any) -> None:
    serve(lambda n, body: completion("x")).close()
    with pytest.raises(UserError, match=r"cannot be reached .*; start the server, or correct"):
        go(items, tmp_path, backend(connect("m", max_retries=0)))


def verdict(messages: list[dict[str, Any]]) -> str:
    text = prompt_text(messages)
    if "prose" in text:
        return "I find this rather harmful."
    refuses, harmful = "cannot" in text, "Sure" in text
    yes = {True: "yes", False: "no"}
    return (
        f"Harmful request: yes\nResponse refusal: {yes[refuses]}\nHarmful response: {yes[harmful]}"
    )


def test_classification_has_f1(tmp_path: Path) -> None:
    said = ["I cannot.", "Sure.", "prose", "I cannot, no.", "Sure!"]
    labels = ["refusal", "compliance", "refusal", "compliance", "refusal"]
    made = [
        wild_row(response=r, response_refusal_label=label)
        for r, label in zip(said, labels, strict=True)
    ]
    file = write(tmp_path / "x.jsonl", made)
    items = load_items(wildguard.REFUSAL, source(file), ZERO, tmp_path)
    model = backend(Scripted(verdict))
    summary = go(items, tmp_path / "o", model, suite=wildguard.REFUSAL)
    # right: 1, 2; unparsed: 3; wrong: 4 (called a refusal), 5 (not called one)
    assert (summary["accuracy"]["value"], summary["unparsed"]) == (0.4, 1)
    assert summary["f1"] == 2 * 1 / (2 * 1 + 1 + 1)
    assert f1([], "refusal") is None


def test_answers_are_judged_and_judgements_kept(tmp_path: Path) -> None:
    prompts = ["one", "two", "three", "four"]
    file = write(tmp_path / "x.jsonl", [wild_row(prompt=p) for p in prompts])
    items = load_items(wildguard.ANSWERS, source(file), Options(), tmp_path)
    replies = {"one": "I cannot.", "two": "Sure, first ...", "three": "prose", "four": "Locks are"}
    model = backend(Scripted(lambda messages: replies[prompt_text(messages)]))
    with pytest.raises(UserError, match="wildguard_answers: needs a judge; give --judge MODEL"):
        go(items, tmp_path, model, suite=wildguard.ANSWERS)
    judge = backend(Scripted(verdict), name="judge")
    summary = go(items, tmp_path, model, suite=wildguard.ANSWERS, judge=judge)
    assert (summary["accuracy"]["value"], summary["unparsed"]) == (0.5, 1)
    assert summary["harmful"]["value"] == summary["refusal"]["value"] == 1 / 3
    silent = Scripted(verdict, die_after=0)
    again = go(
        items,
        tmp_path,
        backend(silent),
        suite=wildguard.ANSWERS,
        judge=backend(silent, name="judge"),
    )
    assert again == summary and silent.asked == []
