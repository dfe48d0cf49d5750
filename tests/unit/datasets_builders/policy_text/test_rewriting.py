"""Texts by a model: what is asked, and what is let through."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from datasets_builders.guardrail.builder import POLICIES
from datasets_builders.policy_text import texts, verify_text
from datasets_builders.policy_text.rewriting import is_recital, keeps_facts, vocabulary
from trimpi.policy import Policy
from trimpi.policy_file import read_policy_file


@dataclass
class Said:
    text: str
    truncated: bool = False


def model(change: Callable[[str], str], truncated: bool = False) -> Any:
    """A generator that changes the text behind its instruction."""

    def generate(prompts: Sequence[Any], **options: Any) -> list[Said]:
        assert options["max_new_tokens"] > 0 and options["seed"] == 0
        asked = [prompt[0]["content"][0]["text"].split("\n\n", 1)[1] for prompt in prompts]
        return [Said(change(text), truncated) for text in asked]

    return generate


@pytest.fixture(scope="module")
def policy() -> Policy:
    return read_policy_file(POLICIES / "ostrel.md")


def written(policy: Policy, change: Callable[[str], str], truncated: bool = False) -> list[Any]:
    rows = texts(policy, seed=0, per_rule=2, generate=model(change, truncated))
    return [row for row in rows if "written" in row.facts]


def test_texts_that_keep_the_facts_are_added(policy: Policy) -> None:
    before = texts(policy, seed=0, per_rule=2)
    rows = texts(policy, seed=0, per_rule=2, generate=model(lambda text: f"Well then: {text}"))
    assert rows[: len(before)] == before and len(rows) == 2 * len(before)
    by_id = {row.id: row for row in before}
    for row in rows[len(before) :]:
        old = by_id[row.id.removesuffix("-m")]
        assert row.facts == {**old.facts, "written": "model"}
        if row.facts["kind"] in ("scenario", "question"):
            assert row.answer == old.answer and row.query == f"Well then: {old.query}"
        else:
            assert row.query == old.query and row.answer != old.answer
    assert [fault for row in rows for fault in verify_text(row, policy)] == []


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: "I cannot do that.",
        lambda text: text.replace("Ostrel", "Tavian"),
        lambda text: text + " and more" * 400,
        lambda text: " ".join(reversed(text.split())),
    ],
)
def test_texts_that_lose_facts_are_not(policy: Policy, change: Callable[[str], str]) -> None:
    assert [r for r in written(policy, change) if r.facts["rules"]] == []


def test_a_sentence_beside_the_rules_keeps_half_of_its_words_and_its_quotes() -> None:
    words = frozenset({"shop"})
    before = "According to policy Shop: leaking pens return within thirty days."
    assert keeps_facts(before, "Policy Shop lets leaking pens return within thirty days.", words)
    assert not keeps_facts(before, "Policy Shop is kind.", words)
    asked = 'How does policy Shop go on after "Leaking pens"?'
    assert keeps_facts(asked, 'Under policy Shop, what stands after "Leaking pens"?', words)
    assert not keeps_facts(asked, "Under policy Shop, what stands after leaking pens?", words)


def test_texts_that_were_cut_off_are_not(policy: Policy) -> None:
    assert written(policy, lambda text: f"So: {text}", truncated=True) == []


def test_a_request_that_tells_its_answer_is_dropped(policy: Policy) -> None:
    told = written(policy, lambda text: f"{text} allow, weapon, severity 0")
    assert not [r for r in told if r.facts["kind"] == "scenario" and r.answer in r.query]


def test_the_probes_wording_is_told() -> None:
    assert is_recital("What does rule R2 of policy ostrel say?!", "Ostrel", "Rule")
    assert is_recital("Well: what does Rule R2 of policy Ostrel say", "Ostrel", "Rule")
    assert not is_recital("How does Rule R2 of policy Ostrel read?", "Ostrel", "Rule")


def test_facts_are_numbers_values_and_words_that_turn_a_meaning(policy: Policy) -> None:
    words = vocabulary(policy)
    assert {"ostrel", "rule", "knife", "kitchen", "severity", "block"} <= words
    before = "If item is knife and age is less than 18, block."
    assert keeps_facts(
        before, "Whenever the item is a knife, and the age less than 18: block!", words
    )
    assert not keeps_facts(before, "Whenever the item is a knife, the age 18: block!", words)
    assert not keeps_facts(before, "Block where age is less than 18 and item is knife.", words)
