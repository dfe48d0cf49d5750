"""Names to objects: each way of being wrong has its own line, and nothing is called."""

from pathlib import Path

import pytest

from trimpi.errors import UserError
from trimpi.resolve import bind_problems, resolve, resolve_callable


def test_a_name_resolves() -> None:
    assert resolve("pathlib:Path", "key") is Path
    assert resolve("pathlib:Path.cwd", "key") == Path.cwd


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pathlib", "grader: 'pathlib' must be 'package.module:name'"),
        ("nowhere_at_all.x:f", "grader: no module 'nowhere_at_all'"),
        ("trimpi.grding:exact_answer", "grader: no module 'trimpi.grding'"),
        ("trimpi.grading:exact_anser", "did you mean 'exact_answer'?"),
    ],
)
def test_what_is_not_there(name: str, message: str) -> None:
    with pytest.raises(UserError, match="grader") as caught:
        resolve(name, "grader")
    assert message in str(caught.value)


def test_a_missing_dependency_is_told_from_a_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_grader_a.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "my_grader_b.py").write_text("from pathlib import nothing_such\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="'my_grader_a' needs 'not_installed_anywhere'"):
        resolve("my_grader_a:f", "grader")
    with pytest.raises(UserError, match="'my_grader_b' does not import"):
        resolve("my_grader_b:f", "grader")


def test_only_what_can_be_called() -> None:
    with pytest.raises(UserError, match="'trimpi:__version__' is str, not a function"):
        resolve_callable("trimpi:__version__", "grader")


def _build(out: Path, *, seed: int, depth: int, policies: int = 2) -> None:
    raise AssertionError("binding must not call")


def _free(out: Path, *, seed: int, **args: int) -> None:
    raise AssertionError("binding must not call")


def test_arguments_are_bound_without_a_call() -> None:
    given = ("out", "seed")
    assert bind_problems(_build, {"depth": 2}, "data.args", given) == []
    assert bind_problems(_free, {"anything": 2}, "data.args", given) == []
    assert bind_problems(_build, {"dept": 2, "seed": 1}, "data.args", given) == [
        "data.args.dept: unknown argument; did you mean 'depth'?",
        "data.args.seed: given by the toolkit itself; drop it",
        "data.args.depth: required argument is missing",
    ]
