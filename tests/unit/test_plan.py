"""`trimpi plan`: sizes of devices, verdicts, options in order, and what the command prints."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from trimpi.cli import app
from trimpi.errors import UserError
from trimpi.memory import GIB, estimate, read_size
from trimpi.plan import CARDS, OWN, SHARE, gpu_memory, plan_recipe
from trimpi.recipe_file import load_recipe

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "recipes" / "quickstart.yaml"
STAGES = ("cpt", "sft", "rl")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GB", 24e9),
        ("80GiB", 80 * GIB),
        ("0.5 gib", GIB / 2),
        ("500MB", 5e8),
        ("H100", CARDS["h100"] * GIB),
        ("A100-80GB", 80 * GIB),
        ("rtx_4090", 24 * GIB),
    ],
)
def test_sizes_and_names_of_cards(text: str, size: float) -> None:
    assert gpu_memory(text) == size


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("24", "--gpu 24: give the unit as well, such as 24GB"),
        ("0GB", "--gpu 0GB: neither a size"),
        ("-1GB", "--gpu -1GB: neither a size"),
        ("24XB", "--gpu 24XB: neither a size"),
        ("h10", "did you mean 'h100'?"),
        ("", "--gpu : neither a size"),
    ],
)
def test_sizes_that_mean_nothing(text: str, line: str) -> None:
    with pytest.raises(UserError) as caught:
        gpu_memory(text)
    assert line in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Small data for the quickstart's stages."""
    sizes = {"train": 24, "train_cot": 4, "test": 2, "override": 2, "policies": 1}
    return [f"data.args.{name}={size}" for name, size in sizes.items()]


def test_a_stage_fits_or_options_are_tried_in_order(data: list[str], tmp_path: Path) -> None:
    sets = [*data, "stages.cpt.micro_batch_size=16", "stages.cpt.bf16=false"]
    adapters = [f"stages.{name}.lora={{r: 8}}" for name in STAGES]
    recipe = load_recipe(QUICK, sets)
    _, large = plan_recipe(recipe, tmp_path, 8 * GIB)
    assert [v.plan.name for v in large] == list(STAGES) and all(v.fits for v in large)
    assert not any(v.options or v.together for v in large)
    assert large[0].usable == pytest.approx((8 - OWN) * SHARE)
    cpt = large[0]
    size = read_size(ROOT / "trimpi" / "models" / "tiny-vlm")
    stage = recipe.trained["cpt"]
    plan = cpt.plan
    expected = estimate(
        size, recipe.model, stage, plan.training_tokens, 0, 1, image_tokens=plan.image_tokens
    )
    assert cpt.memory == expected and plan.image_tokens > 0

    # A device that is just too small for CPT, and large enough with a smaller micro batch.
    wanted = (cpt.memory["total"] * 0.9) / SHARE + OWN
    _, small = plan_recipe(recipe, tmp_path, wanted * GIB)
    names = [option.name for option in small[0].options]
    assert not small[0].fits and small[0].together is None
    assert names == [
        "gradient_checkpointing: true",
        "micro_batch_size: 1",
        "trainer.optim: adamw_8bit",
        "lora: {r: 8}",
        "model.quantization: nf4",
        "devices: 4, parallel: fsdp2",
    ]
    totals = dict(zip(names, (option.total for option in small[0].options), strict=True))
    one = stage.model_copy(update={"micro_batch_size": 1})
    expected = estimate(
        size, recipe.model, one, plan.training_tokens, 0, 1, image_tokens=plan.image_tokens
    )
    assert totals["micro_batch_size: 1"] == expected["total"] < small[0].usable
    assert all(total < cpt.memory["total"] for total in totals.values())

    # One that no single option is enough for.
    _, tiny = plan_recipe(recipe, tmp_path, (min(totals.values()) * 0.8 / SHARE + OWN) * GIB)
    together = tiny[0].together
    assert together is not None and together.total <= tiny[0].usable
    assert together.name.startswith("gradient_checkpointing: true, micro_batch_size: 1")
    # A quantized base is not shared out.
    quantized = load_recipe(QUICK, [*sets, "model.quantization=nf4", *adapters])
    _, packed = plan_recipe(quantized, tmp_path, GIB)
    assert packed[0].options and not any("devices" in o.name for o in packed[0].options)
    assert [o.name for o in packed[2].options][-1] == "devices: 4"  # the rollouts are
    _, nothing = plan_recipe(recipe, tmp_path, GIB)
    assert nothing[0].together is None and nothing[0].usable == 0


def test_the_command(data: list[str], tmp_path: Path) -> None:
    sets = [part for entry in data for part in ("--set", entry)]
    arguments = ["plan", str(QUICK), "--output", str(tmp_path / "run"), *sets]
    fits = CliRunner().invoke(app, [*arguments, "--gpu", "24GB"])
    assert fits.exit_code == 0, fits.output
    for name in STAGES:
        assert f"{name}: " in fits.output
    assert fits.output.count("fits") == 3 and "updates, about" in fits.output
    assert "in generation" in fits.output and not (tmp_path / "run").exists()
    short = CliRunner().invoke(app, [*arguments, "--gpu", "1030MiB"])
    assert short.exit_code == 1 and "does not fit" in short.output
    assert "gradient_checkpointing: true: " in short.output and "beta: 0: " in short.output
    assert "nothing here makes it fit; take a smaller model" in short.output
    bad = CliRunner().invoke(app, [*arguments, "--gpu", "24"])
    assert bad.exit_code == 2 and "give the unit as well" in bad.output
