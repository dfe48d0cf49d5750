"""`trimpi data check`: each kind of damage is found, and all of it in one pass."""

import json
import shutil
from pathlib import Path

import pytest

from datasets_builders.check import check, find_verify
from datasets_builders.clevr.builder import build, verify
from trimpi.errors import UserError


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("check") / "data"
    build(
        out,
        seed=0,
        progress=False,
        depth=1,
        policies=1,
        train=2,
        train_cot=2,
        test=2,
        override=None,
        profile="tiny",
        workers=1,
    )
    return out


@pytest.fixture
def root(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "data"))


def edit(file: Path, number: int, **values: object) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    rows[number].update(values)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_whole_folder_has_no_problem(root: Path) -> None:
    assert check(root) == []


def test_all_kinds_of_damage_are_listed_at_once(root: Path) -> None:
    (root / "images/train/000000.png").write_bytes(b"no picture")
    (root / "images/train/000001.png").unlink()
    (root / "extra.txt").write_text("x")
    edit(root / "test.jsonl", 0, answer="Case 7")
    told = "\n".join(check(root))
    assert "000000.png: content is not that of the card" in told
    assert "000000.png: not a whole picture" in told
    assert "000001.png: file of the card is missing" in told
    assert "train.jsonl:2: file 'images/train/000001.png' not found" in told
    assert "extra.txt: not in the card; remove it" in told
    assert "test.jsonl:1: answer 'Case 7' is not among the 2 cases" in told


def test_a_wrong_answer_is_derived_again(root: Path) -> None:
    rows = [json.loads(line) for line in (root / "test.jsonl").read_text().splitlines()]
    other = {"Case 1": "Case 2", "Case 2": "Case 1"}[rows[1]["answer"]]
    edit(root / "test.jsonl", 1, answer=other)
    assert any(f"test.jsonl:2: answer '{other}', but the tree" in line for line in check(root))


def test_a_picture_in_two_splits_is_found_by_content(root: Path) -> None:
    shutil.copyfile(root / "images/train/000000.png", root / "images/test/000001.png")
    shared = [line for line in check(root) if "is in split" in line]
    assert len(shared) == 1 and "images/train/000000.png" in shared[0]


def test_lost_rows_splits_and_facts_are_found(root: Path) -> None:
    (root / "train_cot.jsonl").unlink()
    first = (root / "train.jsonl").read_text().splitlines()[0]
    (root / "train.jsonl").write_text(first + "\n")
    edit(root / "test.jsonl", 0, facts={})
    told = "\n".join(check(root))
    assert "train_cot.jsonl: split of the card is missing" in told
    assert "train.jsonl: 1 rows, the card says 2" in told
    assert "test.jsonl:1: facts cannot be verified (KeyError: 'scene')" in told


def test_a_path_that_leaves_the_folder_is_found(root: Path) -> None:
    edit(root / "test.jsonl", 0, images=["../../etc/passwd"])
    assert any("test.jsonl:1: path '../../etc/passwd' leaves" in line for line in check(root))


def test_a_folder_without_a_card_is_not_whole(root: Path) -> None:
    (root / "card.json").unlink()
    (line,) = check(root)
    assert "no card.json" in line


def test_the_builder_of_the_card_verifies(root: Path) -> None:
    assert find_verify("datasets_builders.clevr.builder:build") is verify
    assert find_verify("json:loads") is None
    with pytest.raises(UserError, match="cannot be imported"):
        find_verify("no_such_module:build")
