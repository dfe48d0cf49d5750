"""`trimpi show`: every token of a stage's real input with its label."""

import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.conftest import add_texts, small_data
from trimpi.batch import IGNORED
from trimpi.errors import UserError
from trimpi.model import load_config, load_processor, visual_token_ids
from trimpi.recipe import CptConfig, ModelConfig, Recipe
from trimpi.sample import DataFolder
from trimpi.show import Shown, harmless, print_tokens, show_stage, tokens_of
from trimpi.stages import cpt


@pytest.fixture
def recipe(qwen: Path, tmp_path: Path) -> Recipe:
    folder = small_data(tmp_path / "data").root
    stages = {"cpt": {}, "sft": {}, "rl": {"prompts_per_step": 4, "group_size": 2}}
    return Recipe.model_validate(
        {
            "name": "shown",
            "model": {"path": str(qwen)},
            "data": {"folder": str(folder)},
            "stages": stages,
        }
    )


def shown(recipe: Recipe, tmp_path: Path, stage: str, row: int = 0, styles: bool = True) -> str:
    with (tmp_path / "out").open("w") as file:
        console = Console(record=True, width=160, force_terminal=True, file=file)
        show_stage(recipe, tmp_path / "run", stage, row, console)
    return console.export_text(styles=styles)


def test_every_token_stands_with_its_label(
    qwen: Path, qwen_config: ModelConfig, recipe: Recipe, tmp_path: Path
) -> None:
    processor = load_processor(qwen, qwen_config)
    visual = visual_token_ids(load_config(qwen, qwen_config), processor.tokenizer)
    data = small_data(tmp_path / "again")
    row = data.read("train_cot")[0]
    encoded, _ = cpt.encode(CptConfig(), data, processor, row, visual)
    tokens = tokens_of(processor, encoded, visual)
    ids = [token.token for token in tokens for _ in range(token.times)]
    labels = [token.label for token in tokens for _ in range(token.times)]
    assert ids == encoded.input_ids and labels == encoded.labels
    places = [place for t in tokens for place in range(t.first, t.last + 1)]
    assert places == list(range(len(ids)))
    for token in tokens:
        assert (token.kind == "in the loss") == (token.label != IGNORED)
        assert (token.kind == "visual") == (token.token in visual)
        assert token.times == 1 or token.token in visual


def test_texts_count_on_behind_the_rows(recipe: Recipe, tmp_path: Path) -> None:
    data = add_texts(DataFolder(Path(str(recipe.data.folder))))
    raw = recipe.model_dump(mode="json")
    raw["stages"]["cpt"]["texts"] = "policy_text"
    mixed = Recipe.model_validate(raw)
    text = shown(mixed, tmp_path, "cpt", row=len(data.read("train_cot")) + 2)
    assert "cpt (cpt), policy_text row 2, id text-2" in text
    assert "Yes: Case 1" not in text and "not in the loss" in text
    counted = re.search(r"in the loss: (\d+) of (\d+) tokens", text)
    assert counted is not None and counted[1] == counted[2]
    with pytest.raises(UserError, match=r"train_cot has rows 0 to 7, policy_text rows 8 to 10;"):
        shown(mixed, tmp_path, "cpt", row=11)


def test_cpt_shows_policy_and_text_in_the_loss(recipe: Recipe, tmp_path: Path) -> None:
    text = shown(recipe, tmp_path, "cpt")
    assert "cpt (cpt), train_cot row 0, id train_cot-0" in text
    green, blue = "\x1b[1;32m", "\x1b[34m"
    assert f"{blue}<|image_pad|> x24" in text
    assert f"{green}·object" in text
    assert "policy 28, query 25, images 28" in text


def test_sft_shows_the_completion_alone_in_the_loss(recipe: Recipe, tmp_path: Path) -> None:
    text = shown(recipe, tmp_path, "sft", row=1)
    assert "is there an object like" not in text
    assert "\x1b[1;32m·red" in text and "\x1b[1;32mWhich" not in text
    assert "in the loss: 30 of 131 tokens" in text


def test_plain_grpo_shows_no_policy(recipe: Recipe, tmp_path: Path) -> None:
    stages = {**recipe.stages, "rl": recipe.stages["rl"].model_copy(update={"policy_fraction": 0})}
    plain = recipe.model_copy(update={"stages": stages})
    text = shown(plain, tmp_path, "rl", styles=False)
    assert text.count("in the loss: 0 of ") == 1 and "like <|vision_start|>" not in text


def test_rl_shows_both_prompts(recipe: Recipe, tmp_path: Path) -> None:
    text = shown(recipe, tmp_path, "rl", styles=False)
    assert text.count("in the loss: 0 of ") == 2
    scored, _, other = text.partition("id train-0: 1 of a group generated from")
    assert "like <|vision_start|>" not in scored and "like <|vision_start|>" in other


@pytest.mark.parametrize(
    ("stage", "row", "word"),
    [("stf", 0, "did you mean 'sft'"), ("cpt", 8, "rows 0 to 7")],
)
def test_wrong_names_and_rows(
    recipe: Recipe, tmp_path: Path, stage: str, row: int, word: str
) -> None:
    with pytest.raises(UserError, match=word):
        shown(recipe, tmp_path, stage, row)


def test_a_models_text_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    token = Shown(0, 0, 7, harmless("\x1b[2J\x1b]0;pwn\x07\n"), 7, "in the loss")
    print_tokens(Console(force_terminal=True), "row \x1b[2J", [token])
    out = capsys.readouterr().out
    assert "\\x1b[2J" in out and "\x1b[2J" not in out and "\x1b]0" not in out and "\x07" not in out
