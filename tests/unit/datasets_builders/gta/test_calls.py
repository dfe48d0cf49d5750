"""Reading tool calls as models write them."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.gta.calls import Call, parse_call

CALL = Call("OCR_v3", {"image": "image_1.jpg"})
PLAIN = '{"name": "OCR_v3", "arguments": {"image": "image_1.jpg"}}'


@pytest.mark.parametrize(
    "text",
    [
        f"<think> why </think> \\boxed{{{PLAIN}}}",
        f"\\boxed{{{PLAIN}}}",
        f"\\boxed{{\\text{{{PLAIN}}}}}",
        f"\\boxed{{\n```json\n{PLAIN}\n```\n}}",
        f"<think> why </think>\n```json\n{PLAIN}\n```",
        f"```\n{PLAIN}```",
        f"I call {PLAIN} now.",
        f'<think> not {{"name": "Plot"}} </think> {PLAIN}',
        f'\\boxed{{{{"name": "Plot"}}}} then \\boxed{{{PLAIN}}}',
        f'{{"name": "Plot"}} or rather {PLAIN}',
        f"\\boxed{{[{PLAIN}]}}",
        "\\boxed{{'name': 'OCR_v3', 'arguments': {'image': 'image_1.jpg'}}}",
        '\\boxed{{"name": "OCR_v3", "arguments": {"image": "image_1.jpg",},}}',
        '\\boxed{{"tool": "OCR_v3", "args": {"image": "image_1.jpg"}}}',
        '\\boxed{{"function": "OCR_v3", "parameters": {"image": "image_1.jpg"}}}',
        f'\\boxed{{{{"type": "function", "function": {PLAIN}}}}}',
        r'\boxed{{"name": " OCR_v3 ", "arguments": "{\"image\": \"image_1.jpg\"}"}}',
    ],
)
def test_one_call_in_many_writings(text: str) -> None:
    assert parse_call(text) == CALL


def test_no_arguments_and_values_of_all_kinds() -> None:
    for rest in ("", ', "arguments": {}', ', "arguments": null', ', "arguments": ""'):
        assert parse_call(f'\\boxed{{{{"name": "Solver"{rest}}}}}') == Call("Solver", {})
    written = "\\boxed{{'name': 'A', 'arguments': {'top1': True, 'k': 4, 'x': None, 'y': [1.5]}}}"
    assert parse_call(written) == Call("A", {"top1": True, "k": 4, "x": None, "y": [1.5]})
    braces = Call("Plot", {"command": 'a = {"b": "}"}\nprint(f"{a}")'})
    assert parse_call(f"so: {braces.to_json()}") == braces


@pytest.mark.parametrize(
    "text",
    [
        "",
        "OCR_v3(image_1.jpg)",
        "\\boxed{OCR_v3}",
        "\\boxed{}",
        "\\boxed{{}}",
        '\\boxed{{"arguments": {}}}',
        '\\boxed{{"name": 3}}',
        '\\boxed{{"name": " "}}',
        '\\boxed{{"name": "A", "arguments": [1]}}',
        '\\boxed{{"name": "A", "arguments": "no json"}}',
        "\\boxed{{'name': 'A', 'arguments': {1: 2}}}",
        f"\\boxed{{[{PLAIN}, {PLAIN}]}}",
        "\\boxed{{'name': __import__('os').getcwd()}}",
        "\\boxed{{'name': open('/tmp/x', 'w')}}",
        '{"name": "A"',
        f"<think> {PLAIN} </think>",
        f"<think> {PLAIN} </think> I do not know.",
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert parse_call(text) is None


def test_the_gold_form_reads_back() -> None:
    call = Call("GoogleSearch_v2", {"query": 'Größe von "X"?', "k": 4, "deep": {"a": [1, None]}})
    assert parse_call(call.to_json()) == call
    assert parse_call(f"\\boxed{{{call.to_json()}}}") == call


@pytest.mark.parametrize(
    "text",
    ["{" * 19_000, "\\boxed{" * 2_500, "[" * 19_000, "```\n" * 4_000, '{"a":' * 3_000, "-" * 19_000,
     '"' * 19_000, "{}" * 9_000, "<think>" * 2_500, "x" * 10**6],
    ids=range(10),
)  # fmt: skip
def test_hostile_text_is_no_call_and_takes_no_time(text: str) -> None:
    start = time.process_time()
    assert parse_call(text) is None
    assert time.process_time() - start < 2.0


@given(st.text(max_size=80))
def test_any_text_is_a_call_or_none(text: str) -> None:
    parse_call(text)
    parse_call("\\boxed{" + text + "}")
