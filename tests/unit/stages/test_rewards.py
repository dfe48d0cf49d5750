"""The reward: grader and form, what is read of a completion, and graders that fail."""

from typing import Any

import pytest

from trimpi.errors import UserError
from trimpi.grading import checked_score, exact_answer
from trimpi.sample import Completion, Sample, Score
from trimpi.stages.rewards import RolloutReward

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
