"""Run folders: whole or absent, done only for the very same content."""

import json
from pathlib import Path

import pytest

from trimpi.errors import UserError
from trimpi.runs import (
    begin,
    differences,
    digest,
    eval_folder,
    finish,
    model_digest,
    read_json,
    read_metrics,
    stage_folder,
    versions,
    write_json,
)


def test_folders_are_named_by_the_chain(tmp_path: Path) -> None:
    assert stage_folder(tmp_path, 3, ["cpt", "sft"]) == tmp_path / "seed-3" / "cpt+sft"
    assert eval_folder(tmp_path, 3, []) == tmp_path / "seed-3" / "eval" / "base"


def test_a_step_is_done_for_its_own_content_alone(tmp_path: Path) -> None:
    folder, identity = tmp_path / "s", {"lr": 1.0, "seed": 0}
    assert begin(folder, identity) is False
    assert begin(folder, identity) is False  # begun, not finished: resumes
    finish(folder, identity, {"seconds": 1})
    assert begin(folder, identity) is True
    assert read_json(folder / "done.json")["seconds"] == 1


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    begin(folder, {"stages": {"lr": 1.0}, "seed": 0})
    with pytest.raises(UserError, match=r"stages\.lr: 1\.0 -> 2\.0"):
        begin(folder, {"stages": {"lr": 2.0}, "seed": 0})


def test_overwriting_keeps_the_old_folder_aside(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    for lr in (1, 2, 3):
        begin(folder, {"lr": lr}, overwrite=True)
        (folder / f"weights-{lr}").touch()
    assert (tmp_path / "s.old-1" / "weights-1").exists()
    assert (tmp_path / "s.old-2" / "weights-2").exists()
    assert sorted(p.name for p in folder.iterdir()) == ["started.json", "weights-3"]


def test_a_folder_whose_first_write_was_cut_off_is_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / ".started.json.17.part").write_text('{"lr"')
    assert begin(folder, {"lr": 1}) is False
    assert (folder / "started.json").is_file()


def test_a_half_written_marker_is_no_marker(tmp_path: Path) -> None:
    folder, identity = tmp_path / "s", {"lr": 1}
    begin(folder, identity)
    finish(folder, identity, {})
    text = (folder / "done.json").read_text()
    (folder / "done.json").write_text(text[: len(text) // 2])
    assert begin(folder, identity) is False


def test_a_folder_of_unknown_origin_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "precious").touch()
    with pytest.raises(UserError, match="made with other settings"):
        begin(tmp_path / "s", {"lr": 1})


def test_digests_follow_content_and_nothing_else(tmp_path: Path) -> None:
    assert digest({"a": 1, "b": [2.5, None]}) == digest({"b": [2.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    model = tmp_path / "m"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"12345")
    before = model_digest(model)
    (model / "lineage.json").write_text("{}")
    assert model_digest(model) == before
    (model / "model.safetensors").write_bytes(b"12346")
    assert model_digest(model) != before
    with pytest.raises(UserError, match="no such model folder"):
        model_digest(tmp_path / "none")


def test_json_is_whole_or_absent(tmp_path: Path) -> None:
    file = tmp_path / "a" / "b.json"
    write_json(file, {"ä": 1})
    assert read_json(file) == {"ä": 1}
    assert [p.name for p in file.parent.iterdir()] == ["b.json"]
    with pytest.raises(TypeError):
        write_json(file, {"x": object()})
    assert read_json(file) == {"ä": 1}
    assert read_json(tmp_path / "none.json") is None


def test_metrics_survive_a_kill(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_metrics(tmp_path) == [{"step": 1}, {"step": 2}]
    file.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:2: not JSON"):
        read_metrics(tmp_path)


def test_differences_are_short() -> None:
    before = {"a": {"b": 1, "c": [1]}, "d": "x" * 100, "e": 1, "f": 2}
    after = {"a": {"b": 2, "c": [1]}, "d": "y" * 100, "e": 2, "f": 3}
    text = differences(before, after)
    assert text == "a.b: 1 -> 2, d: xxxxxxxxxxxx... -> yyyyyyyyyyyy..., e: 1 -> 2 and 1 more"


def test_versions_name_what_matters() -> None:
    found = versions()
    assert found["trl"] and found["torch"] and found["python"]
    assert json.dumps(found)
