"""Recipes: everything wrong at once, each fault one line with its place; numbers as YAML 1.2."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from trimpi.errors import UserError
from trimpi.recipe import CptConfig, Recipe, RlConfig, SftConfig
from trimpi.recipe_file import dump_recipe, load_recipe, parse_pairs, recipe_schema
from trimpi.schedule import plan_schedule

SMALL = """
name: small
model: {path: models/tiny}
data: {folder: data}
stages:
  cpt: {lr: 1e-6}
  sft:
    epochs: 2
  rl: {prompts_per_step: 6, group_size: 4, updates_per_rollout: 3, micro_batch_size: 4}
"""


def write(folder: Path, text: str = SMALL) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return file


def problems(file: Path, *sets: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        load_recipe(file, sets)
    return str(caught.value).replace(str(file), "F").splitlines()


def test_a_recipe_without_surprises(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    assert list(recipe.stages) == ["cpt", "sft", "rl"]
    assert isinstance(recipe.stages["cpt"], CptConfig)
    assert recipe.stages["cpt"].lr == 1e-6
    assert isinstance(recipe.stages["sft"], SftConfig)
    assert recipe.stages["sft"].lora is not None and recipe.stages["sft"].lora.r == 8
    assert recipe.chains == {"main": ("cpt", "sft", "rl")}
    assert recipe.all_seeds == (0,)


def test_local_paths_become_absolute_and_hub_ids_stay(tmp_path: Path) -> None:
    file = write(tmp_path)
    assert load_recipe(file).data.folder == str(tmp_path / "data")
    assert load_recipe(file).model.path == "models/tiny"  # no such folder: a hub id
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    assert load_recipe(file).model.path == str(tmp_path / "models" / "tiny")
    assert load_recipe(file, ["model.path=./x"]).model.path == str(tmp_path / "x")
    packaged = "package://trimpi/models/tiny-vlm"
    assert load_recipe(file, [f"model.path={packaged}"]).model.path == packaged


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("2E3", 2000.0),
        ("-1.5e+2", -150.0),
        (".5", 0.5),
        ("007", 7),
        ("yes", "yes"),
        ("null", None),
        ("true", True),
        ("1:30", "1:30"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_plain_scalars_of_yaml_1_2(text: str, value: Any) -> None:
    found = parse_pairs([f"a={text}"])["a"]
    assert found == value and type(found) is type(value)


def test_all_problems_at_once_with_their_lines(tmp_path: Path) -> None:
    text = """
name: x
sedes: [1]
model: {path: m, dtyp: auto, trust_remote_code: true}
data: {builder: no colon}
stages:
  cpt:
    epoch: 3
    limit: true
  rll: {lr: 1.0e-6}
  odd: {kind: rr}
  rl: {group_size: 5, format_weight: 2, trainer: {beta: 0.1}}
