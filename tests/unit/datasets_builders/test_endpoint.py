"""The endpoint generator against a real HTTP server that answers well and badly."""

import base64
import json
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from datasets_builders.chat import requests
from datasets_builders.chat.wire import Nonsense, data_uri, read_answer
from datasets_builders.clevr.builder import plan
from datasets_builders.completion_cache import Cached
from datasets_builders.cot import reverse_cot
from datasets_builders.endpoint import connect
from tests.chat_server import ChatServer, Reply, completion
from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.policy import Policy, TextPart
from trimpi.sample import DataFolder, Sample

KEY = "sk-secret-0123456789"
Serve = Callable[[Callable[[int, dict[str, Any]], Reply]], ChatServer]


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(requests, "FIRST_PAUSE", 0.001)


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    servers = []

    def start(play: Callable[[int, dict[str, Any]], Reply]) -> ChatServer:
        servers.append(ChatServer(play))
        monkeypatch.setenv("OPENAI_BASE_URL", servers[-1].address)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def prompts(count: int, *parts: dict[str, str]) -> list[list[dict[str, Any]]]:
    return [
        [{"role": "user", "content": [*parts, {"type": "text", "text": f"Question {n}?"}]}]
        for n in range(count)
    ]


def question(body: dict[str, Any]) -> str:
    return str(body["messages"][0]["content"][-1]["text"])


def echo(number: int, body: dict[str, Any]) -> Reply:
    return completion(f"On {question(body)}")


def one(model: Cached, **options: Any) -> str:
    (answer,) = model(prompts(1), max_new_tokens=9, **options)
    return answer.text


def failure(model: Cached, count: int = 1) -> str:
    """The line of a failure, which is one line and never holds the key."""
    with pytest.raises(UserError) as caught:
        model(prompts(count), max_new_tokens=9)
    line = str(caught.value)
    assert "\n" not in line and KEY not in line and KEY not in repr(caught.value)
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    return line


def files(tmp_path: Path) -> list[Path]:
    return [file for file in (tmp_path / "cache" / "completions").rglob("*") if file.is_file()]


def test_answers_come_in_the_order_of_the_prompts(serve: Serve) -> None:
    server = serve(echo)
    answers = connect("m", concurrency=3)(prompts(7), max_new_tokens=9, temperature=1.0, seed=5)
    assert [answer.text for answer in answers] == [f"On Question {n}?" for n in range(7)]
    assert not any(answer.truncated for answer in answers)
    body = server.bodies[0]
    assert body["path"] == "/v1/chat/completions" and body["model"] == "m"
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (9, 1.0, 5)
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_pictures_travel_as_data_uris(serve: Serve, tmp_path: Path) -> None:
    Image.new("RGB", (4, 3), "red").save(tmp_path / "a.png")
    Image.new("RGB", (4, 3), "red").save(tmp_path / "a.bmp")
    server = serve(echo)
    picture = {"type": "image", "image": str(tmp_path / "a.png")}
    connect("m")(prompts(1, picture), max_new_tokens=9)
    part = server.bodies[0]["messages"][0]["content"][0]
    assert part["type"] == "image_url"
    head, _, content = part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(content) == (tmp_path / "a.png").read_bytes()
    assert data_uri(str(tmp_path / "a.bmp")).startswith("data:image/png;base64,iVBOR")
    (tmp_path / "b.png").write_text("no picture")
    with pytest.raises(UserError, match=r"b\.png: not a readable picture"):
        data_uri(str(tmp_path / "b.png"))


def test_fields_of_the_request_can_be_added_renamed_and_left_out(serve: Serve) -> None:
    server = serve(echo)
    one(
        connect("o", token_field="max_completion_tokens", extra={"temperature": None, "top_p": 0.5})
    )
    body = server.bodies[0]
    assert body["max_completion_tokens"] == 9 and body["top_p"] == 0.5
    assert not {"max_tokens", "temperature"} & body.keys() and body["seed"] == 0


def test_a_completion_cut_off_by_the_limit_is_truncated(serve: Serve) -> None:
    serve(lambda number, body: completion("Half a sen", "length"))
    (answer,) = connect("m")(prompts(1), max_new_tokens=3)
    assert answer.truncated and answer.text == "Half a sen"


