"""PolicyRollout: generated with the policy, learned without it; nothing else differs from GRPO."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import small_data
from tests.rl_cases import (
    given,
    gradients,
    make_trainer,
    recorded,
    rl_config,
    rl_inputs,
    rollout_rows,
)
from trimpi.batch import collate, encode_text
from trimpi.prompt import build_messages
from trimpi.sample import DataFolder
from trimpi.stages.rollout_rows import with_pictures

WORDS = ["Condition 1", "Yes. Case 1", "No", "\\boxed{Case 2}", "red", "is there", "blue", "Go to"]


def completions(trainer: Any) -> list[list[int]]:
    """Eight different completions, each with its end of turn."""
    tokenizer = trainer.processing_class.tokenizer
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    return [[*tokenizer(word)["input_ids"][:5], end] for word in WORDS]


@pytest.fixture
def trainer(qwen: Path, data: DataFolder, tmp_path: Path) -> Any:
    return make_trainer(rl_config(), rl_inputs(qwen, data, tmp_path / "rl"))


def texts(trainer: Any, rows: list[list[int]]) -> list[str]:
    return [trainer.processing_class.tokenizer.decode(ids) for ids in rows]


def test_aware_rows_are_generated_with_the_policy_and_scored_without(
    trainer: Any, data: DataFolder
) -> None:
    rows = rollout_rows(trainer)
    trainer.model.train()
    output = trainer._generate_and_score_completions(rows)
    assert output["is_aware"].tolist() == [False, True] * 4
    samples = [data.read("train")[i // 4] for i in range(8)]
    processor = trainer.processing_class
    free = [encode_text(processor, build_messages(s, None)) for s in samples]
    full = [encode_text(processor, build_messages(s, data.policies["lumen"])) for s in samples]
    rollout = trainer.last_rollout
    for row in range(8):
        source = full[row] if row % 2 else free[row]
        assert rollout.generated_from[row] == source.input_ids
        kept = output["prompt_ids"][row][output["prompt_mask"][row].bool()].tolist()
        assert kept == free[row].input_ids == rollout.scored_against[row]
    assert "Lumen Charter. Condition 1" in texts(trainer, rollout.generated_from)[1]
    assert not any("Condition 1" in text for text in texts(trainer, rollout.scored_against))
    # The policy's own picture is in two generated prompts and in none of the scored ones.
    batch = collate(processor, free, side="left")
    assert torch.equal(output["pixel_values"], batch["pixel_values"])
    assert output["num_images"] == [1] * 8
    assert torch.equal(output["image_grid_thw"], batch["image_grid_thw"])
    types = batch["mm_token_type_ids"]
    assert torch.equal(output["mm_token_type_ids"][:, : types.shape[1]], types)


def test_a_prompts_copies_are_encoded_once_in_one_call_a_half(trainer: Any) -> None:
    trainer.model.train()
    with recorded(trainer, "_generate_single_turn") as calls:
        output = trainer._generate_and_score_completions(rollout_rows(trainer))
    assert [len(ids) for ids, *_ in calls] == [2, 2]  # two prompts without, two with the policy
    assert len(calls[0][0][0]) < len(calls[1][0][0])
    assert output["completion_ids"].shape[0] == 8
    assert trainer.generation_config.num_return_sequences == 1


def test_another_trl_is_refused_at_import(run_python: Any) -> None:
    code = (
        "from trl import GRPOTrainer\n"
        "GRPOTrainer._generate = lambda self, prompts, images: None\n"
        "try:\n    import trimpi.stages.policy_rollout\n"
        "except ImportError as error:\n    print(error)"
    )
    line = run_python(code).splitlines()[-1]
    assert line == "trl's GRPOTrainer._generate has changed; install trl>=1.16,<1.17"


def test_copies_are_distinct_draws_in_the_order_of_the_rows(
    trainer: Any, qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    """Draws of prompts with their copies are those of the same prompts written out row by row."""
    trainer.model.train()
    rows = rollout_rows(trainer)
    together = trainer._generate_and_score_completions(rows)["completion_ids"]
    trainer._copies = lambda rows, in_group: 1
    torch.manual_seed(3)
    assert torch.equal(trainer._generate_and_score_completions(rows)["completion_ids"], together)
    assert len({tuple(row) for row in together.tolist()}) > 4
    # TRL's own draws follow the random state.
    config = rl_config(generation="plain")
    plain = make_trainer(config, rl_inputs(qwen, data, tmp_path / "plain"))
    plain.model.train()
    found = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        found.append(plain._generate_and_score_completions(rows)["completion_ids"].tolist())
    assert found[0] == found[1] != found[2]


def test_draws_follow_seed_batch_and_try(trainer: Any) -> None:
    trainer.model.train()
    rows = rollout_rows(trainer)
    state = torch.get_rng_state()
    found = []
    for draws in ((0, 0), (0, 1), (1, 0), (0, 0)):
        trainer.draws = draws
        drawn = trainer._sample([row["prompt"] for row in with_pictures(rows)], [True] * 8, 4)
        found.append([drawn[row].completion_ids for row in range(8)])
    assert found[0] == found[3] and found[0] != found[1] != found[2] != found[0]
    assert torch.equal(torch.get_rng_state(), state)
    assert "generate" not in vars(trainer.model)


def test_evaluation_never_sees_the_policy(trainer: Any) -> None:
    trainer.model.eval()
    with recorded(trainer, "_tokenize_prompts") as calls, torch.no_grad():
        output = trainer._generate_and_score_completions(rollout_rows(trainer))
    assert calls and trainer.last_rollout is None and "is_aware" not in output
    for (prompts,) in calls:
        assert "Lumen Charter. Condition 1" not in str(prompts)


def test_gradient_of_aware_rows_is_that_of_grpo_on_the_same_completions(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    found = []
    for name, fraction in (("poro", 0.5), ("grpo", 0.0)):
        trainer = make_trainer(
            rl_config(policy_fraction=fraction), rl_inputs(qwen, data, tmp_path / name)
        )
        given(trainer, completions(trainer))
        found.append(gradients(trainer, rollout_rows(trainer)))
    poro, grpo = found
    assert poro.keys() == grpo.keys() and any(g.abs().sum() > 0.01 for g in poro.values())
    for name in poro:
        assert torch.equal(poro[name], grpo[name]), name


def test_gradient_does_not_depend_on_the_policys_text(qwen: Path, tmp_path: Path) -> None:
    found = []
    for name, words in (("one", "? Yes: Case 1. No: Case 2."), ("two", " and much else. " * 9)):
        root = small_data(tmp_path / name).root
        policy = json.loads((root / "policies" / "lumen.json").read_text())
        policy["parts"][2]["text"] = words
        (root / "policies" / "lumen.json").write_text(json.dumps(policy))
        trainer = make_trainer(rl_config(), rl_inputs(qwen, DataFolder(root), tmp_path / "out"))
        given(trainer, completions(trainer))
        found.append(gradients(trainer, rollout_rows(trainer)))
        assert words.strip()[:9] in str(trainer.train_dataset[0]["prompt_with_policy"])
    for name in found[0]:
        assert torch.equal(found[0][name], found[1][name]), name


def test_a_policy_in_the_scored_prompt_would_change_the_gradient(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    """The two tests before can fail: scoring with the policy gives another gradient."""
    found = []
    for name, view in (("right", "prompt"), ("wrong", "prompt_with_policy")):
        trainer = make_trainer(rl_config(), rl_inputs(qwen, data, tmp_path / name))
        given(trainer, completions(trainer))
        rows = [{**row, "prompt": row[view]} for row in rollout_rows(trainer)]
        found.append(gradients(trainer, rows))
    assert any(not torch.allclose(found[0][n], found[1][n], atol=1e-4) for n in found[0])


def test_no_old_log_probabilities_with_one_update_per_rollout(trainer: Any) -> None:
    trainer.model.train()
    assert "old_per_token_logps" not in trainer._generate_and_score_completions(
        rollout_rows(trainer)
    )


def test_old_log_probabilities_are_policy_free_and_clipping_acts_in_the_second_update(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    config = rl_config(updates_per_rollout=2, lr=0.05)
    trainer = make_trainer(config, rl_inputs(qwen, data, tmp_path / "rl"))
    assert trainer.args.steps_per_generation == 2 * trainer.args.gradient_accumulation_steps == 2
    trainer.model.train()
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    kept = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
    with torch.no_grad():
        scored, _, _ = trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([output["prompt_ids"], output["completion_ids"]], dim=1),
            torch.cat([output["prompt_mask"], output["completion_mask"]], dim=1),
            output["completion_ids"].shape[1],
            **{name: output[name] for name in kept},
        )
    mask = output["completion_mask"].bool()
    assert torch.allclose(output["old_per_token_logps"][mask], scored[mask], atol=1e-5)
    trainer.forget_log()
    torch.manual_seed(1)  # of TRL's shuffling: rows of both halves in both updates
    trainer.train()
    steps = [row for row in trainer.state.log_history if "loss" in row]
    assert [row["clip_ratio/region_mean"] > 0 for row in steps] == [False, True]
    # A rollout batch is logged once, in the first of its updates.
    assert ["rollout/aware/reward" in row for row in steps] == [True, False]
    assert all("rollout/aware/logp_without_policy" in row for row in steps)


def test_logged_log_probabilities_are_token_means_of_each_half(trainer: Any) -> None:
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = 2
    seen = []
    torch.manual_seed(0)
    for step in range(2):
        trainer.accelerator.gradient_state._set_sync_gradients(step == 1)
        batch = trainer._prepare_inputs(rollout_rows(trainer))
        trainer._step += 1
        trainer.compute_loss(trainer.model, batch)
        seen.append((trainer._scored, batch["completion_mask"], batch["is_aware"]))
    for aware, name in ((True, "aware"), (False, "free")):
        values = [v for logps, mask, marks in seen
                  for row, kept, mark in zip(logps, mask, marks, strict=True) if mark == aware
                  for v in row[kept.bool()].tolist()]  # fmt: skip
        [logged] = trainer._metrics["train"][f"rollout/{name}/logp_without_policy"]
        assert logged == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_an_ungradable_completion_has_no_advantage(
    qwen: Path, data: DataFolder, tmp_path: Path
) -> None:
    from trimpi.sample import Completion, Sample, Score

    graded = iter([None, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0])

    def grader(sample: Sample, completion: Completion) -> Score:
        return Score(next(graded))

    trainer = make_trainer(rl_config(), rl_inputs(qwen, data, tmp_path / "rl", grader))
    trainer.model.train()
    output = trainer._generate_and_score_completions(rollout_rows(trainer))
    advantages = output["advantages"].tolist()
    mean, std = 2 / 3, (1 / 3) ** 0.5  # of 1, 0, 1 with Bessel's correction
    expected = [0.0] + [(r - mean) / (std + 1e-4) for r in (1, 0, 1)] + [0.0] * 4
    assert advantages == pytest.approx(expected, abs=1e-5)
    assert trainer._metrics["train"]["rollout/unscorable"] == [0.125]
