"""`trimpi data check`: each kind of damage is found, and all of it in one pass."""

import json
import shutil
from pathlib import Path

import pytest

from datasets_builders.check import Checks, check, find_checks
from datasets_builders.clevr.builder import build, gold_rationale, verify
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


def test_a_rationale_that_is_not_the_gold_walk_is_found(root: Path) -> None:
    edit(root / "train_cot.jsonl", 1, rationale="Condition 1: bogus.")
    assert any("train_cot.jsonl:2: rationale is not the gold walk" in line for line in check(root))
    card = json.loads((root / "card.json").read_text())
    (root / "card.json").write_text(json.dumps({**card, "cot": "forward, filtered by the grader"}))
    assert not any("gold walk" in line for line in check(root))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"[1]", "must hold a JSON object"),
        (b"3", "must hold a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b'{"files": [], "splits": 3}', "key 'files' must be a JSON object"),
    ],
)
def test_a_card_that_is_none(root: Path, content: bytes, line: str) -> None:
    (root / "card.json").write_bytes(content)
    found = check(root)
    assert found and line in found[0] and str(root / "card.json") in found[0]


def test_faulty_policies_are_all_named_beside_the_files(root: Path) -> None:
    (file,) = (root / "policies").glob("*.json")
    file.write_bytes(b"\xff")
    (root / "policies" / "second.json").write_text("[]")
    told = "\n".join(check(root))
    assert f"{file}: not JSON" in told and "second.json: must hold a JSON object" in told
    assert "second.json: not in the card" in told


def test_a_picture_of_too_many_pixels_is_a_problem(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    assert any("not a whole picture" in line for line in check(root))


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
    found = find_checks("datasets_builders.clevr.builder:build")
    assert (found.verify, found.rationale) == (verify, gold_rationale)
    assert find_checks("json:loads") == find_checks("") == Checks()
    with pytest.raises(UserError, match="cannot be imported"):
        find_checks("no_such_module:build")
