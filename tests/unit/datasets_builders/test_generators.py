"""The argument `generate`: what it names is found, bound and made, or one line says why not."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.completion_cache import Cached
from datasets_builders.generators import resolve_generate, spec_problem
from trimpi.errors import UserError


class Plain:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __call__(self, prompts: list[Any], **options: Any) -> list[Any]:
        return []


class Streaming:
    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def identity(self) -> dict[str, Any]:
        return {**self.settings, "digest": "abc"}

    def stream(self, prompts: list[Any], missing: Any, **options: Any) -> Iterator[Any]:
        yield from ()


def make_plain(size: int = 1) -> Plain:
    return Plain(size=size)


def make_streaming(model: str, *, speed: int = 1) -> Streaming:
    return Streaming(model=model)


def make_none() -> None:
    return None


def make_faulty(kind: str) -> Plain:
    raise UserError("kind: unknown\nsize: too large") if kind == "user" else OSError("no such disk")


def named(function: str, **arguments: Any) -> dict[str, Any]:
    return {"name": f"{__name__}:{function}", **arguments}


def test_a_name_alone_makes_a_generator_without_arguments() -> None:
    name = f"{__name__}:make_plain"
    found = resolve_generate(name)
    assert isinstance(found.generate, Plain) and found.generate.settings == {"size": 1}
    assert found.args == name and found.about() == {"name": name}


def test_a_mapping_gives_arguments() -> None:
    found = resolve_generate(named("make_plain", size=3))
    assert isinstance(found.generate, Plain) and found.generate.settings == {"size": 3}
    assert found.args == named("make_plain", size=3)


def test_one_that_streams_is_cached_and_the_card_leaves_out_what_only_makes_it_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path))
    found = resolve_generate(named("make_streaming", model="m", speed=9), progress=False)
    assert isinstance(found.generate, Cached) and not found.generate.progress
    assert found.args == named("make_streaming", model="m")
    assert found.about() == {**named("make_streaming", model="m"), "digest": "abc"}
    assert list(tmp_path.iterdir()) == []  # a dry run comes here too


def test_a_generator_itself_goes_by_its_name() -> None:
    found = resolve_generate(Plain())
    assert (found.name, found.args) == ("Plain", "Plain")


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        ("no_such_module:x", ["generate: cannot load 'no_such_module:x' (No module named"]),
        (named("nothing"), [f"generate: cannot load '{__name__}:nothing' (module"]),
        (named("make_none"), [f"generate: '{__name__}:make_none' made NoneType, which cannot"]),
        (named("make_plain", sice=1), [
            f"generate.sice: unknown argument of {__name__}:make_plain; did you mean 'size'?"]),
        (named("make_streaming", x=1), [
            f"generate.x: unknown argument of {__name__}:make_streaming; known: model, speed",
            f"generate.model: missing; {__name__}:make_streaming needs it"]),
        (named("make_faulty", kind="user"), [
            "generate: kind: unknown", "generate: size: too large"]),
        (named("make_faulty", kind="disk"), [
            f"generate: '{__name__}:make_faulty' makes no generator (OSError: no such disk)"]),
        ({"model": "m"}, ["generate: must be 'module:name' of a function"]),
        ({"name": "module"}, ["generate: must be 'module:name' of a function"]),
        (3, ["generate: must be 'module:name' of a function"]),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(spec: Any, lines: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        resolve_generate(spec)
    found = str(caught.value).splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True))


def test_the_form_is_judged_without_showing_values() -> None:
    assert spec_problem(None) == spec_problem("a:b") == spec_problem({"name": "a:b"}) == ""
    assert spec_problem(Plain()) == ""
    for wrong in ("", "a", "a:b:c", {}, {"name": Plain()}, 3, ["a:b"], {"key": "hush"}):
        assert "'module:name'" in spec_problem(wrong) and "hush" not in spec_problem(wrong)
