"""The pre-flight: pass rates of both halves, groups without signal, and what to change."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.rl_cases import rl_config
from trimpi.generate import ScriptedGenerator
from trimpi.grading import exact_answer
from trimpi.prompt import Message
from trimpi.sample import Completion, DataFolder, Sample
from trimpi.stages.preflight import preflight, shown_lines
from trimpi.stages.rewards import Graded, RolloutReward

RIGHT, WRONG, BARE = (
    "<think> so </think> \\boxed{Case 2}",
    "<think> so </think> \\boxed{Case 9}",
    "hm",
)


def found(
    data: DataFolder, script: Callable[[list[Message]], str] | Sequence[str], **more: Any
) -> dict[str, Any]:
    settings = {"preflight_prompts": 4, "preflight_rollouts": 2, "max_new_tokens": 9, **more}
    samples = [s for s in data.read("train") if s.answer == "Case 2"]
    reward = RolloutReward(samples, exact_answer, None, [])

    def grade(sample: Sample, completion: Completion) -> Graded:
        return reward.grade(sample, completion)

    return preflight(ScriptedGenerator(script), samples, data, grade, rl_config(**settings), seed=0)


def shows_policy(messages: list[Message]) -> bool:
    return "Lumen Charter. Condition 1" in str(messages)


def test_both_halves_are_measured_and_nothing_is_called_out(data: DataFolder) -> None:
    free = iter([RIGHT, WRONG, WRONG, BARE, WRONG, RIGHT, BARE, WRONG])
    result = found(data, lambda messages: RIGHT if shows_policy(messages) else next(free))
    assert (result["prompts"], result["rollouts"]) == (4, 2)
    assert result["aware"]["accuracy"] == 1 and result["free"]["accuracy"] == 2 / 8
    assert result["free"]["format"] == 6 / 8 and result["free"]["truncated"] == 0
    assert result["no_signal"] == {"free": 0.0, "pooled": 0.0, "rescued": 0.0}
    assert result["warnings"] == []
    text = "\n".join(shown_lines(result))
    assert "without the policy: 25% right" in text and "with the policy: 100% right" in text


def test_groups_that_only_the_policy_gives_signal(data: DataFolder) -> None:
    result = found(data, lambda messages: RIGHT if shows_policy(messages) else WRONG)
    assert result["no_signal"] == {"free": 1.0, "pooled": 0.0, "rescued": 1.0}
    assert result["warnings"] == []


def test_without_a_policy_half_there_is_one_half(data: DataFolder) -> None:
    result = found(data, [RIGHT, WRONG], policy_fraction=0.0)
    assert "aware" not in result and result["no_signal"]["free"] == 0
    assert len(shown_lines(result)) == 2


def test_smaller_groups_than_those_of_the_stage_are_told(data: DataFolder) -> None:
    line = shown_lines(found(data, [RIGHT, WRONG], group_size=8))[-1]
    assert line.endswith("of the pooled groups of 4; fewer in the stage's groups of 8")
    assert shown_lines(found(data, [RIGHT, WRONG], group_size=4))[-1].endswith("pooled groups")


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ([WRONG], "no completion was right"),
        ([RIGHT], "nearly all completions are right"),
        ([RIGHT, WRONG], "the policy in context does not help"),
        (["word " * 20], "100% of a half's completions are cut off; raise max_new_tokens"),
        ([BARE], "do CoT SFT before RL"),
    ],
)
def test_what_would_go_wrong_is_said(data: DataFolder, script: list[str], line: str) -> None:
    assert any(line in warning for warning in found(data, script)["warnings"])


def test_silent_groups_of_both_kinds_ask_for_larger_groups(data: DataFolder) -> None:
    right_for: dict[str, bool] = {}

    def script(messages: list[Message]) -> str:
        picture = messages[0]["content"][-2]["image"]
        return RIGHT if right_for.setdefault(picture, len(right_for) % 2 == 0) else WRONG

    result = found(data, script)
    assert result["no_signal"]["pooled"] == 1 and 0 < result["free"]["accuracy"] < 1
    assert any("raise group_size or temperature" in line for line in result["warnings"])


def test_no_more_prompts_than_rows(data: DataFolder) -> None:
    assert found(data, [RIGHT, WRONG], preflight_prompts=50)["prompts"] == 6