arms: {a: [cptt, rl]}
evaluation: {settings: [no_polici]}
"""
    assert problems(write(tmp_path, text)) == [
        "F:3: sedes: unknown key 'sedes'; did you mean 'seeds'?",
        "F:4: model.trust_remote_code: should be False, found True",
        "F:4: model.dtyp: unknown key 'dtyp'; did you mean 'dtype'?",
        "F:5: data.builder: should be 'package.module:name', found 'no colon'",
        "F:8: stages.cpt.epoch: unknown key 'epoch'; did you mean 'epochs'?",
        "F:9: stages.cpt.limit: should be a valid integer, found True",
        "F:10: stages.rll: unknown stage 'rll'; did you mean 'rl'? "
        "Any other name needs 'kind: cpt|sft|distill|on_policy_distill|rl|interpolate'",
        "F:11: stages.odd.kind: unknown kind of stage 'rr'; known here: cpt, sft, distill, "
        "on_policy_distill, rl, interpolate",
        "F:12: stages.rl.trainer: 'beta' is set by the stage; use 'beta'",
        "F:13: arms.a.0: unknown stage 'cptt'; did you mean 'cpt'?",
        "F:14: evaluation.settings.0: unknown value 'no_polici'; did you mean 'no_policy'?",
    ]


def test_sizes_that_do_not_fit_are_named_together(tmp_path: Path) -> None:
    found = problems(write(tmp_path), "stages.rl.group_size=5", "stages.rl.format_weight=1.5",
                     "stages.sft.micro_batch_size=7")  # fmt: skip
    assert len(found) == 4
    assert "batch_size 64 is not a multiple of micro_batch_size 7" in found[0]
    assert "an update has 10 completions" in found[1]
    assert "policy_fraction 0.5 of group_size 5 is 2.5 completions" in found[2]
    assert "format_weight 1.5 must be below accuracy_weight 1" in found[3]


def test_overrides_reach_nested_keys_and_lists(tmp_path: Path) -> None:
    text = SMALL + "arms: {a: [cpt], b: [sft, rl]}\n"
    sets = ["stages.rl.lr=2e-6", "stages.sft.lora=null", "arms.b.0=cpt", "report.title=A title",
            "evaluation.settings=[no_policy]"]  # fmt: skip
    recipe = load_recipe(write(tmp_path, text), sets)
    assert recipe.stages["rl"].lr == 2e-6
    assert recipe.stages["sft"].lora is None
    assert recipe.chains["b"] == ("cpt", "rl")
    assert recipe.report.title == "A title"
    assert recipe.evaluation.settings == ("no_policy",)


def test_faults_of_overrides_name_the_override(tmp_path: Path) -> None:
    found = problems(write(tmp_path), "stages.rl.lrr=1", "nokey", "seed.a=3", "seed=-1")
    assert "--set nokey: must be dotted.key=value, e.g. stages.rl.lr=2e-6" in found
    assert any(f.startswith("--set: stages.rl.lrr: unknown key 'lrr'; did you mean") for f in found)
    assert any(f.startswith("--set: seed: should be greater than or equal to 0") for f in found)
    list_of = SMALL + "arms: {a: [cpt]}\n"
    found = problems(write(tmp_path, list_of), "arms.a.1=sft", "name.x=1")
    assert found == [
        "--set arms.a.1: arms.a is a list of 1; '1' is not an index of it",
        "--set name.x: name is 'small', it has no keys",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\na: 2\n", "F:2: a: key given twice; keep one"),
        ("a: [1\n", "F:2: not YAML (while parsing a flow sequence"),
        ("- 1\n", "F: a recipe is a mapping"),
        ("", "F: a recipe is a mapping"),
        ("a: !!python/object/apply:os.system [ls]\n", "F:1: not YAML (could not determine"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, expected: str) -> None:
    (only,) = problems(write(tmp_path, text))
    assert only.startswith(expected)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=4294967296", "seed: should be less than 4294967296"),
        ("seeds=5", "seeds: should be a list, found 5"),
        ("arms=3", "arms: should be a mapping, found 3"),
        ("name=..", "name: should begin with a letter or digit"),
        ("name=a b", "name: should begin with a letter or digit"),
        ("launcher='echo \"x'", "is no command (No closing quotation); correct or drop it"),
        ("stages.sft.freeze_vision=1", "stages.sft.freeze_vision: should be a valid boolean"),
        ("stages.sft.freeze_vision=yes", "stages.sft.freeze_vision: should be a valid boolean"),
        ("stages.sft.lr=.inf", "stages.sft.lr: should be a finite number"),
        ("stages.sft.kind=cpt", "stages.sft.kind: a stage named 'sft' is of that kind, not 'cpt'"),
        ("grader=a-b:c", "grader: should be 'package.module:name'"),
        ("model.path=''", "model.path: should have at least 1 character"),
        ("name=a\x01b", "--set name: not YAML (unacceptable character"),
        ("name=!!timestamp x", "--set name: not YAML"),
        ("arms=&a [*a]", "--set arms: not YAML"),
        ("arms=[", "--set arms: not YAML (while parsing"),
    ],
)
def test_values_that_are_none(tmp_path: Path, override: str, expected: str) -> None:
    found = problems(write(tmp_path), override)
    assert any(expected in line for line in found), found


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe file"):
        load_recipe(tmp_path / "none.yaml")


def test_arms_of_one_chain_must_ask_for_one_format(tmp_path: Path) -> None:
    text = SMALL + "arms: {a: [sft], b: [sft]}\nevaluation: {targets: {a: answer}}\n"
    (only,) = problems(write(tmp_path, text))
    assert "same stages as arm 'a', so it needs the same target" in only


def test_a_recipe_is_frozen() -> None:
    config = RlConfig()
    with pytest.raises(ValidationError):
        config.lr = 1.0  # type: ignore[misc]


def test_what_is_written_reads_back_the_same(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path))
    again = write(tmp_path, dump_recipe(recipe))
    assert load_recipe(again) == recipe


def test_every_default_of_the_paper() -> None:
    cpt, sft, rl = CptConfig(), SftConfig(), RlConfig()
    assert (cpt.epochs, cpt.lr, cpt.batch_size, cpt.lora) == (5, 1e-5, 128, None)
    assert (sft.epochs, sft.lr, sft.batch_size) == (5, 1e-4, 64)
    assert sft.lora is not None and sft.lora.r == 8
    assert (rl.epochs, rl.lr, rl.prompts_per_step) == (2, 1e-6, 384)
    assert (rl.epsilon, rl.epsilon_high, rl.beta, rl.lora) == (0.2, 0.3, 0.01, None)


def test_the_schema_is_json_and_knows_stages_by_name() -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    assert schema["additionalProperties"] is False
    stages = schema["properties"]["stages"]
    assert stages["properties"]["rl"] == {"$ref": "#/$defs/RlConfig"}
    assert "policy_fraction" in schema["$defs"]["RlConfig"]["properties"]
    described = schema["$defs"]["RlConfig"]["properties"]["policy_fraction"]["description"]
    assert "plain GRPO" in described


def test_import_needs_no_torch(run_python: Any) -> None:
    code = (
        "import sys, trimpi.recipe_file, trimpi.runs, trimpi.resolve; print('torch' in sys.modules)"
    )
    assert run_python(code) == "False"


@pytest.mark.parametrize(
    ("config", "rows", "devices", "updates", "accumulation"),
    [
        (CptConfig(batch_size=8, micro_batch_size=2, epochs=3), 20, 2, 9, 2),
        (CptConfig(batch_size=8, micro_batch_size=2, epochs=3, limit=8), 20, 1, 3, 4),
        (CptConfig(batch_size=8, epochs=3, max_steps=5), 20, 1, 5, 8),
        (RlConfig(micro_batch_size=4), 20000, 8, 104, 192),
        (RlConfig(updates_per_rollout=3, micro_batch_size=4), 20000, 8, 312, 64),
    ],
)
def test_updates_follow_from_the_sizes(
    config: Any, rows: int, devices: int, updates: int, accumulation: int
) -> None:
    schedule = plan_schedule(config, rows, devices)
    assert (schedule.updates, schedule.accumulation) == (updates, accumulation)
    assert f"= {updates} updates of {config.batch_size} " in schedule.arithmetic


def test_texts_are_counted_with_the_rows() -> None:
    config = CptConfig(batch_size=8, micro_batch_size=2, epochs=2, texts="policy_text")
    schedule = plan_schedule(config, 402, 1, texts=300)
    assert (schedule.rows, schedule.updates) == (402, 2 * 88)  # 702 rows in updates of 8
    assert schedule.arithmetic.startswith("(402 rows + 300 texts) x 2 epochs = 176 updates")
    often = config.model_copy(update={"texts_epochs": 3, "limit": 100})
    schedule = plan_schedule(often, 402, 1, texts=300)
    assert schedule.arithmetic.startswith("(100 rows + 300 texts x 3) x 2 epochs = 250 updates")


def test_texts_must_be_another_split_and_be_named() -> None:
    with pytest.raises(ValueError, match="texts 'train_cot' is the stage's own split"):
        CptConfig(texts="train_cot")
    with pytest.raises(ValueError, match="texts_epochs belongs to 'texts'"):
        CptConfig(texts_epochs=2)
    with pytest.raises(ValueError, match="texts_epochs"):
        CptConfig(texts="policy_text", texts_epochs=0)


def test_sizes_that_no_schedule_fits() -> None:
    with pytest.raises(UserError, match="not a multiple of micro_batch_size 2 x 3 devices"):
        plan_schedule(CptConfig(batch_size=8, micro_batch_size=2), 20, 3)
    with pytest.raises(UserError, match="5 rows are fewer than prompts_per_step 384"):
        plan_schedule(RlConfig(), 5, 1)


def test_the_resolved_recipe_is_plain_yaml(tmp_path: Path) -> None:
    text = dump_recipe(load_recipe(write(tmp_path)))
    assert yaml.safe_load(text)["stages"]["rl"]["policy_fraction"] == 0.5
    assert isinstance(Recipe.model_validate(yaml.safe_load(text)), Recipe)
