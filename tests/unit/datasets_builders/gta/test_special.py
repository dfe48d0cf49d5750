"""Special rules: the shipped ones, and every fault by its key."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from datasets_builders.gta import rules as module
from datasets_builders.gta.special import read_special_rules
from trimpi.errors import UserError

FILE = Path(module.__file__).with_name("rules.yaml")
TOOLS = ("ImageDescription", "RegionAttributeDescription", "TextToBbox", "OCR", "MathOCR",
         "GoogleSearch")  # fmt: skip


def test_the_shipped_rules() -> None:
    rules = read_special_rules(FILE, TOOLS)
    assert [(rule.id, rule.kind) for rule in rules] == [
        ("S1", "describe_first"), ("S2", "needs"), ("S3", "substitute"), ("S4", "argument"),
        ("S5", "exact_names"),
    ]  # fmt: skip
    assert rules[3].values == {"closed": 1, "open": 4}
    assert rules[0].text.startswith("When a request comes with several pictures, describe each of")


GOOD = {"id": "A", "kind": "needs", "tool": "OCR", "first": "TextToBbox", "text": "t"}


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"kind": "neds"}, "unknown kind 'neds'; did you mean 'needs'?"),
        ({"id": 3}, "'id' must be text; add it"),
        ({"text": " "}, "'text' must be text; add it"),
        ({"tool": "OCRR"}, "tool: unknown tool 'OCRR'; did you mean 'OCR'?"),
        ({"frist": "OCR"}, "unknown key 'frist'; did you mean 'first'?"),
        ({"kind": "exact_names"}, "unknown key 'tool'; known: none"),
        ({"kind": "describe_first"}, "unknown key 'first'; known: tool"),
        ({"kind": "substitute", "use": "MathOCR"}, "needs the key 'when'; add it"),
        (
            {"kind": "substitute", "use": "MathOCR", "when": "mathemtical"},
            "when: unknown mark 'mathemtical'; did you mean 'mathematical'?",
        ),
        (
            {"kind": "argument", "argument": "k", "values": {"closed": 1}},
            "values: must give a value for each of closed, open",
        ),
        (
            {"kind": "argument", "argument": "k", "values": {"closed": 1, "open": [4]}},
            "values.open: must be a text, a number, true or false; found [4]",
        ),
        ({"kind": ["needs"]}, "'kind' must be text; add it"),
        ({"first": ["TextToBbox"]}, "first: must be a name, found ['TextToBbox']"),
        ({"kind": "substitute", "use": "OCR", "when": {"a": 1}}, "when: must be a name, found"),
    ],
)
def test_faults_name_their_key(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"special": [GOOD | change]}))
    with pytest.raises(UserError) as caught:
        read_special_rules(file, TOOLS)
    lines = str(caught.value).splitlines()
    assert any(found.startswith(f"{file}: special.1: {line}") for found in lines)


def test_all_faults_at_once_and_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"special": [GOOD, GOOD, 3]}))
    with pytest.raises(UserError) as caught:
        read_special_rules(file, TOOLS)
    assert [line.partition("special.")[2] for line in str(caught.value).splitlines()] == [
        "2: id 'A' is given twice; rename one",
        "3: must be an object with 'id', 'kind' and 'text'",
    ]
    file.write_text("special: 3")
    with pytest.raises(UserError, match="special: must be a list of rules"):
        read_special_rules(file, TOOLS)
    file.write_text("attributes: {}")
    assert read_special_rules(file, TOOLS) == ()
    file.write_text("a: [")
    with pytest.raises(UserError, match="not YAML"):
        read_special_rules(file, TOOLS)
