"""Reading tool calls as models write them."""

from collections.abc import Callable

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
        f"I call {PLAIN}.",
        f"<tool_call>\n{PLAIN}\n</tool_call><|im_end|>",
        f'reasons {{"name": "Plot"}} </think> {PLAIN}',
        f"<think> a </think> {PLAIN} <think> or",
        f"<think> a </think> \\boxed{{{PLAIN}}} </think>",
        f"{{ {PLAIN}",
        f'A 5" pipe {{x}} "{PLAIN}',
        f'{{ a 5" pipe: {PLAIN}',
        f"{PLAIN}}}",
        f"Set {{a, b}}, then {PLAIN}",
        f'{{"tool_calls": [{PLAIN}]}}',
        f'\\boxed{{{{"tool_calls": [{{"type": "function", "function": {PLAIN}}}]}}}}',
        r'\boxed{\{"name": "OCR\_v3", "arguments": \{"image": "image\_1.jpg"\}\}}',
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


def test_line_breaks_inside_of_texts() -> None:
    command = "def solution():\n    return '1'\n"
    written = f'{{"name": "Solver", "arguments": {{"command": "{command}"}}}}'
    assert parse_call(f"\\boxed{{{written}}}") == Call("Solver", {"command": command})
    assert parse_call(f"```json\n{written}\n```") == Call("Solver", {"command": command})


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
        f"<think> maybe {PLAIN}",
        f"<think> \\boxed{{{PLAIN}}}",
        f"<think> a </think> <think> ```json\n{PLAIN}\n```",
        f"<think> a </think> <think> \\boxed{{{PLAIN}}} </think>",
        f"Never call {PLAIN}, it is wrong; I refuse.",
        f'{PLAIN} {{"x": 1}}',
        f'{{"tool_calls": [{PLAIN}, {PLAIN}]}}',
        '{"tool_calls": [' * 1_200 + "]}" * 1_200,
        "{'name': 'A', 'arguments': {'k': 0x" + "f" * 19_000 + "}}",
    ],
)
def test_what_is_no_call(text: str) -> None:
    assert parse_call(text) is None


def test_the_gold_form_reads_back() -> None:
    call = Call("GoogleSearch_v2", {"query": 'Größe von "X"?', "k": 4, "deep": {"a": [1, None]}})
    assert parse_call(call.to_json()) == call
    assert parse_call(f"\\boxed{{{call.to_json()}}}") == call


HOSTILE = [
    "{" * 19_000, "\\boxed{" * 2_500, "[" * 19_000, "```\n" * 4_000, '{"a":' * 3_000, "-" * 19_000,
    '"' * 19_000, "{}" * 9_000, "<think>" * 2_500, "x" * 10**6, "```" + " " * 19_900,
    "```" + "a" * 19_900, "{a}" * 6_600, "{ }, " * 3_900, "</a" * 6_600, '{"' * 9_900,
    '{"' + "\\" * 19_000 + '"}', "{" * 9_900 + "}" * 9_900, ("```" + " " * 50) * 370,
    "{" + ", " * 9_900 + "}", "{}" + "</" * 9_000, "\\boxed{" + "[1]," * 4_000 + "}",
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_no_call_and_takes_no_time(
    text: str, best_of_three: Callable[[Callable[[], object]], float]
) -> None:
    assert parse_call(text) is None
    assert best_of_three(lambda: parse_call(text)) < 0.2


@given(st.text(max_size=80))
def test_any_text_is_a_call_or_none(text: str) -> None:
    parse_call(text)
    parse_call("\\boxed{" + text + "}")