def test_errors_of_the_server_are_tried_again(serve: Serve) -> None:
    server = serve(lambda n, body: (500, {"error": {"message": "hm"}}) if n < 3 else echo(n, body))
    assert one(connect("m")) == "On Question 0?" and server.asked == 3


def test_nonsense_is_tried_again(serve: Serve) -> None:
    server = serve(lambda n, body: (200, "<html>Hello</html>") if n < 3 else echo(n, body))
    assert one(connect("m")) == "On Question 0?" and server.asked == 3


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ((200, "<html>Hello</html>"), "nonsense, tried 2 times (no JSON: <html>Hello</html>)"),
        ((200, {"choices": []}), "nonsense, tried 2 times (no choices with a message"),
        ((200, ["choices"]), "nonsense, tried 2 times (no choices with a message"),
        ((200, "[" * 100_000), "nonsense, tried 2 times (no JSON: [[[["),
        (completion(""), "nonsense, tried 2 times (empty content, finish_reason 'stop')"),
        (completion("x", None), "nonsense, tried 2 times (finish_reason None)"),
        ((503, {"error": {"message": "over\nloaded"}}), "fails, tried 2 times (503: over loaded)"),
        ((429, {"error": {"message": "slow down"}}), "turns requests away (429: slow down)"),
        ((404, {"error": {"message": "no model m"}}), "is not there (404: no model m)"),
        ((400, {"error": {"message": "too long"}}), "refuses prompt 1 (400: too long)"),
        ((422, {"detail": "bad field"}), "refuses prompt 1 (422: bad field)"),
        ((401, {"error": {"message": f"bad {KEY}"}}), "refuses the key (401: bad ***)"),
        ((401, f"<b>{'x' * 190}{KEY}</b>"), "refuses the key (401: <b>xxx"),
        ((200, f"<b>{'x' * 70}{KEY}</b>"), "nonsense, tried 2 times (no JSON: <b>xxx"),
        ((500, f"key {KEY[:9]} of {KEY}"), "fails, tried 2 times (500: key sk-secret of ***)"),
    ],
)
def test_failures_are_one_line_without_the_key(
    serve: Serve, tmp_path: Path, reply: Reply, words: str
) -> None:
    server = serve(lambda number, body: reply)
    line = failure(connect("m", max_retries=1))
    host = server.address.removeprefix("http://").removesuffix("/v1")
    assert line.startswith(f"generate: model 'm' at {host} ") and words in line
    assert line.endswith(
        f"; 0 of 1 completions are kept in {tmp_path}/cache/completions, and the same command asks"
        " for the rest alone"
    )
    assert KEY[:12] not in line and files(tmp_path) == []


