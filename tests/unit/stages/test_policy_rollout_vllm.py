"""RL over vLLM: who is asked what, how often weights travel, and no correction of the policy gap.

TRL's own `VLLMGeneration` and client run; the engine and the server below them are stand-ins.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.rl_cases import make_trainer, rl_config, rl_inputs, rollout_rows
from tests.vllm_fakes import Answers, FakeLLM, Server, install, running
from trimpi.errors import UserError
from trimpi.model import load_processor
from trimpi.recipe import ModelConfig
from trimpi.sample import DataFolder
from trimpi.stages import vllm_engine


class Case:
    """A trainer over a fake vLLM, and what that was asked."""

    def __init__(self, trainer: Any, answers: Answers, server: Server | None) -> None:
        self.trainer, self.answers, self.server = trainer, answers, server

    @property
    def log(self) -> list[str]:
        if self.server is not None:
            return self.server.log
        engine: FakeLLM = self.trainer.vllm_generation.llm
        return engine.log

    def roll(self, rows: list[dict[str, Any]] | None = None) -> dict[str, Any]:
        self.trainer.model.train()
        found = self.trainer._generate_and_score_completions(rows or rollout_rows(self.trainer))
        return dict(found)

    def texts(self, output: dict[str, Any]) -> list[str]:
        rows = zip(output["completion_ids"], output["completion_mask"], strict=True)
        tokenizer = self.trainer.processing_class.tokenizer
        return [tokenizer.decode(ids[mask.bool()]) for ids, mask in rows]


@pytest.fixture
def make(
    qwen: Path, data: DataFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """`make(mode, trainer={...}, **keys of the stage)`: a case."""
    answers = Answers(load_processor(qwen, ModelConfig(path=str(qwen))))
    install(monkeypatch, answers)
    with running(Server(answers)) as server:

        def build(mode: str, trainer: dict[str, Any] | None = None, **keys: Any) -> Case:
            settings: dict[str, Any] = {"use_vllm": True, "vllm_mode": mode, **(trainer or {})}
            if mode == "server":
                settings["vllm_server_base_url"] = server.url
            inputs = rl_inputs(qwen, data, tmp_path / "rl")
            made = make_trainer(rl_config(**{"beta": 0.0, "trainer": settings, **keys}), inputs)
            return Case(made, answers, server if mode == "server" else None)

        yield build


MODES = pytest.mark.parametrize("mode", ["colocate", "server"])


@MODES
def test_every_row_gets_a_completion_of_its_own_prompt(make: Any, mode: str) -> None:
    case = make(mode)
    output = case.roll()
    texts = case.texts(output)
    # The second copy of a prompt is its second answer; prompts differ in their pictures.
    assert texts == ["free 0", "aware 0", "free 1", "aware 1"] * 2
    marks = output["is_aware"].tolist()
    assert marks == [text.startswith("aware") for text in texts]
    asked = [case.answers.of(ids) for ids, _, _ in case.answers.asked]
    each = 2 if mode == "colocate" else 1  # a server is asked once for the rows of a group's half
    assert asked == ["free"] * 2 * each + ["aware"] * 2 * each
    free = ("free",) * 2 * each
    assert [len(pictures) for _, pictures, _ in case.answers.asked] == [1] * len(free) + [2] * len(
        free
    )


@MODES
def test_pictures_of_the_policy_come_first(make: Any, mode: str) -> None:
    case = make(mode)
    case.roll(rollout_rows(case.trainer, 2))
    colors = {}
    for ids, pictures, _ in case.answers.asked:
        colors.setdefault(case.answers.of(ids), []).append(
            [tuple(picture.getpixel((1, 1))) for picture in pictures]
        )
    # The policy's red square is 32x32, the request's picture 96x64.
    sizes = {tuple(p.size for p in pics) for ids, pics, _ in case.answers.asked if len(pics) == 2}
    assert sizes == {((32, 32), (96, 64))}
    assert {tuple(p[-1:]) for p in colors["aware"]} == {tuple(p) for p in colors["free"]}


@MODES
def test_visual_tokens_are_never_sampled_and_stops_end_a_completion(make: Any, mode: str) -> None:
    case = make(mode)
    case.roll()
    tokenizer = case.trainer.processing_class.tokenizer
    for _, _, sampling in case.answers.asked:
        bias = {int(token): value for token, value in sampling["logit_bias"].items()}
        assert bias[tokenizer.convert_tokens_to_ids("<|image_pad|>")] == -100.0
        assert tokenizer.convert_tokens_to_ids("<|im_end|>") in sampling["stop_token_ids"]
        assert sampling["max_tokens"] == 6 and sampling["temperature"] == 1.0


@MODES
@pytest.mark.parametrize("policy_fraction", [0.0, 0.5])
def test_weights_travel_once_for_new_weights(make: Any, mode: str, policy_fraction: float) -> None:
    case = make(mode, policy_fraction=policy_fraction, dynamic_sampling={"max_tries": 2})
    for step, expected in ((0, 1), (0, 1), (1, 2), (4, 3)):
        case.trainer.state.global_step = step
        case.roll()
        assert case.log.count("weights") == expected
    assert case.log[0] == "weights"


def test_a_resumed_stage_sends_its_weights_first(make: Any) -> None:
    case = make("colocate")
    case.trainer.state.global_step = 4  # as a resume leaves it
    case.roll()
    assert case.log[0] == "weights" and case.log.count("weights") == 1


@pytest.mark.parametrize("dynamic", [None, {"max_tries": 3, "tolerance": 10.0}])
def test_a_sleeping_engine_wakes_once_a_rollout_batch(make: Any, dynamic: Any) -> None:
    case = make("colocate", {"vllm_enable_sleep_mode": True}, dynamic_sampling=dynamic)
    assert case.log == ["sleep 2"]
    case.roll()
    calls = ["generate free 4", "generate aware 4"] * (3 if dynamic else 1)
    assert case.log[1:] == ["wake weights", "weights", "wake kv_cache", *calls, "sleep 2"]
    case.trainer.state.global_step = 1
    case.roll()
    assert case.log.count("weights") == 2 and case.log[-1] == "sleep 2"


def test_an_engine_that_fails_is_put_to_sleep(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make("colocate", {"vllm_enable_sleep_mode": True})

    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("engine")

    monkeypatch.setattr(case.trainer.vllm_generation.llm, "generate", fails)
    with pytest.raises(RuntimeError, match="engine"):
        case.roll()
    assert case.log[-1] == "sleep 2" and case.trainer.vllm_generation.enable_sleep_mode


def test_the_colocated_engine_caches_prefixes_and_bounds_pictures(make: Any, qwen: Path) -> None:
    case = make("colocate")
    arguments = case.trainer.vllm_generation.llm.arguments
    assert arguments["enable_prefix_caching"] is True and arguments["model"] == str(qwen)
    assert "mm_processor_kwargs" not in arguments
    before = vllm_engine.vllm_generation.LLM
    bounds = ModelConfig(path="x", max_pixels=1000, min_pixels=10)
    with vllm_engine.engine_settings(rl_config(trainer={"use_vllm": True}), bounds):
        made = vllm_engine.vllm_generation.LLM(model="x", seed=0)
    assert made.arguments["mm_processor_kwargs"] == {"min_pixels": 10, "max_pixels": 1000}
    assert vllm_engine.vllm_generation.LLM is before, "put back"


def test_an_engine_that_does_not_load_is_one_line(make: Any) -> None:
    def fails(**arguments: Any) -> None:
        raise ValueError("No available memory\nfor the cache blocks")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_engine.vllm_generation, "LLM", fails)
        with pytest.raises(UserError, match=r"does not load .*No available memory for the cache"):
            make("colocate")


@MODES
def test_prompts_reach_each_kind_of_engine_as_it_takes_them(make: Any, mode: str) -> None:
    """An engine in this process expands placeholders itself; a server gets them expanded."""
    case = make(mode)
    case.roll()
    placeholder = case.trainer.processing_class.image_token_id
    for ids, pictures, _ in case.answers.asked:
        wanted = len(pictures) if mode == "colocate" else sum(map(case.answers.count, pictures))
        assert ids.count(placeholder) == wanted
    rollout = case.trainer.last_rollout
    assert {len(ids) for ids in case.trainer.vllm_generation.answered} <= {
        len(ids) for ids in rollout.generated_from
    }


def test_another_prompt_than_was_meant_is_refused(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = make("colocate")
    monkeypatch.setattr(case.answers, "count", lambda picture: 7)  # another processor's bounds
    with pytest.raises(UserError, match=r"answered another prompt .* for .* tokens|max_pixels"):
        case.roll()


@MODES
def test_correction_leaves_aware_rows_alone(make: Any, mode: str) -> None:
    case = make(mode)
    output = case.roll()
    ratio, mask = output["importance_sampling_ratio"], output["completion_mask"]
    gap = ((output["old_per_token_logps"] + 0.5) * mask).sum(1)
    assert (ratio[1::2] == 1).all() and gap[1::2].abs().min() > 0.1
    expected = torch.where(gap[::2].exp() > 3, 0.0, gap[::2].exp())
    assert torch.allclose(ratio[::2, 0], expected) and (ratio[::2] < 0.9).any()


def test_sampling_log_probabilities_are_never_the_old_ones(make: Any) -> None:
    """Old values conditioned on the policy would turn the ratio into an importance weight."""
    output = make("colocate").roll()
    mask = output["completion_mask"].bool()
    assert (output["sampling_per_token_logps"][mask] == -0.5).all()
    assert (output["old_per_token_logps"][mask] != -0.5).all()


def test_the_gap_to_the_sampler_is_logged_by_half(make: Any) -> None:
    case = make("colocate")
    output = case.roll()
    log = case.trainer._metrics["train"]
    gaps = (output["old_per_token_logps"] + 0.5).abs()
    for name, rows in (("free", slice(0, None, 2)), ("aware", slice(1, None, 2))):
        mask = output["completion_mask"][rows]
        mean = float((gaps[rows] * mask).sum() / mask.sum())
        assert log[f"sampling/{name}/logp_difference"] == [pytest.approx(mean)]
    ratio = output["importance_sampling_ratio"][::2]
    assert log["sampling/free/ratio"] == [pytest.approx(float(ratio.mean()))]
    assert log["sampling/free/masked"] == [pytest.approx(float((ratio == 0).float().mean()))]
    assert not log["sampling/sampling_logp_difference/mean"], "a pooled mean tells neither"
    assert not log["sampling/importance_sampling_ratio/mean"]
    plain = make("colocate", policy_fraction=0.0)
    plain.roll()
    log = plain.trainer._metrics["train"]
    assert len(log["sampling/sampling_logp_difference/mean"]) == 1
    assert "sampling/aware/logp_difference" not in log


@MODES
def test_chosen_groups_keep_their_marks_and_their_correction(make: Any, mode: str) -> None:
    """Dynamic sampling re-deals rows: what was sampled with the policy stays uncorrected."""
    case = make(mode, dynamic_sampling={"max_tries": 2})
    output = case.roll()
    texts, ratio = case.texts(output), output["importance_sampling_ratio"]
    aware = torch.tensor([text.startswith("aware") for text in texts])
    assert aware.tolist() == output["is_aware"].tolist() and aware.sum() == 4
    assert (ratio[aware] == 1).all() and (ratio[~aware] != 1).all()
    assert [text.split()[0] for text in texts] == ["free", "aware"] * 4


@MODES
def test_only_prompts_that_fail_are_asked_with_the_policy(make: Any, mode: str) -> None:
    """Whole groups go into the calls with fewer rows; the others get free rows in their place."""
    case = make(mode, aware_when="all_failed")
    reward = case.trainer.reward_funcs[0]

    def grade(rows: Any, drawn: Any) -> list[Any]:
        """The first prompt is never solved, the others always."""
        reward([sampled.completion_ids for sampled in drawn], rows)
        return [
            replace(graded, accuracy=float(row != first_row))
            for graded, row in zip(reward.last, rows, strict=True)
        ]

    case.trainer.grade = grade
    first_row = case.trainer.source.take(1)[0]
    case.trainer.source.restore({**case.trainer.source.state(), "taken": 0})
    output = case.roll()
    texts, ratio = case.texts(output), output["importance_sampling_ratio"]
    kinds = [text.split()[0] for text in texts]
    first, second = kinds[:4], kinds[4:]
    assert first == ["free", "aware"] * 2 and second == ["free"] * 4
    assert output["is_aware"].tolist() == [kind == "aware" for kind in kinds]
    assert (ratio[torch.tensor([k == "aware" for k in kinds])] == 1).all()
    assert (ratio[torch.tensor([k == "free" for k in kinds])] != 1).any()
    calls = [entry for entry in case.log if entry.startswith("generate")]
    expected = {
        "colocate": ["generate free 4", "generate aware 2", "generate free 2"],
        "server": ["generate free x2", "generate free x2", "generate aware x2", "generate free x2"],
    }
    assert calls == expected[mode]


@MODES
def test_a_share_that_falls_changes_the_calls(make: Any, mode: str) -> None:
    case = make(mode, policy_share="annealed", max_steps=3)
    for step, aware in ((0, 2), (1, 1), (2, 0)):
        case.trainer.state.global_step = step
        case.answers.asked.clear()
        output = case.roll()
        assert int(output["is_aware"].sum()) == 2 * aware
        assert [t.split()[0] == "aware" for t in case.texts(output)] == output["is_aware"].tolist()
        sent = [case.answers.of(ids) for ids, _, _ in case.answers.asked]
        if mode == "colocate":
            assert sent == ["free"] * 2 * (4 - aware) + ["aware"] * 2 * aware
        else:
            assert sent == ["free"] * 2 + ["aware"] * (2 if aware else 0)
            assert {s["n"] for _, _, s in case.answers.asked} == {4 - aware, aware} - {0}


@MODES
def test_rows_that_are_left_out_keep_the_correction_of_the_others(make: Any, mode: str) -> None:
    case = make(mode, aware_positives_only=True, teacher={"weight": 0.1})
    output = case.roll()
    assert (output["importance_sampling_ratio"][output["is_aware"]] == 1).all()
    assert output["advantages"].shape == output["completion_ids"].shape
    kept = output["tool_mask"].bool().any(1)
    assert kept[~output["is_aware"]].all()


def test_a_server_that_stops_is_one_line(make: Any) -> None:
    case = make("server")
    case.roll()
    case.server.answers = None  # answers with 404 or drops the connection from now on
    case.server.post = lambda path, content: ({"error": "engine dead"}, 400)
    with pytest.raises(UserError, match=r"the vLLM server gives no rollouts .*400.*same command"):
        case.roll()
