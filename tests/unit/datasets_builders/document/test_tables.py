"""Tables in all forms, and every fault of them by file and row."""

import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from datasets_builders.document.findings import Findings
from datasets_builders.document.tables import Table, is_hub_id, read_table
from trimpi.errors import UserError

WANTED = {"id", "query", "answer"}


def read(file: Path, delimiter: str | None = None) -> Table:
    found = Findings()
    table = read_table(str(file), delimiter, WANTED, found)
    assert table is not None and not found.problems
    return table


def faults(file: Path | str, delimiter: str | None = None) -> list[str]:
    found = Findings()
    read_table(str(file), delimiter, WANTED, found)
    return found.problems


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(tmp_path: Path, delimiter: str) -> None:
    file = tmp_path / "a.csv"
    rows = [["id", "query", "answer"], ["1", '"which; of, these|?"', "yes"]]
    file.write_text("\n".join(delimiter.join(row) for row in rows) + "\n\n")
    table = read(file)
    assert table.columns == ("id", "query", "answer")
    assert [(r.where, dict(r.record)) for r in table.rows] == [
        (f"{file}:2", {"id": "1", "query": "which; of, these|?", "answer": "yes"})
    ]


def test_a_record_over_several_lines_is_named_by_its_first(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('id,query,answer\n1,"two\nlines",a\n2,q,b\n')
    assert [row.where.rpartition(":")[2] for row in read(file).rows] == ["2", "4"]


def test_a_wrong_delimiter_is_named_with_the_right_one(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id;query;answer\n1;q;a\n")
    (fault,) = faults(file, ",")
    assert fault == (
        f"{file}:1: read with ',' between fields, the header is 'id;query;answer'; it looks like "
        "';': set delimiter: ';' or leave delimiter out"
    )


def test_all_rows_of_another_width_are_listed(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,query,answer\n1,q,a\n2,q,a,b\n3,q\n")
    first, second = faults(file)
    assert first.startswith(f"{file}:3: 4 fields where the header has 3 (read with ',' between")
    assert second.startswith(f"{file}:4: 2 fields where the header has 3")


def test_an_open_quote_and_double_columns_are_told(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text('id,query,answer,id\n1,"q,a,1\n')
    quote, column = faults(file)
    assert quote.startswith(f"{file}:2: not CSV from here on")
    assert column == f"{file}:1: column 'id' stands twice in the header; rename one"


def test_encodings_are_named_by_line(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    header = "\ufeffid,query,answer\n".encode()
    file.write_bytes(header + "1,café,a\n".encode() + "2,café,a\n3,naïf,b\n".encode("cp1252"))
    first, second = faults(file)
    assert first.startswith(f"{file}:3: not UTF-8: byte 0xE9 at 6 (as Windows-1252 or Latin-1 it")
    assert "'2,café,a'" in first
    assert second.startswith(f"{file}:4: not UTF-8: byte 0xEF at 5")
    file.write_bytes(header + "1,café,a\n".encode())
    assert read(file).columns == ("id", "query", "answer")  # its leading mark is no part of a name


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_wide_encodings_are_refused(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": "1"}\n', encoding=encoding)
    (fault,) = faults(file)
    assert fault.startswith(f"{file}:1: ") and fault.endswith("save the file as UTF-8")


def test_a_mark_between_joined_files_is_told(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"id": "1"}\n\xef\xbb\xbf{"id": "2"}\n')
    assert faults(file)[0].startswith(f"{file}:2: a byte order mark stands inside the file")


def test_json_lines_and_lists(tmp_path: Path) -> None:
    rows = [{"id": "1", "query": "a\u2028b"}, {"id": "2", "answer": 3}]
    lines, whole = tmp_path / "a.jsonl", tmp_path / "a.json"
    lines.write_text("\n\n".join(json.dumps(r, ensure_ascii=False) for r in rows))
    whole.write_text(json.dumps(rows))
    for file, numbers in ((lines, ["1", "3"]), (whole, ["1", "2"])):
        table = read(file)
        assert [dict(row.record) for row in table.rows] == rows
        assert [row.where.rpartition(":")[2] for row in table.rows] == numbers
        assert table.columns == ("id", "query", "answer")


def test_faults_of_json(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"id": 1}\n{"id": 2\n[3]\n')
    first, second = faults(file)
    assert first.startswith(f"{file}:2: not JSON (") and "one JSON object a line" in first
    assert second.startswith(f"{file}:3: must be a JSON object, found list")
    file = tmp_path / "a.json"
    file.write_text('{"id": 1}\n{"id": 2}\n')
    assert faults(file)[0].endswith("name a file of one object a line .jsonl")


def test_a_key_that_stands_in_a_row_twice(tmp_path: Path) -> None:
    rows = '{"query": "a", "query": "b"}'
    (tmp_path / "a.jsonl").write_text(rows + "\n")
    (tmp_path / "a.json").write_text(f"[{rows}]")
    for name in ("a.jsonl:1", "a.json"):
        (told,) = faults(tmp_path / name.removesuffix(":1"))
        assert told.startswith(f"{tmp_path / name}: not JSON (key 'query' stands there twice)")


def test_a_file_that_is_not_there_or_of_another_kind(tmp_path: Path) -> None:
    assert faults(tmp_path / "no.csv") == [
        f"{tmp_path / 'no.csv'}: no such file or folder; check the path"
    ]
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert "unknown kind of table; known: .jsonl" in faults(tmp_path / "a.xlsx")[0]
    assert "no data set saved by datasets' save_to_disk" in faults(tmp_path)[0]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    assert "not a whole Parquet file" in faults(tmp_path / "a.parquet")[0]


def test_hub_ids_are_told_from_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_hub_id("owner/name") and is_hub_id("owner/name@v1.0")
    assert not is_hub_id("data/a.jsonl") and not is_hub_id("a/b/c") and not is_hub_id("name")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert not is_hub_id("owner/name")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    (fault,) = faults("owner/other")
    assert fault.startswith("owner/other: is no file here, and the hub does not give a data set")


def arrow() -> datasets.Dataset:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "several": datasets.List(datasets.Image()),
            "answer": datasets.ClassLabel(names=["no", "yes"]),
        }
    )
    red, blue = (Image.new("RGB", (4, 4), color) for color in ("red", "blue"))
    rows = {"image": [red, blue], "several": [[red, blue], []], "answer": [1, 0]}
    return datasets.Dataset.from_dict(rows, features=features)


def test_data_sets_keep_pictures_encoded_and_name_labels(tmp_path: Path) -> None:
    data = arrow()
    data.save_to_disk(tmp_path / "saved")
    data.to_parquet(tmp_path / "a.parquet")
    before = sorted((tmp_path / "saved").iterdir())
    for source in (tmp_path / "saved", tmp_path / "a.parquet"):
        table = read(source)
        assert table.columns == ("image", "several", "answer")
        assert [row.record["answer"] for row in table.rows] == ["yes", "no"]
        assert table.rows[0].record["image"].read()["bytes"].startswith(b"\x89PNG")
        assert len(table.rows[0].record["several"].read()) == 2
        assert table.rows[1].where == f"{source}:2"
    assert sorted((tmp_path / "saved").iterdir()) == before  # nothing is cached beside it


def test_splits_of_a_data_set_are_kept(tmp_path: Path) -> None:
    parts = datasets.DatasetDict({"train": arrow(), "test": arrow().select([0])})
    parts.save_to_disk(tmp_path / "saved")
    table = read(tmp_path / "saved")
    assert dict(table.splits) == {0: "train", 1: "train", 2: "test"}
    assert table.rows[2].where == f"{tmp_path / 'saved'}[test]:1"


def test_fifty_problems_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("x\n" * 60)
    found = Findings()
    read_table(str(file), None, WANTED, found)
    with pytest.raises(UserError) as error:
        found.stop_if_faulty()
    lines = str(error.value).splitlines()
    assert len(lines) == 51 and lines[-1] == "... and 10 more problems"
