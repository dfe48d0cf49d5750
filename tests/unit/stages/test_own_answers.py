"""A model's own answers: chunks that are made once, verdicts, counts."""

from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from trimpi.errors import UserError
from trimpi.generate import Generated
from trimpi.grading import exact_answer
from trimpi.prompt import Message
from trimpi.recipe import DistillConfig
from trimpi.sample import Completion, DataFolder, Sample, Score
from trimpi.stages.own_answers import COMPLETIONS, Own, counts, generate_chunks, in_words, judge

RIGHT = "<think> it is red </think> \\boxed{Case 1}"


class Tokenizer:
    all_special_tokens = ("<|im_end|>",)
    added_tokens_decoder = MappingProxyType[int, Any]({})


class Answers:
    """Answers with the number of the call and the seed; dies on call `die_on`."""

    def __init__(self, die_on: int | None = None, texts: Sequence[Generated] = ()) -> None:
        self.calls: list[tuple[int, int]] = []
        self.prompts: list[str] = []
        self._die_on, self._texts = die_on, list(texts)

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        if len(self.calls) == self._die_on:
            raise KeyboardInterrupt
        self.calls.append((len(prompts), seed))
        self.prompts += ["".join(p.get("text", "") for p in m[0]["content"]) for m in prompts]
        if self._texts:
            return [self._texts.pop(0) for _ in prompts]
        return [Generated(f"\\boxed{{{seed} {n}}}", 3, False) for n in range(len(prompts))]


def settings(**more: Any) -> DistillConfig:
    return DistillConfig(**{"generation_batch_size": 1, "rollouts": 2, "split": "train", **more})


def generate(
    config: DistillConfig, data: DataFolder, out: Path, answers: Answers, **more: Any
) -> None:
    generate_chunks(config, data.read("train"), data, out, lambda: answers, 5, **more)


def verdicts(
    config: DistillConfig, data: DataFolder, out: Path, grader: Any = exact_answer
) -> list[Own]:
    return judge(config, data.read("train"), out, grader, Tokenizer())


def test_all_rows_are_answered_with_their_policy_in_context(
    data: DataFolder, tmp_path: Path
) -> None:
    answers = Answers()
    generate(settings(), data, tmp_path, answers)
    assert answers.calls == [(4, 5 * 2**20 + n) for n in range(4)]  # 8 rows x 2, chunks of 4
    assert all("is there an object like" in prompt for prompt in answers.prompts)
    found = verdicts(settings(), data, tmp_path)
    assert [(own.sample.id, own.rollout) for own in found[:3]] == [
        ("train-0", 0), ("train-0", 1), ("train-1", 0)
    ]  # fmt: skip
    assert {own.verdict for own in found} == {"kept"} and found[
        5
    ].text == f"\\boxed{{{5 * 2**20 + 1} 1}}"
    assert not (tmp_path / "completions").exists() and (tmp_path / COMPLETIONS).is_file()


def test_an_interruption_loses_one_chunk_and_processes_share_the_rest(
    data: DataFolder, tmp_path: Path
) -> None:
    whole, broken, shared = (tmp_path / name for name in ("whole", "broken", "shared"))
    generate(settings(), data, whole, Answers())
    with pytest.raises(KeyboardInterrupt):
        generate(settings(), data, broken, Answers(die_on=2))
    rest = Answers()
    generate(settings(), data, broken, rest)
    assert [seed % 2**20 for _, seed in rest.calls] == [2, 3]
    for process in (1, 0):
        generate(settings(), data, shared, Answers(), process=process, processes=2)
    texts = [[o.text for o in verdicts(settings(), data, out)] for out in (whole, broken, shared)]
    assert texts[0] == texts[1] == texts[2]
    generate(settings(), data, whole, Answers(die_on=0))  # all there: nobody is asked
    assert [own.text for own in verdicts(settings(), data, whole)] == texts[0]


def test_what_is_left_out_and_why(data: DataFolder, tmp_path: Path) -> None:
    config = settings(rollouts=1, generation_batch_size=2, filter="grader", limit=8)
    said = [RIGHT, "<think> no end", "  ", RIGHT + "<|im_end|>", "\\boxed{Case 9}",
            "\\boxed{Case 2}", RIGHT, RIGHT]  # fmt: skip
    generate(
        config, data, tmp_path, Answers(texts=[Generated(t, 9, n == 1) for n, t in enumerate(said)])
    )

    def grader(sample: Sample, completion: Completion) -> Score:
        if sample.id == "train-6":
            return Score(None)
        return exact_answer(sample, completion)

    found = verdicts(config, data, tmp_path, grader)
    assert [own.verdict for own in found] == [
        "kept", "truncated", "empty", "control", "wrong", "kept", "ungraded", "wrong"
    ]  # fmt: skip
    counted = counts(found, 8)
    assert counted == {
        "rows": 8, "asked": 8, "kept": 2, "rows_kept": 2, "malformed": 1,
        "truncated": 1, "empty": 1, "control": 1, "wrong": 2, "ungraded": 1,
    }  # fmt: skip
    assert in_words(counted) == (
        "2 of 8 completions kept, 1 of them not of the form asked for; left out: 1 cut off at "
        "max_new_tokens, 1 empty, 1 holding control tokens of the model, 2 scored below 1, 1 not "
        "gradable"
    )


def test_without_a_filter_wrong_and_malformed_ones_are_kept_and_the_grader_is_not_asked(
    data: DataFolder, tmp_path: Path
) -> None:
    config = settings(rollouts=1)
    generate(config, data, tmp_path, Answers(texts=[Generated("no box at all", 4, False)] * 8))
    found = verdicts(config, data, tmp_path, grader=None)
    assert {(own.verdict, own.value, own.well_formed) for own in found} == {("kept", None, False)}


def test_a_file_of_other_rows_is_refused(data: DataFolder, tmp_path: Path) -> None:
    generate(settings(), data, tmp_path, Answers())
    verdicts(settings(), data, tmp_path)
    with pytest.raises(UserError, match="not the completions of this stage's rows; remove it"):
        verdicts(settings(rollouts=3), data, tmp_path)
    (tmp_path / COMPLETIONS).write_text("{torn")
    with pytest.raises(UserError, match="cannot be read"):
        verdicts(settings(), data, tmp_path)


def test_greedy_rollouts_would_be_the_same() -> None:
    with pytest.raises(ValueError, match="temperature 0 gives the same completion 2 times"):
        settings(temperature=0.0)
    assert settings(temperature=0.0, rollouts=1).temperature == 0
