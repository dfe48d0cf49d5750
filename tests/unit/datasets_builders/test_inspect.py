"""`trimpi data show`: counts, lengths, balance, contact sheet."""

from pathlib import Path

import pytest
from PIL import Image

from datasets_builders.clevr.builder import build
from datasets_builders.inspect import Lengths, contact_sheet, default_split, overview
from trimpi.errors import UserError
from trimpi.sample import DataFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return build(
        tmp_path_factory.mktemp("inspect") / "data",
        seed=0,
        progress=False,
        depth=2,
        variant="M",
        policies=2,
        train=4,
        train_cot=2,
        test=2,
        override=None,
        profile="tiny",
        workers=1,
    )


def test_counts_and_balance(folder: DataFolder) -> None:
    seen = overview(folder)
    assert seen.splits["train"] == {"rows": 8, "images": 8, "rationales": 0}
    assert seen.splits["train_cot"] == {"rows": 4, "images": 4, "rationales": 4}
    assert seen.balance == folder.card["balance"] and seen.digest == folder.card["digest"]
    # The root decides every row; the rows take the four paths in turn.
    for policy, rules in seen.coverage.items():
        assert set(rules) == set(folder.policies[policy].metadata["conditions"])
        assert rules["1"] == {"training": 6, "test": 2}
        assert sum(rows["training"] for rows in rules.values()) == 12
    # Half of three conditions show a crop.
    assert set(seen.policy_images.values()) == {2}


def test_lengths_are_counted_with_the_tokenizer_given(folder: DataFolder) -> None:
    seen = overview(folder, count=len)
    samples = folder.read("train_cot")
    lengths = [len(sample.rationale or "") for sample in samples]
    assert seen.lengths["train_cot"]["rationale"] == Lengths(
        min(lengths), round(sum(lengths) / 4, 1), max(lengths)
    )
    assert seen.lengths["train_cot"]["answer"] == Lengths(6, 6.0, 6)
    texts = [len(policy.text) for policy in folder.policies.values()]
    assert seen.lengths["test"]["policy"].longest == max(texts)
    assert "rationale" not in seen.lengths["train"]


def test_the_sheet_shows_pictures_and_text(folder: DataFolder, tmp_path: Path) -> None:
    assert default_split(folder) == "train_cot"
    file = contact_sheet(folder, tmp_path / "new" / "sheet.png", number=3)
    with Image.open(file) as sheet:
        assert sheet.width == 3 * 320 + 4 * 14
        first = folder.read("train_cot")[0].images[0]
        with Image.open(first) as picture:
            corner = picture.convert("RGB").getpixel((0, 0))
        assert sheet.convert("RGB").getpixel((14, 14)) == corner
        text = sheet.crop((14, 14 + 216, 334, sheet.height)).convert("L")
        assert min(text.getdata()) < 100 and max(text.getdata()) == 255
    again = contact_sheet(folder, tmp_path / "again.png", number=3)
    assert again.read_bytes() == file.read_bytes()


def test_an_unknown_split_is_an_error(folder: DataFolder, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such split"):
        contact_sheet(folder, tmp_path / "sheet.png", split="valid")
