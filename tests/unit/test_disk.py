"""Full and unwritable disks: one line, and nothing half-written that passes for whole."""

import errno
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

from trimpi import disk
from trimpi.disk import bytes_text, disk_faults_named, folder_problem
from trimpi.errors import UserError
from trimpi.runs import write_text


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "no space is left on its disk ("),
        (errno.EDQUOT, "the disk quota is used up; free some of it, or choose another --output"),
        (errno.EROFS, "its file system is read-only; mount it for writing, or choose another"),
        (errno.EACCES, "permission denied; grant it, or choose another --output"),
    ],
)
def test_each_fault_names_path_and_cure(number: int, said: str, tmp_path: Path) -> None:
    file = tmp_path / "stage" / "metrics.jsonl"
    with (
        pytest.raises(UserError) as caught,
        disk_faults_named("sft", tmp_path, lambda: "checkpoint-4 is kept"),
    ):
        raise OSError(number, os.strerror(number), str(file))
    line = str(caught.value)
    assert line.startswith(f"sft: {file}: ") and said in line
    assert line.endswith("; checkpoint-4 is kept") and len(line.splitlines()) == 1


def test_writers_without_an_error_number_of_their_own(tmp_path: Path) -> None:
    for error in (
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
    ):
        with pytest.raises(UserError, match=f"rl: {tmp_path}: .* free"):  # noqa: SIM117
            with disk_faults_named("rl", tmp_path):
                raise error
    with pytest.raises(UserError, match="no space is left"), disk_faults_named("", tmp_path):
        raise ValueError("data set") from OSError(errno.ENOSPC, "No space left on device")


def test_other_faults_pass_through(tmp_path: Path) -> None:
    for error in (
        OSError(errno.ENOENT, "No such file", "x"),
        OSError(errno.EACCES, "Permission denied", "/elsewhere/weights"),
        RuntimeError("shapes do not match"),
        UserError("row 3 is wrong"),
    ):
        with pytest.raises(type(error)) as caught, disk_faults_named("sft", tmp_path):
            raise error
        assert caught.value is error


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is full")
def test_a_write_that_finds_no_space_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "stage.json"
    write_text(file, "old")
    temporary = tmp_path / f".stage.json.{os.getpid()}.part"
    temporary.symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(file, "new")
    assert caught.value.filename == str(file) and file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_unwritable_folder_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder_problem(tmp_path / "new" / "run") is None
    (tmp_path / "file").write_text("")
    found = folder_problem(tmp_path / "file" / "run")
    assert found is not None and f"{tmp_path}/file is a file, not a folder; choose" in found
    # The superuser may write anywhere, so the answer of the system is given for it.
    monkeypatch.setattr(disk.os, "access", lambda path, mode: Path(path) != tmp_path)
    found = folder_problem(tmp_path / "run")
    assert found is not None and f"cannot write in {tmp_path}; make it writable, or" in found


def test_sizes_are_for_people() -> None:
    assert [bytes_text(n) for n in (5, 2048, 3 * 2**20, 1.5 * 2**30)] == [
        "5 B",
        "2 KiB",
        "3 MiB",
        "1.5 GiB",
    ]
