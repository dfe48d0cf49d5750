"""Nouns on disk: round trips, digests, and one clear line for each fault."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from trimpi.errors import UserError
from trimpi.policy import ImagePart, Policy, TextPart, inside
from trimpi.sample import DataFolder, Sample


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name, color in (("a.png", "red"), ("b.png", "blue")):
        Image.new("RGB", (8, 6), color).save(tmp_path / "images" / name)
    (tmp_path / "policies").mkdir()
    policy = Policy(
        "Zed", (TextPart("Do "), ImagePart(str(tmp_path / "images" / "a.png"))), {"k": 1}
    )
    (tmp_path / "policies" / "zed.json").write_text(json.dumps(policy.to_json(tmp_path)))
    (tmp_path / "card.json").write_text("{}")
    return tmp_path


def rows(folder: Path, *records: object) -> DataFolder:
    lines = [r if isinstance(r, str) else json.dumps(r) for r in records]
    (folder / "test.jsonl").write_text("".join(line + "\n" for line in lines))
    return DataFolder(folder)


ROW = {"id": "1", "images": ["images/b.png"], "query": "q", "policy": "zed", "answer": "Case 1"}


def test_round_trips(folder: Path) -> None:
    data = rows(folder, ROW)
    sample = data.read("test")[0]
    assert Sample.from_json(sample.to_json(folder), folder, "x") == sample
    policy = data.policy_of(sample)
    assert policy is not None and policy.text == "Do " and policy.metadata == {"k": 1}
    (folder / "p.md").write_text(policy.to_markdown(folder))
    again = Policy.from_markdown(folder / "p.md")
    assert (again.name, again.parts) == (policy.name, policy.parts)


def test_digest_follows_content_not_paths(folder: Path) -> None:
    def digest(text: str, image: str) -> str:
        return Policy("Zed", (TextPart(text), ImagePart(str(folder / "images" / image)))).digest()

    before = digest("Do ", "a.png")
    assert digest("Do ", "b.png") != before and digest("Do", "a.png") != before
    shutil.copy(folder / "images" / "a.png", folder / "images" / "b.png")
    assert digest("Do ", "b.png") == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": ["images/b.png"]}, "unknown field 'image'; did you mean 'images'"),
        ({"images": "images/b.png"}, "field 'images' must be a list"),
        ({"images": ["../up.png"]}, "leaves its folder"),
        ({"images": ["images/none.png"]}, "not found"),
        ({"policy": "zet"}, "unknown policy 'zet'; did you mean 'zed'"),
        ({"answer": 3}, "field 'answer' must be a string, found 3"),
        ({"facts": []}, "field 'facts' must be an object"),
    ],
)
def test_bad_rows_name_file_row_and_cure(folder: Path, change: dict, message: str) -> None:
    data = rows(folder, ROW, ROW | {"id": "2"} | change)
    with pytest.raises(UserError) as caught:
        data.read("test")
    assert "test.jsonl:2" in str(caught.value) and message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_all_problems_at_once(folder: Path) -> None:
    data = rows(folder, ROW | {"answer": 1}, ROW, ROW, "{broken")
    with pytest.raises(UserError) as caught:
        data.read("test")
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0].rsplit(":", 1)[1] for line in lines] == ["1", "3", "4"]
    assert "appears twice" in lines[1] and "not JSON" in lines[2]


def test_empty_missing_and_unfinished(folder: Path) -> None:
    with pytest.raises(UserError, match="split is empty"):
        rows(folder).read("test")
    with pytest.raises(UserError, match="no such split; splits here: test"):
        DataFolder(folder).read("train")
    (folder / "card.json").unlink()
    with pytest.raises(UserError, match="not a whole data set"):
        _ = DataFolder(folder).card


def test_a_row_may_hold_any_line_separator_of_unicode(folder: Path) -> None:
    query = "one\u2028two\x85three"
    row = {"id": "s", "query": query, "answer": "a", "policy": None}
    (folder / "test.jsonl").write_text(json.dumps(row, ensure_ascii=False) + "\n", "utf-8")
    assert [sample.query for sample in DataFolder(folder).read("test")] == [query]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", r"test\.jsonl: not UTF-8 text"),
        (b"[" * 100_000 + b"\n", r"test\.jsonl:1: not JSON \(nested too deep\)"),
        (
            b'{"id": ' + b"9" * 5_000 + b"}\n",
            r"test\.jsonl:1: not JSON \(Exceeds the limit \(4300 digits\)[^;]*\); correct the row",
        ),
        (b"[1]\nnull\n", r"test\.jsonl:2: a row must be a JSON object"),
    ],
)
def test_splits_that_are_none(folder: Path, content: bytes, message: str) -> None:
    (folder / "test.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=message):
        DataFolder(folder).read("test")


@pytest.mark.parametrize("content", [b"[1]", b"3", b"\xff", b"{", b"[" * 100_000])
def test_cards_and_policies_that_are_none(folder: Path, content: bytes) -> None:
    for name in ("card.json", "policies/zz.json"):
        (folder / name).write_bytes(content)
    with pytest.raises(UserError, match=r"card\.json: (not JSON|must hold a JSON object)"):
        _ = DataFolder(folder).card
    with pytest.raises(UserError, match=r"zz\.json: (not JSON|must hold a JSON object)"):
        _ = DataFolder(folder).policies


@pytest.mark.parametrize("name", ["a\0b.png", "x" * 5000])
def test_names_that_no_file_can_have(folder: Path, name: str) -> None:
    with pytest.raises(UserError, match="is no path of a file"):
        inside(folder, name, "here")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ([], "must hold a JSON object"),
        ({"name": "Z", "parts": [{"text": "x"}], "metadata": {"cases": 3}}, "metadata.cases"),
        ({"parts": [{"text": "x"}]}, "key 'name'"),
        ({"name": "Z", "parts": []}, "key 'parts'"),
        ({"name": "Z", "parts": [{"txt": "x"}]}, r"parts\[0\]"),
        ({"name": "Z", "parts": [{"image": "images/none.png"}]}, "not found"),
    ],
)
def test_bad_policies(folder: Path, record: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Policy.from_json(record, folder, "p.json")


def test_markdown_without_a_name(tmp_path: Path) -> None:
    (tmp_path / "p.md").write_text("just text")
    with pytest.raises(UserError, match="front matter"):
        Policy.from_markdown(tmp_path / "p.md")
