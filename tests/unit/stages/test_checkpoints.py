"""Whole and damaged checkpoints, and how many of them are kept."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from trimpi.recipe import RlConfig, SftConfig
from trimpi.stages.checkpoints import UNFINISHED, CheckpointMarker, mark_whole, resume_point

FILES = ("model.safetensors", "optimizer.pt", "trainer_state.json")


def saved(output: Path, step: int, whole: bool = True) -> Path:
    folder = output / "checkpoints" / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(b"0123456789")
    if whole:
        mark_whole(folder)
    return folder


@pytest.mark.parametrize("name", FILES)
def test_a_truncated_newest_checkpoint_gives_way_to_the_one_before(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, newest = saved(tmp_path, 9), saved(tmp_path, 10)
    with (newest / name).open("r+b") as stream:
        stream.truncate(4)
    assert resume_point(tmp_path) == before
    assert capsys.readouterr().out == (
        f"warning: {newest}: damaged, {name} has 4 of 10 bytes; removed, goes on from "
        "checkpoint-9\n"
    )
    assert not newest.exists()
    (before / name).unlink()
    assert resume_point(tmp_path) is None
    said = capsys.readouterr().out
    assert f"{before}: damaged, {name} is missing; removed, no whole one is left" in said


def test_a_checkpoint_whose_writing_was_cut_off_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, cut = saved(tmp_path, 2), saved(tmp_path, 4, whole=False)
    assert resume_point(tmp_path) == before
    assert f"warning: {cut}: not whole, its writing was cut off;" in capsys.readouterr().out


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_one_before_outlives_the_writing_of_the_next(keep: int, tmp_path: Path) -> None:
    marker = CheckpointMarker(keep)
    arguments: Any = SimpleNamespace(output_dir=str(tmp_path / "checkpoints"))
    names: list[str] = []
    for step in (8, 9, 10, 11):
        saved(tmp_path, step, whole=False)  # as the trainer leaves it before the marker
        aside = tmp_path / "checkpoints" / UNFINISHED
        aside.mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / f"checkpoint-{step}").rename(aside / f"checkpoint-{step}")
        there = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        assert there == {*names[-keep:], UNFINISHED}
        state: Any = SimpleNamespace(is_world_process_zero=True, global_step=step)
        marker.on_save(arguments, state, None)  # type: ignore[arg-type]
        names.append(f"checkpoint-{step}")
        there = {path.name for path in (tmp_path / "checkpoints").iterdir()}
        assert there == {*names[-keep:], UNFINISHED} and not list(aside.iterdir())


@pytest.mark.parametrize("kind", [SftConfig, RlConfig])
def test_at_least_one_is_kept(kind: Any) -> None:
    assert kind().keep_last == 2
    with pytest.raises(ValidationError, match="keep_last"):
        kind(keep_last=0)
    with pytest.raises(ValidationError, match="use 'keep_last'"):
        kind(trainer={"save_total_limit": 3})
