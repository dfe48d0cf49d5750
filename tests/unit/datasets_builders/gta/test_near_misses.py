"""Calls that are nearly right."""

import json

from datasets_builders.gta.grader import grade
from datasets_builders.gta.near_misses import near_misses
from trimpi.sample import Completion, Sample

ANSWER = '{"name": "GoogleSearch_v2", "arguments": {"query": "fish oil", "k": 10}}'
FACTS = {"tool": "GoogleSearch", "rules": [], "defaults": {"k": 10}}


def missed(answer: str, facts: dict) -> list[tuple[str, list[str]]]:
    sample = Sample("s", (), "q", None, answer, facts=facts)
    found = near_misses(sample)
    for wrong in found:
        assert (grade(sample, Completion("s", f"\\boxed{{{wrong}}}")).value or 0) < 1, wrong
    return [(call["name"], list(call["arguments"])) for call in map(json.loads, found)]


def test_another_version_another_tool_an_argument_more_and_each_less() -> None:
    both = ["query", "k"]
    assert missed(ANSWER, FACTS) == [
        ("xGoogleSearch_v2", both),
        ("GoogleSearch", both),
        ("GoogleSearch_v20", both),
        ("GoogleSearch_v2", ["unasked", *both]),
        ("GoogleSearch_v2", ["k"]),  # k has its default and may be left out
    ]
    less = missed(ANSWER.replace("10", "4"), FACTS)[-2:]
    assert less == [("GoogleSearch_v2", ["k"]), ("GoogleSearch_v2", ["query"])]


def test_a_tool_without_versions_or_arguments() -> None:
    assert missed('{"name": "Solver", "arguments": {}}', {"tool": "Solver"}) == [
        ("xSolver", []),
        ("Solver", ["unasked"]),
    ]
