"""Completions on disk: what a key depends on, what is asked again, what is never half-written."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.completion_cache import Answer, Cached, default_folder
from trimpi.errors import UserError


class Counting:
    """Answers with the number of the completion; fails before completion number `fails`."""

    def __init__(self, identity: dict[str, Any] | None = None, fails: int = -1) -> None:
        self.settings = identity or {"model": "m"}
        self.fails, self.made = fails, 0
        self.asked: list[list[int]] = []

    def identity(self) -> dict[str, Any]:
        return self.settings

    def stream(self, prompts: list[Any], missing: Any, **options: Any) -> Iterator[Any]:
        self.asked.append(sorted(missing))
        for place in sorted(missing, reverse=True):
            if self.made == self.fails:
                raise UserError("generate: broken")
            self.made += 1
            finish = "length" if self.made == 2 else "stop"
            yield place, {"text": f"é{self.made}", "finish": finish, "usage": {"n": 1}}


def said(*parts: Any) -> list[dict[str, Any]]:
    content = [
        {"type": "image", "image": str(part)}
        if isinstance(part, Path)
        else {"type": "text", "text": part}
        for part in parts
    ]
    return [{"role": "user", "content": content}]


def cached(folder: Path, source: Counting) -> Cached:
    return Cached(source, folder, progress=False)


def ask(model: Cached, *prompts: Any, **options: Any) -> list[Answer]:
    return model(list(prompts), **({"max_new_tokens": 5} | options))


def test_answers_stand_in_the_order_of_prompts_now_and_from_the_disk(tmp_path: Path) -> None:
    wanted = [Answer("é3", False), Answer("é2", True), Answer("é1", False)]
    assert ask(cached(tmp_path, Counting()), said("a"), said("b"), said("c")) == wanted
    again = Counting()
    assert ask(cached(tmp_path, again), said("a"), said("b"), said("c")) == wanted
    assert again.asked == []


def test_only_the_missing_are_asked_for(tmp_path: Path) -> None:
    source = Counting()
    ask(cached(tmp_path, source), said("a"), said("c"))
    ask(cached(tmp_path, source), said("a"), said("b"), said("c"), said("d"))
    assert source.asked == [[0, 1], [1, 3]]


def test_a_key_depends_on_all_that_the_completion_does(tmp_path: Path) -> None:
    red, blue = tmp_path / "red", tmp_path / "blue"
    red.write_bytes(b"R")
    blue.write_bytes(b"B")
    source = Counting()
    folder = tmp_path / "kept"
    model = cached(folder, source)
    others: list[Any] = [
        (said("a", red), {}),
        (said("b", red), {}),
        (said("a", blue), {}),
        (said(red, "a"), {}),
        (said("a", red), {"seed": 1}),
        (said("a", red), {"temperature": 1.0}),
        (said("a", red), {"max_new_tokens": 6}),
    ]
    for prompt, options in others:
        ask(model, prompt, **options)
    ask(cached(folder, Counting({"model": "n"})), others[0][0])
    assert source.made == len(others)
    assert len(list(folder.rglob("*.json"))) == len(others) + 1
    (tmp_path / "copy").write_bytes(b"R")  # the same picture under another name
    ask(model, said("a", tmp_path / "copy"))
    assert source.made == len(others)


def test_what_is_stored(tmp_path: Path) -> None:
    ask(cached(tmp_path, Counting()), said("a"))
    (file,) = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert file.parent.name == file.stem[:2] and len(file.stem) == 64
    record = {"text": "é1", "finish": "stop", "usage": {"n": 1}}
    assert json.loads(file.read_text()) == {"key": file.stem, **record}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b'{"text": "x", "finish": "stop", "usage": {}}',
        b'{"key": "KEY", "text": 3, "finish": "stop", "usage": {}}',
        b'{"key": "KEY", "text": "x", "usage": {}}',
        rb'{"key": "KEY", "text": "\ud800", "finish": "stop", "usage": {}}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_file_is_asked_for_again_and_replaced(tmp_path: Path, content: bytes) -> None:
    ask(cached(tmp_path, Counting()), said("a"))
    (file,) = tmp_path.rglob("*.json")
    whole = file.read_bytes()
    file.write_bytes(content.replace(b"KEY", file.stem.encode()))
    source = Counting()
    assert ask(cached(tmp_path, source), said("a")) == [Answer("é1", False)]
    assert source.made == 1 and file.read_bytes() == whole


def test_a_failure_keeps_what_is_done_and_says_so(tmp_path: Path) -> None:
    ask(cached(tmp_path, Counting()), said("a"))
    source = Counting(fails=2)
    with pytest.raises(UserError) as caught:
        ask(cached(tmp_path, source), *(said(letter) for letter in "abcde"))
    assert str(caught.value) == (
        f"generate: broken; 3 of 5 completions are kept in {tmp_path}, and the same command asks"
        " for the rest alone"
    )
    rest = Counting()
    ask(cached(tmp_path, rest), *(said(letter) for letter in "abcde"))
    assert rest.asked == [[1, 2]]


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"completions cannot be kept there .*; set TRIMPI_CACHE"):
        Cached(Counting(), tmp_path / "file" / "completions")


def test_a_disk_that_is_full_is_told_in_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OSError(28, "No space left on device")

    model = cached(tmp_path, Counting())
    monkeypatch.setattr(os, "fdopen", full)
    with pytest.raises(UserError, match=r"No space left on device\); set TRIMPI_CACHE; 0 of 1"):
        ask(model, said("a"))
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_a_picture_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.png: cannot be read"):
        ask(cached(tmp_path, Counting()), said(tmp_path / "gone.png"))


def test_the_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("TRIMPI_CACHE", raising=False)
    assert default_folder() == Path("/x/trimpi/completions")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder() == Path("/home/me/.cache/trimpi/completions")
    monkeypatch.setenv("TRIMPI_CACHE", "/y")
    assert default_folder() == Path("/y/completions")
