"""Rationales by a model on this machine: checked early, loaded late, kept batch by batch."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from datasets_builders.clevr.builder import build
from datasets_builders.completion_cache import Cached
from datasets_builders.cot import reverse_cot, reverse_messages
from datasets_builders.generators import resolve_generate
from trimpi import generate as generation
from trimpi.errors import UserError
from trimpi.local_generator import LocalGenerator, load
from trimpi.prompt import Message, build_messages
from trimpi.sample import DataFolder

SHIPPED = "package://trimpi/models/tiny-vlm"


@pytest.fixture
def prompts(data: DataFolder) -> list[list[Message]]:
    """Five prompts of different lengths, the policy in some."""
    rows = data.read("test")[:5]
    return [
        build_messages(
            dataclasses.replace(row, query=row.query + " Look twice." * number),
            data.policy_of(row) if number % 2 else None,
        )
        for number, row in enumerate(rows)
    ]


def texts(generator: Any, prompts: list[list[Message]], **options: Any) -> list[str]:
    return [answer.text for answer in generator(prompts, max_new_tokens=6, **options)]


def test_it_says_what_the_generator_of_an_evaluation_says(
    qwen: Path, prompts: list[list[Message]]
) -> None:
    made = load(str(qwen), dtype="float32", batch_size=2)
    plain = generation.TransformersGenerator(
        *(part(qwen, made._config) for part in (_model, _processor)), batch_size=5, progress=False
    )
    assert texts(made, prompts) == texts(plain, prompts)
    assert made(prompts, max_new_tokens=1)[0].truncated


def _model(path: Path, config: Any) -> Any:
    from trimpi.model import load_model

    return load_model(path, config)


def _processor(path: Path, config: Any) -> Any:
    from trimpi.model import load_processor

    return load_processor(path, config)


def test_going_on_gives_what_an_uninterrupted_run_gives(
    qwen: Path, prompts: list[list[Message]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"temperature": 1.0, "seed": 3}
    load_it = {"name": "trimpi.local_generator:load", "path": str(qwen), "batch_size": 2}

    def resolved() -> Any:
        return resolve_generate(load_it, progress=False).generate

    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "whole"))
    whole = texts(resolved(), prompts, **options)
    assert len(set(whole)) > 1

    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "parts"))
    call = generation.TransformersGenerator.__call__
    calls = 0

    def breaks(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return call(self, *args, **kwargs)

    monkeypatch.setattr(generation.TransformersGenerator, "__call__", breaks)
    with pytest.raises(UserError, match=r"2 prompts at a time do not fit .*; 2 of 5 completions"):
        texts(resolved(), prompts, **options)
    assert texts(resolved(), prompts, **options) == whole
    assert calls == 2 + 2  # three batches, one of them done before
    assert texts(resolved(), prompts, **options) == whole and calls == 4


def test_batches_draw_apart(qwen: Path, prompts: list[list[Message]]) -> None:
    made = load(str(qwen), batch_size=1)
    assert len(set(texts(made, [prompts[0]] * 3, temperature=1.0))) == 3


def test_weights_are_loaded_when_first_asked_and_the_card_names_them(
    qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path))
    spec = {"name": "trimpi.local_generator:load", "path": str(qwen), "batch_size": 2}
    found = resolve_generate(spec)
    assert isinstance(found.generate, Cached)
    source = found.generate.source
    assert isinstance(source, LocalGenerator) and source._generator is None
    assert found.args == {"name": spec["name"], "path": str(qwen)}
    about = found.about()
    assert about["path"] == str(qwen) and about["dtype"] == "auto" and len(about["digest"]) == 64


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"path": "/nowhere/model"}, "/nowhere/model: no such model folder"),
        ({"path": "package://trimpi/models/none"}, "model.path: package 'trimpi' holds no folder"),
        ({"dtype": "int3"}, "dtype: Input should be 'auto', 'float32', 'bfloat16' or 'float16'"),
        ({"max_pixels": 0}, "max_pixels: Input should be greater than or equal to 1, found 0"),
        ({"path": 3}, "path: Input should be a valid string, found 3"),
        ({"batch_size": 0}, "batch_size: must be a whole number from 1 on, found 0"),
    ],
)
def test_wrong_arguments_are_found_without_loading(arguments: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        load(**({"path": SHIPPED} | arguments))
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_the_shipped_model_writes_to_rows_of_clevr(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIMPI_CACHE", str(tmp_path / "cache"))
    rows = {"train": None, "train_cot": 4, "test": None, "override": None}
    made = build(
        tmp_path / "data", seed=0, progress=False, policies=1, profile="tiny", workers=1, **rows
    )
    samples, policies = made.read("train_cot"), made.policies
    assert len(samples) == 4
    spec = {"name": "trimpi.local_generator:load", "path": SHIPPED, "batch_size": 2}
    model = resolve_generate(spec, progress=False).generate
    kept, report = reverse_cot(samples, policies, model, max_new_tokens=200)
    assert report.asked == 4 and len(list((tmp_path / "cache").rglob("*.json"))) == 4
    prompt = reverse_messages(samples[0], policies[samples[0].policy or ""])
    (again,) = model([prompt], max_new_tokens=200)
    (plain,) = load(SHIPPED)([prompt], max_new_tokens=200)
    assert (again.text, again.truncated) == (plain.text, plain.truncated)
    assert report.kept == 4 and all(row.rationale for row in kept)
