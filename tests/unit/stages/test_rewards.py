"""The reward: grader and form, what is read of a completion, and graders that fail."""

from typing import Any

import pytest

from trimpi.errors import UserError
from trimpi.grading import checked_score, exact_answer
from trimpi.recipe_rl import Overlong
from trimpi.sample import Completion, Sample, Score
from trimpi.stages.rewards import RolloutReward, overlong_penalty

SAMPLE = Sample("row-7", (), "?", "p", "Case 1")
GOOD = "<think> so </think> \\boxed{Case 1}"


class Letters:
    """A tokenizer of characters; 0 ends a turn, 1 is a special token."""

    def decode(self, ids: list[int], **options: Any) -> str:
        assert options == {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
        return "".join("<special>" if i == 1 else chr(i) for i in ids)


def reward(grader: Any = exact_answer, **more: Any) -> RolloutReward:
    return RolloutReward([SAMPLE], grader, Letters(), [0, 2], **more)


def ids(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_accuracy_and_form_are_weighted() -> None:
    found = reward(accuracy_weight=2.0, format_weight=0.25)
    texts = [GOOD, "\\boxed{Case 1}", "<think> so </think> \\boxed{Case 2}", "no"]
    rewards = found([[*ids(text), 0] for text in texts], row=[0] * 4, prompts=[], other=1)
    assert rewards == [2.25, 2.0, 0.25, 0.0]
    assert [g.accuracy for g in found.last] == [1, 1, 0, 0]
    assert [g.form for g in found.last] == [1, 0, 1, 0]


def test_a_completion_ends_at_the_first_stop_and_keeps_special_tokens() -> None:
    found = reward(lead="\n")
    found([[*ids("\n" + GOOD), 2, 0, 0], [*ids(GOOD), 1, 0], ids(GOOD)], row=[0, 0, 0])
    whole, special, cut = (g.completion for g in found.last)
    assert whole == Completion("row-7", GOOD, len(GOOD) + 1, False)
    assert special.text == GOOD + "<special>" and found.last[1].form == 0
    assert cut.truncated and cut.text == GOOD


def test_what_cannot_be_graded_is_none_not_zero() -> None:
    found = reward(lambda sample, completion: Score(None, note="no idea"))
    assert found([ids(GOOD)], row=[0]) == [None]
    assert found.last[0].accuracy is None


def test_a_grader_that_raises_names_the_sample() -> None:
    def grader(sample: Sample, completion: Completion) -> Score:
        raise KeyError("tree")

    with pytest.raises(UserError, match="row 'row-7': failed with KeyError: 'tree'; mend"):
        reward(grader)([ids(GOOD)], row=[0])


def test_the_graders_own_user_errors_name_file_and_row() -> None:
    def grader(sample: Sample, completion: Completion) -> Score:
        raise UserError("facts.scene: missing; build the data again")

    with pytest.raises(UserError, match=r"^train.jsonl:1: grader .*grader: row 'row-7': facts"):
        reward(grader, file="train.jsonl")([ids(GOOD)], row=[0])


@pytest.mark.parametrize("given", [Score(1.5), Score(float("nan")), Score("1"), 1.0, None])
def test_what_is_no_score_is_refused(given: Any) -> None:
    with pytest.raises(UserError, match=r"row 'row-7': gave .*\[0, 1\]"):
        checked_score(lambda sample, completion: given, SAMPLE, Completion("row-7", GOOD))


@pytest.mark.parametrize(
    ("tokens", "penalty"), [(0, 0), (75, 0), (80, -0.2), (90, -0.6), (99, -0.96), (100, -1)]
)
def test_the_soft_punishment_of_length(tokens: int, penalty: float) -> None:
    """longest 100, cache 25: (75 - tokens) / 25 in the last 25 tokens."""
    assert overlong_penalty(tokens, 100, 25) == pytest.approx(penalty)


def test_length_is_a_part_of_the_reward() -> None:
    found = reward(overlong=Overlong(cache=10, weight=2.0), max_new_tokens=len(GOOD) + 5)
    assert found([[*ids(GOOD), 0], [*ids("x"), 0]], row=[0, 0]) == pytest.approx([1.5 - 1.0, 0.0])
    assert [g.overlong for g in found.last] == [-0.5, 0.0]
    found([[1] * (len(GOOD) + 5)], row=[0])
    assert found.last[0].completion.truncated and found.last[0].overlong == -1


def test_given_verdicts_are_not_graded_again() -> None:
    def once(sample: Sample, completion: Completion) -> Any:
        calls.append(completion.text)
        return exact_answer(sample, completion)

    calls: list[str] = []
    found = reward(once)
    first = found([[*ids(GOOD), 0], [*ids("no"), 0]], row=[0, 0])
    found.given = found.last[::-1]
    assert found([[9], [9]], row=[0, 0]) == first[::-1] and len(calls) == 2
    assert [g.reward for g in found.last] == first[::-1]
