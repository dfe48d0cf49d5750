"""Writing a data folder: whole or absent, hashed, with gold answers that their grader accepts."""

import json
from pathlib import Path

import pytest

from datasets_builders.base import (
    answer_balance,
    check_gold,
    seal,
    staged,
    write_policies,
    write_split,
)
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.policy import Policy, TextPart
from trimpi.sample import Completion, DataFolder, Sample, Score

POLICY = Policy("Vlomar", (TextPart("Be kind."),), {"cases": ["Case 1", "Case 2", "Case 3"]})


def rows(answers: list[str]) -> list[Sample]:
    return [
        Sample(f"test-{number}", (), "What does Vlomar say?", "vlomar", answer)
        for number, answer in enumerate(answers)
    ]


def make(out: Path, answers: list[str]) -> DataFolder:
    with staged(out, {"seed": 1}) as root:
        write_policies(root, {"vlomar": POLICY})
        write_split(root, "test", rows(answers))
        seal(root, builder="some.module:build", args={"n": 3}, seed=1, about="About it.")
    return DataFolder(out)


def test_a_written_folder_reads_back_with_counts_balance_and_hashes(tmp_path: Path) -> None:
    folder = make(tmp_path / "data", ["Case 1", "Case 1", "Case 2"])
    assert [sample.answer for sample in folder.read("test")] == ["Case 1", "Case 1", "Case 2"]
    assert folder.policies["vlomar"] == POLICY
    assert folder.card["splits"] == {"test": 3}
    assert folder.card["balance"]["test"]["vlomar"]["majority_share"] == 0.6667
    assert set(folder.card["files"]) == {"README.md", "policies/vlomar.json", "test.jsonl"}
    assert "| test | 1 | 3 | 3 |" in (folder.root / "README.md").read_text()


def test_equal_content_has_an_equal_digest_and_other_content_another(tmp_path: Path) -> None:
    one, two = make(tmp_path / "a", ["Case 1"]), make(tmp_path / "b", ["Case 1"])
    other = make(tmp_path / "c", ["Case 2"])
    assert (one.root / "card.json").read_bytes() == (two.root / "card.json").read_bytes()
    assert one.card["digest"] != other.card["digest"]


def test_a_failed_build_leaves_nothing_and_an_interrupted_one_no_folder(tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(UserError, match="empty"), staged(out, {}) as root:
        write_split(root, "test", [])
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt), staged(out, {}) as root:
        (root / "picture").write_text("drawn")
        raise KeyboardInterrupt
    assert not out.exists()


def test_an_interrupted_build_goes_on_only_with_the_same_identity(tmp_path: Path) -> None:
    out = tmp_path / "data"
    with pytest.raises(KeyboardInterrupt), staged(out, {"seed": 1}) as root:
        (root / "picture").write_text("drawn")
        raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt), staged(out, {"seed": 1}) as root:
        assert (root / "picture").read_text() == "drawn"
        raise KeyboardInterrupt
    with staged(out, {"seed": 2}) as root:
        assert not (root / "picture").exists()


def test_two_builds_of_one_folder_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "data"
    with staged(out, {"seed": 1}) as root:
        write_policies(root, {"vlomar": POLICY})
        write_split(root, "test", rows(["Case 1"]))
        with pytest.raises(UserError, match="another build works there"), staged(out, {"seed": 2}):
            pass
        assert (root / "test.jsonl").is_file()
        seal(root, builder="some.module:build", args={}, seed=1, about="About it.")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_pictures_outlive_an_error_after_they_are_drawn(tmp_path: Path) -> None:
    for drawn in (True, False):
        with pytest.raises(UserError), staged(tmp_path / "data", {"seed": 1}) as root:
            if drawn:
                (root / "images").mkdir()
                (root / "images" / "0.png").write_bytes(b"x")
            assert (root / "images" / "0.png").is_file()
            raise UserError("the model gave nothing")
    assert [path.name for path in tmp_path.iterdir()] == [".data.partial"]


def test_a_folder_in_use_is_not_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "data", ["Case 1"])
    with pytest.raises(UserError, match="a data set is there already"):
        make(tmp_path / "data", ["Case 2"])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(UserError, match="something else is there already"):
        make(tmp_path / "notes", ["Case 2"])
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"


def test_gold_answers_must_pass_their_own_grader() -> None:
    with pytest.raises(UserError, match=r"test-0: gold answer 'Case 1' scores 0.0 .*no boxed"):
        check_gold(
            rows(["Case 1"]), lambda s, c: exact_answer(s, Completion(s.id, "Case 1")), lambda s: ()
        )
    check_gold(rows(["Case 1"]), exact_answer, lambda sample: ["Case 2", "Case 11"])


def test_a_forgiving_grader_stops_the_build() -> None:
    def prefix(sample: Sample, completion: Completion) -> Score:
        return Score(float(f"{{{sample.answer}" in completion.text))

    with pytest.raises(UserError, match=r"test-0: wrong answer 'Case 11' scores 1.0"):
        check_gold(rows(["Case 1"]), prefix, lambda sample: ["Case 2", "Case 11"])


def test_balance_counts_the_cases_of_the_policy_not_those_seen() -> None:
    samples = rows(["Case 1"] * 5 + ["Case 2"])
    entry = answer_balance(samples, {"vlomar": POLICY})["vlomar"]
    assert (entry["rows"], entry["responses"], entry["majority"]) == (6, 3, "Case 1")
    assert entry["majority_share"] == 0.8333 and entry["ratio"] == 2.5 and not entry["balanced"]
    even = answer_balance(rows(["Case 1", "Case 2"] * 2), {"vlomar": POLICY})["vlomar"]
    assert even["ratio"] == 1.5 and even["balanced"]


def test_the_card_is_json_without_a_date(tmp_path: Path) -> None:
    card = json.loads((make(tmp_path / "data", ["Case 1"]).root / "card.json").read_text())
    assert list(card)[-1] == "files" and not {"date", "time", "created"} & set(card)
