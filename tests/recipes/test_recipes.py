"""Every recipe that ships loads, fits its builder, and dry-runs as far as this machine allows."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimpi.checks import check_recipe
from trimpi.cli import app
from trimpi.findings import Findings
from trimpi.recipe import (
    CptConfig,
    DistillConfig,
    InterpolateConfig,
    OnPolicyDistillConfig,
    Recipe,
    RlConfig,
    RolloutConfig,
    SftConfig,
)
from trimpi.recipe_file import load_recipe

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "recipes").rglob("*.yaml"))
CLEVR = [file for file in FILES if file.parent.name in ("clevr", "baselines")]
GTA = ROOT / "recipes" / "gta" / "qwen2_5_vl_7b.yaml"
BIG = [*CLEVR, GTA]
SHIPPED = {
    "quickstart.yaml",
    "tiny/ablation.yaml",
    "tiny/forgetting.yaml",
    "gta/qwen2_5_vl_7b.yaml",
    "gta/tiny.yaml",
    "policy_text/tiny.yaml",
    *(f"clevr/{v}_n{n}_qwen2_5_vl_{s}.yaml" for v in "tm" for n in (2, 4, 6) for s in ("3b", "7b")),
    *(f"baselines/{name}.yaml" for name in ("in_context", "direct_sft", "cot_sft", "cot_sft_grpo")),
    *(f"baselines/{name}.yaml" for name in ("cpt_cot_sft", "trimpi_no_poro", "trimpi")),
    *(f"baselines/{name}.yaml" for name in ("retrieved", "insert_then_remove", "insert_fading")),
    *(f"baselines/distill_{name}.yaml" for name in ("unfiltered", "filtered")),
    *(f"baselines/{name}.yaml" for name in ("prompt_baking", "opcd")),
    "tiny/baselines.yaml",
    "baselines/poro_dapo.yaml",
    "tiny/rl_ladder.yaml",
    "tiny/rl_ladder_deep.yaml",
    "clevr/best.yaml",
}


def name_of(file: Path) -> str:
    return file.relative_to(ROOT / "recipes").as_posix()


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the hub, and recipes for GPUs are checked where vLLM cannot be installed."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("trimpi.machine_checks.engine_missing", lambda *_: None)


def light_check(recipe: Recipe, run: Path) -> Findings:
    findings = check_recipe(recipe, run, estimates=False)
    findings.stop_if_faulty()
    return findings


def test_all_recipes_are_found() -> None:
    assert {name_of(file) for file in FILES} >= SHIPPED


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_it_loads_and_says_how_to_run_it(file: Path) -> None:
    load_recipe(file)
    header = file.read_text().split("\n\n")[0]
    assert f"trimpi run recipes/{name_of(file)}" in header


@pytest.mark.parametrize("file", BIG, ids=name_of)
def test_big_recipes_fit_data_and_trainer_and_have_estimates(file: Path, tmp_path: Path) -> None:
    recipe = load_recipe(file)
    findings = light_check(recipe, tmp_path / "run")
    assert all("model.path" in line for line in findings.unchecked)
    if file == GTA:
        assert findings.rows["data"] == {"train_cot": 402, "test": 90, "override": 90}
    else:
        trained = {"train": 20000, "train_cot": 2500} if recipe.stages else {}
        assert findings.rows["data"] == {**trained, "test": 2000, "override": 2000}
    updates = {plan.name: plan.schedule.updates for plan in findings.stages}
    header = file.read_text().split("\n\n")[0]
    assert "not measured" in header
    for name, count in updates.items():
        assert f"{name}: {count} updates, about" in header


def test_the_gta_recipe_has_the_numbers_of_the_paper() -> None:
    cpt, sft, rl = load_recipe(GTA).stages.values()
    assert isinstance(cpt, CptConfig) and isinstance(sft, SftConfig) and isinstance(rl, RlConfig)
    assert (cpt.epochs, cpt.lr, cpt.batch_size, cpt.lora) == (5, 1e-5, 64, None)
    assert (sft.epochs, sft.lr, sft.batch_size, sft.target) == (10, 1e-4, 32, "cot")
    assert sft.lora is not None and sft.lora.r == 8
    assert (rl.epochs, rl.lr, rl.prompts_per_step, rl.lora) == (50, 1e-6, 256, None)
    assert (rl.epsilon, rl.epsilon_high, rl.beta, rl.policy_fraction) == (0.2, 0.3, 0.01, 0.5)


@pytest.mark.parametrize("file", CLEVR, ids=name_of)
def test_big_recipes_have_the_numbers_of_the_paper(file: Path) -> None:
    recipe = load_recipe(file)
    for stage in recipe.stages.values():
        if isinstance(stage, CptConfig):
            assert (stage.epochs, stage.lr, stage.batch_size, stage.lora) == (5, 1e-5, 128, None)
        elif isinstance(stage, SftConfig):
            expected = (5, 1e-4, 64) if stage.target == "cot" else (2, 1e-4, 64)
            assert (stage.epochs, stage.lr, stage.batch_size) == expected
            assert stage.lora is not None and stage.lora.r == 8
        elif isinstance(stage, DistillConfig):  # not in the paper: the sizes of its Direct SFT
            assert (stage.epochs, stage.lr, stage.batch_size) == (2, 1e-4, 64)
            assert (stage.rollouts, stage.temperature, stage.max_new_tokens) == (1, 1.0, 512)
        elif isinstance(stage, OnPolicyDistillConfig):  # not in the paper either
            assert (stage.divergence, stage.teacher, stage.group_size) == ("reverse_kl", "start", 1)
            assert stage.lora is not None and stage.max_new_tokens == 512
        else:
            assert isinstance(stage, RlConfig)
            assert (stage.epochs, stage.lr, stage.prompts_per_step) == (2, 1e-6, 384)
            assert stage.lora is None
            if file.stem == "poro_dapo":
                assert (stage.epsilon, stage.epsilon_high, stage.beta) == (0.2, 0.28, 0)
                assert stage.loss_type == "dapo" and stage.dynamic_sampling is not None
                assert stage.dynamic_sampling.max_tries == 20 and stage.overlong is not None
            else:
                assert (stage.epsilon, stage.epsilon_high, stage.beta) == (0.2, 0.3, 0.01)
                assert stage.loss_type == "grpo" and stage.dynamic_sampling is None


def test_file_names_say_what_is_in_them() -> None:
    for file in BIG:
        if file.parent.name == "clevr" and file.stem != "best":
            variant, depth, size = file.stem.split("_")[0], file.stem.split("_")[1], file.stem[-2:]
            recipe = load_recipe(file)
            assert recipe.data.args["variant"] == variant.upper()
            assert f"n{recipe.data.args['depth']}" == depth
            assert recipe.model.path == f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct"


def test_the_best_recipe_is_the_ladders_winner_at_full_size() -> None:
    best = load_recipe(ROOT / "recipes" / "clevr" / "best.yaml").stages
    paper = load_recipe(ROOT / "recipes" / "clevr" / "t_n6_qwen2_5_vl_7b.yaml").stages
    ladder = load_recipe(ROOT / "recipes" / "tiny" / "rl_ladder.yaml").stages["poro_trusted"]
    assert isinstance(best["rl"], RlConfig) and isinstance(ladder, RlConfig)
    differ = {key for key, value in best["rl"] if value != getattr(paper["rl"], key)}
    chosen = {"policy_share", "teacher"}
    assert differ == chosen | {"reliance_every"}  # which is logged alone
    assert all(getattr(best["rl"], key) == getattr(ladder, key) for key in chosen)
    assert {**best, "rl": None} == {**paper, "rl": None}


def test_rollouts_and_updates_are_equal_where_arms_are_compared() -> None:
    ablation = load_recipe(ROOT / "recipes" / "tiny" / "ablation.yaml")
    baselines = [
        load_recipe(f) for f in BIG if f.parent.name == "baselines" and f.stem != "poro_dapo"
    ]
    groups = [
        [s for s in ablation.stages.values() if isinstance(s, RlConfig)],
        [s for r in baselines for s in r.stages.values() if isinstance(s, RlConfig)],
    ]
    for stages in groups:
        assert len(stages) > 1
        assert {s.policy_fraction for s in stages} == {0, 0.5}
        assert (
            len({s.model_copy(update={"policy_fraction": 0}).model_dump_json() for s in stages})
            == 1
        )


@pytest.mark.parametrize(("name", "rungs_there"), [("rl_ladder", 10), ("rl_ladder_deep", 6)])
def test_the_ladder_gives_every_rung_the_same_rollouts(name: str, rungs_there: int) -> None:
    recipe = load_recipe(ROOT / "recipes" / "tiny" / f"{name}.yaml")
    assert len(recipe.all_seeds) == 3
    assert list(recipe.chains) == ["cot_sft", *list(recipe.stages)[1:]]
    assert all(chain[-2:] in (("sft",), ("sft", arm)) for arm, chain in recipe.chains.items())
    rungs = [s for s in recipe.stages.values() if isinstance(s, RolloutConfig)]
    same = ("rollouts", "max_steps", "updates_per_rollout", "max_new_tokens", "validation")
    assert (
        len(rungs) == rungs_there
        and len({tuple(getattr(s, key) for key in same) for s in rungs}) == 1
    )
    rewarded = [s for s in rungs if isinstance(s, RlConfig)]
    assert len({s.lr for s in rewarded}) == 1
    for stage in rewarded:
        if stage.dynamic_sampling is not None:
            groups = stage.max_steps // stage.updates_per_rollout * stage.prompts_per_step
            assert stage.dynamic_sampling.max_groups == groups


def test_the_ablation_has_all_rows_and_three_seeds() -> None:
    recipe = load_recipe(ROOT / "recipes" / "tiny" / "ablation.yaml")
    assert len(recipe.all_seeds) == 3
    kinds = {
        arm: [
            (s.kind, getattr(s, "target", None), bool(getattr(s, "policy_fraction", 0)))
            for s in (recipe.stages[name] for name in chain)
        ]
        for arm, chain in recipe.chains.items()
    }
    cpt, cot = ("cpt", None, False), ("sft", "cot", False)
    grpo, poro = ("rl", None, False), ("rl", None, True)
    assert kinds == {
        "in_context": [],
        "direct_sft": [("sft", "answer", False)],
        "cot_sft": [cot],
        "cpt_cot_sft": [cpt, cot],
        "cot_sft_grpo": [cot, grpo],
        "trimpi_no_poro": [cpt, cot, grpo],
        "trimpi": [cpt, cot, poro],
    }


def test_the_rivals_see_as_many_rows_as_the_stage_that_they_are_compared_with() -> None:
    recipe = load_recipe(ROOT / "recipes" / "tiny" / "baselines.yaml")
    assert len(recipe.all_seeds) == 3
    sft = recipe.stages["sft"]
    for chain in recipe.chains.values():
        for stage in (recipe.stages[name] for name in chain):
            if isinstance(stage, SftConfig | DistillConfig):
                assert (stage.epochs, stage.lr, stage.lora) == (sft.epochs, sft.lr, sft.lora)
    shown = {name: getattr(stage, "show_policy", None) for name, stage in recipe.stages.items()}
    assert (shown["sft"], shown["insert"], shown["fade"]) == (False, True, "fading")
    made = [stage for stage in recipe.stages.values() if isinstance(stage, DistillConfig)]
    assert [(stage.split, stage.filter) for stage in made] == [
        ("train", "none"),
        ("train", "grader"),
    ]
    assert recipe.evaluation.retrieval.sections == 2


def test_the_controls_of_forgetting_differ_from_trimpi_in_one_thing() -> None:
    recipe = load_recipe(ROOT / "recipes" / "tiny" / "forgetting.yaml")
    assert recipe.all_seeds == (0, 1, 2) and recipe.replay is not None
    assert recipe.evaluation.skills is not None
    assert recipe.replay.seed != recipe.evaluation.skills.seed
    plain = {kind: recipe.trained[kind].model_dump() for kind in ("cpt", "sft", "rl")}
    changed = {
        name: {key for key, value in stage.model_dump().items() if value != plain[stage.kind][key]}
        for name, stage in recipe.trained.items()
        if name not in (*plain, "direct")
    }
    assert changed == {
        "cpt_replay": {"replay_ratio"},
        "sft_replay": {"replay_ratio"},
        "rl_base": {"kl_reference", "beta"},
        "rl_solvable": {"instance_filter"},
        "sft_lora": {"lora", "lr"},
    }
    weights = {n: s.weight for n, s in recipe.stages.items() if isinstance(s, InterpolateConfig)}
    assert weights == {"w25": 0.25, "w50": 0.5, "w75": 0.75}
    assert recipe.chains["replay_w75"] == ("cpt_replay", "sft_replay", "rl", "w75")
    assert len(recipe.chains) == 13


@pytest.mark.parametrize(
    "name",
    [
        "quickstart.yaml",
        "tiny/ablation.yaml",
        "tiny/baselines.yaml",
        "tiny/forgetting.yaml",
        "tiny/rl_ladder.yaml",
        "gta/tiny.yaml",
        "policy_text/tiny.yaml",
    ],
)
def test_tiny_recipes_dry_run_through_the_command_line(name: str, tmp_path: Path) -> None:
    words = ["run", str(ROOT / "recipes" / name), "--dry-run", "--output", str(tmp_path / "run")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "nothing wrong found; no weights were loaded" in result.stdout
    assert "per device (weights" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_counts_tokens_of_data_that_are_not_built_yet(tmp_path: Path, qwen: Path) -> None:
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml", [f"model.path={qwen}"])
    findings = check_recipe(recipe, tmp_path / "run")
    assert findings.problems == [] and findings.unchecked == []
    assert set(findings.lengths) == {"train", "train_cot", "test"}
    lengths = findings.lengths["train_cot"]
    assert lengths.full.policy > 100 and lengths.free.policy == 0
    assert lengths.full.images == lengths.free.images > 0
    assert 0.3 < lengths.saved < 1
    plans = {plan.name: plan for plan in findings.stages}
    assert plans["cpt"].training_tokens == lengths.full.total
    assert plans["sft"].training_tokens == lengths.free.total
    train = findings.lengths["train"]
    assert plans["rl"].generation_tokens == train.with_policy + 96
    assert plans["rl"].training_tokens == train.prompt + 96
    assert "reference" in plans["rl"].memory and "reference" not in plans["cpt"].memory
    assert list(tmp_path.iterdir()) == []


def test_quantization_needs_an_adapter_and_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(ROOT / "recipes" / "quickstart.yaml", ["model.quantization=nf4"])
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    problems = check_recipe(recipe, tmp_path / "run", estimates=False).problems
    for name in ("cpt", "sft"):
        line = f"stages.{name}.lora: model.quantization nf4 freezes the weights; give the stage a"
        assert any(problem.startswith(line) for problem in problems)
    assert any("nf4 needs bitsandbytes; pip install" in problem for problem in problems)


def test_a_grader_that_lacks_something_is_found_in_a_dry_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRIMPI_BERTSCORE_MODEL", raising=False)
    recipe = load_recipe(GTA, ["grader=datasets_builders.gta.grader:bertscore"])
    problems = check_recipe(recipe, tmp_path / "run", estimates=False).problems
    assert problems and problems[0].startswith("grader: BERTScore needs a model; set TRIMPI_BERT")
