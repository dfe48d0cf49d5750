"""The recital probe: what counts as reciting, and what it is compared with."""

import json
from pathlib import Path

import pytest

from trimpi.errors import UserError
from trimpi.evaluate import recital
from trimpi.sample import Completion, DataFolder, Sample

GOLD = "is there a red object? Yes: go to Condition 1.1. No: the response is Case 2."
OTHER = "is there a cube? Yes: the response is Case 1. No: the response is Case 3."
SAMPLE = Sample(
    "p/1", (), "What does Condition 1 of policy P say?", "p", GOLD, facts={"others": [OTHER]}
)


def graded(text: str) -> dict[str, float]:
    return dict(recital.grade(SAMPLE, Completion("p/1", text)).parts)


def test_token_similarity_by_hand() -> None:
    # a b c d -> a x d: one substitution, one deletion, longer text has 4 tokens
    assert recital.token_similarity("a b c d", "A x, d!") == 0.5
    assert recital.token_similarity("go to 1.1", "go to 1.2") == pytest.approx(2 / 3)
    assert recital.token_similarity("", "") == 1.0
    assert recital.token_similarity("a", "") == 0.0


def test_word_for_word_scores_one() -> None:
    score = recital.grade(SAMPLE, Completion("p/1", f"\\boxed{{{GOLD.upper()}}}"))
    assert score.value == 1.0
    assert score.parts["exact"] == score.parts["similarity"] == score.parts["nearest"] == 1.0
    assert score.parts["other"] == pytest.approx(recital.token_similarity(OTHER, GOLD))


def test_another_condition_of_the_policy_is_similar_but_not_nearest() -> None:
    parts = graded(f"\\boxed{{{OTHER}}}")
    assert parts["exact"] == 0.0 and parts["nearest"] == 0.0
    assert parts["similarity"] == pytest.approx(parts["other"])


def test_one_wrong_word_is_not_exact() -> None:
    parts = graded(f"\\boxed{{{GOLD.replace('red', 'blue')}}}")
    assert parts["exact"] == 0.0 and parts["nearest"] == 1.0
    assert 0.9 < parts["similarity"] < 1.0


def test_text_without_a_box_counts_after_the_reasoning() -> None:
    assert graded(f"<think> something else </think> {GOLD}")["exact"] == 1.0
    assert graded("<think> something else </think>")["similarity"] == 0.0


def test_samples_take_turns_and_ask_by_name(clevr: DataFolder) -> None:
    samples = recital.samples(clevr, "test")
    names = [s.policy for s in samples]
    assert len(set(names)) == 2 and names[0] != names[1]
    assert len(samples) == sum(
        len(policy.metadata["conditions"])
        for name, policy in clevr.policies.items()
        if not name.startswith("override/")
    )
    first = samples[0]
    policy = clevr.policies[first.policy or ""]
    assert first.query == f"What does Condition 1 of policy {policy.name} say?"
    assert first.answer == policy.metadata["conditions"]["1"]
    assert first.answer not in first.facts["others"]


def test_policy_without_conditions_is_refused(clevr: DataFolder, tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "p.json").write_text('{"name": "P", "parts": [{"text": "Be kind."}]}')
    (tmp_path / "test.jsonl").write_text(
        '{"id": "a", "query": "?", "answer": "A", "policy": "p"}\n'
    )
    with pytest.raises(UserError, match=r"policies/p\.json: no metadata\.conditions"):
        recital.samples(DataFolder(tmp_path), "test")


def test_conditions_are_called_as_the_policy_calls_them(data: DataFolder) -> None:
    file = data.root / "policies" / "lumen.json"
    record = json.loads(file.read_text())
    asked = [sample.query for sample in recital.samples(data, "test")]
    assert asked == ["What does Condition 1 of policy Lumen Charter say?"]
    record["metadata"]["unit"] = "Rule"
    file.write_text(json.dumps(record))
    (sample,) = recital.samples(DataFolder(data.root), "test")
    assert sample.query == "What does Rule 1 of policy Lumen Charter say?"
