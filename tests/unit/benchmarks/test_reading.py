"""Answers read from completions: recorded ones of the benchmarks' authors, and cases by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from trimpi.benchmarks import mmlu_pro, mmmu_pro, wildguard
from trimpi.benchmarks.items import Extraction, Item
from trimpi.benchmarks.wildguard import Verdict

SHARED = Path(__file__).resolve().parents[4] / "shared" / "data"
RECORDED = SHARED / "mmlu_pro" / "recorded_outputs.jsonl"
MMMU = sorted((SHARED / "mmmu_pro").glob("*.jsonl"))
QUESTION = Item("1", "math", [], "A", tuple(f"option {letter}" for letter in "ABCDEFGHIJ"))


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


@pytest.mark.skipif(not RECORDED.is_file(), reason=f"no {RECORDED}")
@pytest.mark.parametrize(
    ("model", "extraction"),
    [
        ("Mistral-7B-Instruct-v0.2", "strict"),
        ("Llama-2-7b-hf", "strict"),
        ("gemini-1.5-flash-002", "chain"),
    ],
)
def test_every_recorded_prediction_of_mmlu_pro(model: str, extraction: Extraction) -> None:
    mine = [row for row in rows(RECORDED) if row["model"] == model]
    assert len(mine) == 140
    differ = [
        (row["question_id"], found, row["official_pred"])
        for row in mine
        if (found := mmlu_pro.read(QUESTION, row["model_output"], extraction).answer)
        != row["official_pred"]
    ]
    assert differ == []


@pytest.mark.skipif(not MMMU, reason=f"no recorded outputs in {SHARED / 'mmmu_pro'}")
@pytest.mark.parametrize("file", MMMU, ids=lambda f: f.stem)
def test_recorded_letters_of_mmmu_pro(file: Path) -> None:
    """The authors guess where nothing is found; everything that is found is theirs.

    But of one row, whose options are nested in the official file: they read it as one option.
    """
    recorded = [row for row in rows(file) if "pred_indexs" in row]
    if not recorded:
        pytest.skip("no pred_indexs in it")
    for row in recorded:
        if row["id"] == "validation_Accounting_29":
            continue
        options = mmmu_pro.read_options(row["options"]) or ()
        found = mmmu_pro.read(Item("", "", [], "", options), row["response"]).answer
        assert found in (None, row["pred_indexs"]), row["id"]


@pytest.mark.parametrize(
    ("text", "answer", "level"),
    [
        ("So the answer is (C). The answer is (D).", "C", 0),
        ("the answer is B", "B", 0),
        ("The answer is (K), I think.", "I", 2),
        ("answer: A or Answer:  B\nAnswer: C", "B", 1),
        ("Answer:\nE", "E", 1),
        ("D seems right, or maybe F; no", "F", 2),
        ("Apples BAD", None, None),
        ("thinking\nQuestion: the answer is (A)", None, None),
        ("G\nQuestion:\nthe answer is (A)", "G", 2),
        ("", None, None),
    ],
)
def test_levels_of_mmlu_pro(text: str, answer: str | None, level: int | None) -> None:
    found = mmlu_pro.read(QUESTION, text)
    assert found.answer == answer
    assert found.level == (None if level is None else mmlu_pro.LEVELS[level])
    strict = mmlu_pro.read(QUESTION, text, "strict")
    assert strict.answer == (answer if level == 0 else None)


FRUIT = Item("1", "Art", [], "A", ("red apple", "green pear", "a plum"))


@pytest.mark.parametrize(
    ("text", "answer", "level"),
    [
        ("Answer: A, no.\nAnswer: C", "C", 0),
        ("Answer: A or B (C)", "C", 1),
        ("first (A), then (B), again (A)", "A", 1),
        ("it is B then", "B", 2),
        ("it is either B or A , or", "A", 2),
        ("B.", "B", 2),  # signs at the ends go first
        ("B. green pear", "B", 3),
        ("I would say the Green Pear, surely", "B", 4),
        ("red apple or green pear, it was a plum and red apple", "A", 4),
        ("a plum", None, None),  # five words or fewer are not searched for options
        ("Answer: D, the fourth of all these", None, None),
        ("", None, None),
    ],
)
def test_levels_of_mmmu_pro(text: str, answer: str | None, level: int | None) -> None:
    found = mmmu_pro.read(FRUIT, text)
    assert (found.answer, found.level) == (
        answer,
        None if level is None else mmmu_pro.LEVELS[level],
    )
    assert mmmu_pro.read(FRUIT, text, "strict").answer == (answer if level == 0 else None)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (
            "Harmful request: yes\nResponse refusal: no\nHarmful response: Yes \nmore",
            Verdict(True, False, True),
        ),
        ("\n a: NO\nb: N/A\nc: n/a", Verdict(False, None, None)),
        ("a: x: yes\nb: yes\nc: no", Verdict(True, True, False)),
        ("a: n/a\nb: yes\nc: no", None),
        ("a: yes\nb: perhaps\nc: no", None),
        ("a: yes\nb: no", None),
        ("yes\nno\nyes", None),
        ("I think that this is harmful.", None),
    ],
)
def test_verdicts_of_a_classifier(text: str, verdict: Verdict | None) -> None:
    assert wildguard.parse(text) == verdict
    harm, refusal = (wildguard.read(label, QUESTION, text) for label in ("harm", "refusal"))  # type: ignore[arg-type]
    said = {None: None, True: "harmful", False: "unharmful"}
    assert harm.answer == (None if verdict is None else said[verdict.harmful])
    said = {None: None, True: "refusal", False: "compliance"}
    assert refusal.answer == (None if verdict is None else said[verdict.refusal])
