"""The exact judge: pairs of a policy and reasoning, judged by hand with the documented weights."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimpi.evaluate.referral.citations import Rules
from trimpi.evaluate.referral.exact import NOTHING_TO_CITE, UNCHECKABLE, ExactJudge
from trimpi.policy import Policy, TextPart
from trimpi.sample import Completion, DataFolder, Sample

TREE = {
    "1": "is there a small object? Yes: go to Condition 1.1. No: go to Condition 1.2.",
    "1.1": "is there a red object? Yes: the response is Case 1. No: the response is Case 2.",
    "1.2": "is there a metal object? Yes: the response is Case 3. No: the response is Case 4.",
}
CALLS = {
    "OCR.1": "if age is below 18, call OCR_v1.",
    "OCR.2": "if age is at least 18 and account_type is A or B, call OCR_v2.",
    "S1": "Never send a picture that shows a face.",
}
PROSE = {
    "R1": "Refuse a refund when the receipt is older than 30 days.",
    "R2": "Approve a refund of at most 50 euros unless the item is not damaged.",
    "R3": "Escalate every complaint about a driver to a supervisor within two hours.",
}
WALK = "Condition 1: is there a small object? No: go to Condition 1.2.\n"
END = "Condition 1.2: is there a metal object? Yes: the response is Case 3."


def judged(
    texts: dict[str, str], unit: str, reasoning: str, deciding: list[str] | None, think: bool = True
) -> tuple[float | None, str]:
    policy = Policy("Vlomar", (TextPart("..."),), {"conditions": texts, "unit": unit})
    facts = {} if deciding is None else {"rules": deciding}
    sample = Sample("a", (), "Which response?", "vlomar", "Case 3", None, facts)
    text = f"<think> {reasoning} </think> \\boxed{{Case 3}}" if think else reasoning
    found = ExactJudge().judge(sample, policy, Completion("a", text))
    return found.score, found.note


# (what, policy, reasoning, deciding rules, score by hand: 10 x (0.2 ids + 0.5 content + 0.3 cover))
PAIRS = [
    ("perfect walk", TREE, WALK + END, ["1", "1.2"], 10),
    ("on one line", TREE, (WALK + END).replace("\n", " "), ["1", "1.2"], 10),
    ("no facts", TREE, WALK + END, None, 10),
    (
        "sent to and quoted at once",
        TREE,
        "Condition 1: is there a small object? No: go to Condition 1.2: is there a metal object?"
        " Yes: the response is Case 3.",
        ["1", "1.2"],
        10,
    ),
    (
        "in words of prose",
        TREE,
        "Condition 1 asks whether there is a small object. No, so go to Condition 1.2. Condition"
        " 1.2 asks whether there is a metal object. Yes, the response is Case 3.",
        ["1", "1.2"],
        10,
    ),
    (
        "whole conditions, with remarks on the picture",
        TREE,
        f"The picture shows a large cube. Condition 1: {TREE['1']} I see none.\n"
        f"**Condition 1.2**: {TREE['1.2']}",
        ["1", "1.2"],
        10,
    ),
    ("wrong value", TREE, WALK.replace("small", "large") + END, ["1", "1.2"], 2 + 2.5 + 1.5),
    ("wrong value of all", TREE, WALK.replace("small", "purple"), ["1"], 2),
    (
        "a value added",
        TREE,
        WALK.replace("small", "small rubber") + END,
        ["1", "1.2"],
        2 + 2.5 + 1.5,
    ),
    ("wrong case", TREE, WALK + END.replace("3", "4"), ["1", "1.2"], 2 + 2.5 + 1.5),
    ("branches exchanged", TREE, WALK.replace("No:", "Yes:") + END, ["1", "1.2"], 2 + 2.5 + 1.5),
    (
        "branches exchanged, verdict apart",
        TREE,
        "Condition 1: is there a small object? No. Go to Condition 1.1.",
        ["1"],
        2,
    ),
    (
        "right text, wrong id",
        TREE,
        "Condition 1: is there a metal object? No: go to Condition 1.2.\n"
        "Condition 1.2: is there a small object? Yes: the response is Case 3.",
        ["1", "1.2"],
        2,
    ),
    (
        "copy of the other condition",
        TREE,
        f"Condition 1.1: {TREE['1.2']}",
        ["1.2"],
        2,
    ),
    (
        "invented id beside a perfect walk",
        TREE,
        WALK + END + "\nCondition 7: is there a cube? Yes: the response is Case 9.",
        ["1", "1.2"],
        10 * (0.2 * 2 / 3 + 0.5 * 2 / 3 + 0.3),
    ),
    ("sent to an id that is not there", TREE, WALK.replace("1.2", "1.3"), ["1"], 2),
    ("all invented", TREE, "Condition 8: is there a small object? No: stop.", ["1"], 0),
    ("ids alone", TREE, "I use Conditions 1 and 1.2, so Case 3.", ["1", "1.2"], 2),
    ("ids alone, on lines", TREE, "Condition 1.\nCondition 1.2.", ["1", "1.2"], 2),
    ("last step dropped", TREE, WALK, ["1", "1.2"], 2 + 5 + 1.5),
    (
        "off the gold path, each citation right",
        TREE,
        "Condition 1: is there a small object? Yes: go to Condition 1.1.\n"
        "Condition 1.1: is there a red object? No: the response is Case 2.",
        ["1", "1.2"],
        2 + 5 + 1.5,
    ),
    ("said right, later wrong", TREE, WALK + END + "\n" + WALK.replace("small", "blue"),
     ["1", "1.2"], 2 + 2.5 + 1.5),
    ("content without ids", TREE, "Is there a small object? No. Is there a metal one? Yes.",
     ["1", "1.2"], 0),
    ("nothing but talk", TREE, "It looks like Case 3 to me.", ["1", "1.2"], 0),
    ("empty", TREE, "", ["1", "1.2"], 0),
    ("a loop of digits", TREE, "Condition 1" + ".1" * 3000, ["1"], 0),
    (
        "a call's walk with checks of the profile",
        CALLS,
        "The next call is to OCR.\n"
        "Rule OCR.1: if age is below 18, call OCR_v1. The profile has age 25: no.\n"
        "Rule OCR.2: if age is at least 18 and account_type is A or B, call OCR_v2. The profile"
        " has age 25: yes, account_type C: yes.\nSo the call is OCR_v2.",
        ["OCR.2"],
        10,
    ),
    ("wrong number", CALLS, "Rule OCR.1: if age is below 21, call OCR_v1.", ["OCR.1"], 2),
    ("wrong version", CALLS, "Rule OCR.1: if age is below 18, call OCR_v2.", ["OCR.1"], 2),
    ("wrong comparison", CALLS, "Rule OCR.1: if age is above 18, call OCR_v1.", ["OCR.1"], 2),
    ("alternatives in another order", CALLS,
     "Rule OCR.2: if age is at least 18 and account_type is B or A, call OCR_v2.", ["OCR.2"], 10),
    ("part of a rule", CALLS, "By Rule OCR.2 call OCR_v2.", ["OCR.2"], 10),
    ("negation dropped", CALLS, "Rule S1: Send a picture that shows a face.", ["S1"], 2),
    ("bare ids", CALLS, "OCR.1: if age is below 18, call OCR_v1.", ["OCR.1"], 10),
    ("bare id that is not there", CALLS, "OCR.9: if age is below 18, call OCR_v1.", ["OCR.1"], 0),
    ("id in brackets after the words", PROSE,
     "Refuse a refund when the receipt is older than 30 days (R1).", ["R1"], 10),
    ("id in brackets, wrong words", PROSE,
     "Refuse a refund when the receipt is older than 60 days (R1).", ["R1"], 2),
    ("number in words", PROSE,
     "Rule R3: escalate every complaint about a driver to a supervisor within 2 hours.",
     ["R3"], 10),
    ("negation flipped", PROSE,
     "R2: Approve a refund of at most 50 euros unless the item is damaged.", ["R2"], 2),
    ("words of another rule", PROSE,
     "R2: Escalate every complaint about a driver to a supervisor.", ["R2"], 2),
    ("a question of one word, wrong", {**TREE, "1": TREE["1"].replace("a small object", "a cube")},
     WALK.replace("small object", "sphere") + END, ["1", "1.2"], 2 + 2.5 + 1.5),
    ("a question of one word, right", {"1": "is there a cube? Yes: stop."},
     "Condition 1: is there a cube?", ["1"], 10),
    ("short question of another condition", {**TREE, "1.1": "is there a cube? Yes: stop."},
     WALK.replace("small object", "cube") + END, ["1", "1.2"], 2 + 2.5 + 1.5),
    ("a response where the condition goes on", TREE,
     WALK.replace("go to Condition 1.2", "the response is Case 9") + END, ["1", "1.2"],
     2 + 2.5 + 1.5),
    ("in free words", TREE,
     "Condition 1 makes me look for a small object. None can be seen, which brings me on to"
     " Condition 1.2.\nThen Condition 1.2 makes me look for a metal object. I find one: Case 3.",
     ["1", "1.2"], 10),
    ("in free words, wrong value", TREE,
     "Condition 1 makes me look for a large object, which brings me on to Condition 1.2.\n",
     ["1"], 2),
    ("thousands", {"R1": "Pay at most 1,000 euros a day."}, "R1: pay at most 1000 euros.",
     ["R1"], 10),
]  # fmt: skip


@pytest.mark.parametrize(("texts", "reasoning", "deciding", "score"),
                         [pair[1:] for pair in PAIRS], ids=[pair[0] for pair in PAIRS])  # fmt: skip
def test_pairs(
    texts: dict[str, str], reasoning: str, deciding: list[str] | None, score: float
) -> None:
    unit = "Condition" if texts is TREE else "Rule"
    found, note = judged(texts, unit, reasoning, deciding)
    assert found == pytest.approx(score, abs=1e-5), note


def test_the_list_is_long_enough() -> None:
    assert len(PAIRS) >= 25


def test_faults_are_named() -> None:
    reasoning = WALK.replace("small", "large") + "Condition 7: stop."
    note = judged(TREE, "Condition", reasoning, ["1", "1.2"])[1]
    assert "1 says 'large' where the policy says 'small'" in note
    assert "7 is not in the policy" in note and "1.2 decides and is not cited" in note


def test_without_a_think_block_the_text_before_the_answer_counts() -> None:
    text = WALK + END
    assert judged(TREE, "Condition", text + " \\boxed{Case 3}", ["1", "1.2"], think=False)[0] == 10
    assert judged(TREE, "Condition", "<think> " + text, ["1", "1.2"], think=False)[0] == 10
    assert judged(TREE, "Condition", "\\boxed{Case 3}", ["1"], think=False) == (0, "no reasoning")


def test_without_rules_by_id_or_rules_that_decide_there_is_no_score() -> None:
    policy = Policy("P", (TextPart("Be nice."),))
    sample = Sample("a", (), "q", "p", "x")
    found = ExactJudge().judge(sample, policy, Completion("a", "<think> R1 </think> \\boxed{x}"))
    assert (found.score, found.note) == (None, UNCHECKABLE)
    assert judged(CALLS, "Rule", "Solver has no versions.", []) == (None, NOTHING_TO_CITE)
    assert judged(CALLS, "Rule", f"Rule S1: {CALLS['S1']}", [])[0] == 10


def test_gold_walks_are_perfect(clevr: DataFolder) -> None:
    judge, rows = ExactJudge(), clevr.read("test")
    for row in rows:
        policy = clevr.policy_of(row)
        assert policy is not None
        text = f"<think> {row.rationale} </think> \\boxed{{{row.answer}}}"
        found = judge.judge(row, policy, Completion(row.id, text))
        assert found.score == 10, (row.rationale, found)
        assert found.parts == {"ids": 1, "content": 1, "coverage": 1}
    assert rows


@given(st.text(max_size=300), st.lists(st.sampled_from([*TREE, "7", "1.1.1"]), max_size=4))
def test_any_text_gets_a_score_within_bounds(text: str, ids: list[str]) -> None:
    cited = " ".join(f"Condition {id}: {text}" for id in ids)
    score, _ = judged(TREE, "Condition", cited + text, ["1"])
    assert score is not None and 0 <= score <= 10


@given(st.sampled_from(list(TREE)), st.sampled_from(["small", "red", "metal", "purple", "blue"]))
def test_only_the_right_value_is_right(id: str, value: str) -> None:
    said = f"Condition {id}: is there a {value} object?"
    (citation,) = Rules(TREE).citations(said)
    assert citation.right is (f"a {value} object" in TREE[id])