def test_an_endpoint_that_is_down(serve: Serve) -> None:
    serve(echo).close()
    line = failure(connect("m", max_retries=0), count=3)
    assert "cannot be reached ([Errno 111] Connection refused); start the server" in line


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
    ids=range(3),
)
def test_an_endpoint_whose_answers_are_broken(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is there: nobody is sent to look at the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def play() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        threading.Thread(target=play, daemon=True).start()
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        line = failure(connect("m", max_retries=0))
    assert "gives no whole answer, tried once (" in line and "look at the server's log" in line


def test_halves_of_characters_are_replaced(serve: Serve, tmp_path: Path) -> None:
    body = json.dumps(completion("ab")[1])
    serve(lambda number, _: (200, body.replace("ab", r"a\ud800b \ud83d\ude00")))
    assert one(connect("m")) == "a\ufffdb \U0001f600"
    assert one(connect("m")) == "a\ufffdb \U0001f600"


def test_an_endpoint_that_does_not_answer(serve: Serve) -> None:
    free = threading.Event()
    serve(lambda n, body: (free.wait(10), echo(n, body))[1])
    line = failure(connect("m", max_retries=0, timeout=0.1))
    free.set()
    assert "gives no answer within 0.1 s, tried once; raise timeout" in line


def test_what_came_before_a_failure_is_kept_and_not_asked_again(
    serve: Serve, tmp_path: Path
) -> None:
    broken = True

    def play(number: int, body: dict[str, Any]) -> Reply:
        if broken and question(body) == "Question 4?":
            return 400, {"error": {"message": "no"}}
        return echo(number, body)

    server = serve(play)
    line = failure(connect("m", concurrency=1), count=6)
    assert "4 of 6 completions are kept" in line and len(files(tmp_path)) == 4
    broken = False
    asked = server.asked
    answers = connect("m")(prompts(6), max_new_tokens=9)
    assert [answer.text for answer in answers] == [f"On Question {n}?" for n in range(6)]
    assert server.asked - asked == 2
    connect("m")(prompts(6), max_new_tokens=9)
    assert server.asked - asked == 2


def test_requests_on_their_way_are_kept_when_another_fails(serve: Serve, tmp_path: Path) -> None:
    both = threading.Barrier(2, timeout=10)

    def play(number: int, body: dict[str, Any]) -> Reply:
        if number > 2:
            return echo(number, body)
        both.wait()
        if question(body) == "Question 0?":
            return 400, {"error": {"message": "no"}}
        threading.Event().wait(0.1)  # surely after the failure
        return echo(number, body)

    server = serve(play)
    assert "1 of 5 completions are kept" in failure(connect("m", concurrency=2), count=5)
    assert server.asked == 2 and len(files(tmp_path)) == 1


def test_ctrl_c_does_not_wait_and_the_next_run_goes_on(
    serve: Serve, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # What a shell starts behind its back ignores it.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    free = threading.Event()

    def play(number: int, body: dict[str, Any]) -> Reply:
        if number == 4 and not free.is_set():
            while len(files(tmp_path)) < 3:
                free.wait(0.005)
            os.kill(os.getpid(), signal.SIGINT)
            free.wait(10)
        return echo(number, body)

    server = serve(play)
    with pytest.raises(KeyboardInterrupt):
        connect("m", concurrency=1)(prompts(6), max_new_tokens=9)
    assert len(files(tmp_path)) == 3 and server.asked == 4
    others = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert others and all(thread.daemon for thread in others)  # none keeps the process alive
    free.set()
    assert len(connect("m")(prompts(6), max_new_tokens=9)) == 6 and server.asked == 4 + 3


def test_the_key_is_nowhere_on_disk_and_in_no_repr(serve: Serve, tmp_path: Path) -> None:
    server = serve(echo)
    model = connect("m")
    one(model)
    assert KEY not in repr(model) and repr(model).startswith("Cached(Endpoint('m' at 127.0.0.1:")
    (file,) = files(tmp_path)
    text = file.read_text()
    assert KEY not in text and "127.0.0.1" not in text and server.address not in text
    assert model.source.identity() == {"model": "m", "extra": {}}


def test_a_server_without_a_key_needs_none(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    server = serve(echo)
    assert one(connect("m")) == "On Question 0?"
    server.play = lambda number, body: (401, {"error": {"message": "who are you"}})
    with pytest.raises(UserError, match=r"asks for a key \(401: who are you\); set OPENAI_API_KEY"):
        connect("m")(prompts(2), max_new_tokens=9)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({}, "OPENAI_API_KEY is not set; export it, or set OPENAI_BASE_URL"),
        ({"OPENAI_BASE_URL": "https://api.openai.com/v1"}, "OPENAI_API_KEY is not set"),
        ({"OPENAI_BASE_URL": "localhost:8000/v1"}, "OPENAI_BASE_URL: must be http(s)://host"),
        ({"OPENAI_BASE_URL": "http://h:port/v1"}, "OPENAI_BASE_URL: must be http(s)://host"),
        ({"OPENAI_BASE_URL": "http://u:hush@h/v1"}, "must hold no user, password or query"),
        ({"OPENAI_BASE_URL": "http://h/v1?key=hush"}, "must hold no user, password or query"),
        ({"OPENAI_API_KEY": "hush hush"}, "OPENAI_API_KEY: holds a space, line break"),
    ],
)
def test_variables_are_checked_before_anything_is_drawn(
    variables: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError) as caught:
        plan(generate={"name": "datasets_builders.endpoint:connect", "model": "m"})
    line = str(caught.value)
    assert line.startswith("generate: ") and words in line and "hush" not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"model": ""}, "model: must be the model's name"),
        ({"max_retries": -1}, "max_retries: must be a whole number from 0 to 100, found -1"),
        ({"timeout": True}, "timeout: must be a number of seconds above 0, found True"),
        ({"concurrency": 0}, "concurrency: must be a whole number from 1 to 256, found 0"),
        ({"token_field": "tokens"}, "token_field: must be max_tokens or max_completion_tokens"),
        ({"extra": [1]}, "extra: must be a mapping"),
        ({"extra": {"n": 4}}, "extra.n: the generator sets it itself"),
        ({"extra": {"top_p": float("nan")}}, "extra: must be JSON"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], words: str, serve: Serve) -> None:
    serve(echo)
    with pytest.raises(UserError) as caught:
        connect(**({"model": "m"} | arguments))
    assert str(caught.value).startswith(words)


def test_the_extra_is_named_where_it_is_missing(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(echo)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(UserError, match=r"openai is missing; pip install 'trimpi\[endpoint\]'"):
        connect("m")


def test_an_answer_that_a_filter_emptied_is_an_empty_completion() -> None:
    body = '{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
    assert read_answer(body) == {"text": "", "finish": "content_filter", "usage": {}}
    with pytest.raises(Nonsense, match="content that is no text"):
        read_answer('{"choices": [{"message": {"content": 3}, "finish_reason": "stop"}]}')


def test_reverse_cot_takes_its_rationales_from_an_endpoint(serve: Serve) -> None:
    serve(echo)
    policy = Policy("Vlomar", (TextPart("Red means Case 1."),))
    samples = [Sample(f"r{n}", (), f"Question {n}?", "vlomar", "Case 1") for n in range(3)]
    rows, report = reverse_cot(samples, {"vlomar": policy}, connect("m"), max_new_tokens=9)
    assert report.kept == 3 and (rows[1].rationale or "").startswith("On Question 1?")


GENERATE = "generate={name: datasets_builders.endpoint:connect, model: m, max_retries: 0}"


def build(out: Path, *sets: str) -> Any:
    words = ["data", "build", "datasets_builders.clevr.builder:build", "--output", str(out)]
    counts = ("policies=1", "train=null", "train_cot=4", "test=1", "override=null")
    pairs = (*counts, "depth=1", "profile=tiny", "workers=1", "cot_attempts=1", *sets)
    return CliRunner().invoke(app, words + [word for pair in pairs for word in ("--set", pair)])


def test_a_build_from_the_command_line_goes_on_after_a_failure(
    serve: Serve, tmp_path: Path
) -> None:
    down = True

    def play(number: int, body: dict[str, Any]) -> Reply:
        if down and number > 2:
            return 500, f"sorry, {KEY}"
        return completion("<think> I look. </think> \\boxed{Case 1}")

    server = serve(play)
    out = tmp_path / "data"
    result = build(out, GENERATE, "generate.concurrency=1")
    assert result.exit_code == 2 and not out.exists()
    said = result.output + result.stderr
    assert "Traceback" not in said and KEY not in said
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: data.args: generate: model 'm' at 127.0.0.1:")
    assert "fails, tried once (500: sorry, ***)" in line and "2 of 4 completions are kept" in line
    down = False
    result = build(out, GENERATE)  # other concurrency: the same data set
    assert result.exit_code == 0, result.stderr
    assert server.asked == 3 + 2
    card = DataFolder(out).card
    name = "datasets_builders.endpoint:connect"
    assert card["args"]["generate"] == {"name": name, "model": "m"}
    assert card["generator"] == {"name": name, "model": "m", "extra": {}}
    assert card["forward_cot"]["asked"] == 4 and card["forward_cot"]["kept"] == 2
    text = "".join(f.read_text() for f in out.rglob("*") if f.suffix in (".json", ".md", ".jsonl"))
    assert KEY not in text and not re.search(r"127\.0\.0\.1", text)


def test_a_wrong_generator_argument_from_the_command_line(tmp_path: Path) -> None:
    result = build(tmp_path / "data", GENERATE, "generate.modle=x", "generate.api_key=hush")
    assert result.exit_code == 2 and "Traceback" not in result.output
    assert result.stderr.splitlines() == [
        "error: data.args: generate.modle: unknown argument of datasets_builders.endpoint:connect;"
        " did you mean 'model'?",
        "error: data.args: generate.api_key: unknown argument of datasets_builders.endpoint:"
        "connect; known: model, max_retries, timeout, concurrency, token_field, extra",
    ]
    assert not (tmp_path / "data").exists()
