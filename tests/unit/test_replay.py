"""General examples: how many, which, and which are refused."""

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import small_data
from tests.general_cases import general_folder, read_rows, write_rows
from trimpi.errors import UserError
from trimpi.recipe import CptConfig, Recipe, SftConfig
from trimpi.recipe_file import load_recipe
from trimpi.replay import (
    check_general,
    draw_general,
    general_count,
    read_general,
    refuse_measured,
    target_of,
)
from trimpi.row_checks import check_replay
from trimpi.schedule import plan_schedule


@pytest.mark.parametrize(
    ("rows", "ratio", "count"),
    [(900, 0.25, 300), (900, 0.5, 900), (9, 0.1, 1), (8, 0.0, 0), (8, 0.01, 1), (10, 0.9, 90)],
)
def test_general_examples_are_the_share_of_all_sequences(
    rows: int, ratio: float, count: int
) -> None:
    assert general_count(rows, ratio) == count


@given(st.integers(1, 5000), st.floats(0.01, 0.99))
def test_the_share_is_met_to_half_a_row(rows: int, ratio: float) -> None:
    count = general_count(rows, ratio)
    assert count == 1 or abs(count - ratio * (rows + count)) <= 0.5 + 1e-6


@given(st.integers(1, 30), st.integers(1, 90), st.integers(0, 5))
def test_no_row_comes_again_before_all_have_come(pool: int, count: int, seed: int) -> None:
    rows: list[Any] = list(range(pool))
    drawn = draw_general(rows, count, str(seed))
    assert drawn == draw_general(rows, count, str(seed)) and len(drawn) == count
    times = Counter(drawn)
    assert set(times.values()) <= {count // pool, -(-count // pool)}


def test_another_seed_draws_others() -> None:
    rows: list[Any] = list(range(100))
    assert draw_general(rows, 10, "0/replay/cpt") != draw_general(rows, 10, "0/replay/sft")


@pytest.mark.parametrize(
    ("config", "texts", "words", "updates", "general"),
    [
        (SftConfig(batch_size=8, epochs=1, replay_ratio=0.25), 0,
         "(12 rows + 4 general) x 1 epochs = 2 updates of 8 rows", 2, 4),
        (CptConfig(batch_size=8, epochs=2, texts="policy_text", texts_epochs=2, replay_ratio=0.5),
         3, "(12 rows + 3 texts x 2 + 18 general) x 2 epochs = 10 updates of 8 rows", 10, 18),
        (SftConfig(batch_size=8, epochs=1), 0, "12 rows x 1 epochs = 2 updates of 8 rows", 2, 0),
    ],
)  # fmt: skip
def test_the_arithmetic_counts_them(
    config: Any, texts: int, words: str, updates: int, general: int
) -> None:
    schedule = plan_schedule(config, 12, 1, "stage", texts)
    assert schedule.arithmetic.startswith(words)
    assert (schedule.updates, schedule.general) == (updates, general)


def test_rows_keep_their_own_format(tmp_path: Path) -> None:
    rows = check_general(general_folder(tmp_path / "general"))
    assert [target_of(row) for row in rows] == ["answer", "answer", "answer", "cot"]


def test_ids_of_several_splits_differ(tmp_path: Path) -> None:
    folder = general_folder(tmp_path / "general")
    write_rows(folder.root, read_rows(folder.root), "more")
    ids = [row.id for row in read_general(folder)]
    assert ids[0] == "more/general-0" and ids[4] == "test/general-0" and len(set(ids)) == 8


def test_all_faulty_rows_are_named(tmp_path: Path) -> None:
    folder = general_folder(tmp_path / "general")
    rows = read_rows(folder.root)
    rows[0]["answer"] = " "
    rows[1] |= {"facts": {"task": "color", "target": "cot"}}
    rows[2]["answer"] = "}"
    write_rows(folder.root, rows)
    with pytest.raises(UserError) as caught:
        check_general(folder)
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith(f"{folder.root}/test.jsonl:1: is a general example with an empty an")
    assert lines[1].startswith(f"{folder.root}/test.jsonl:2: facts.target is 'cot' and there is no")
    assert lines[2].startswith(f"{folder.root}/test.jsonl:3: its answer holds")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    folder = general_folder(tmp_path / "general")
    (folder.root / "test.jsonl").unlink()
    with pytest.raises(UserError, match="holds no rows"):
        read_general(folder)


def test_rows_that_are_measured_on_are_refused(tmp_path: Path) -> None:
    """The same request, and the same picture under another name and query."""
    ours, theirs = general_folder(tmp_path / "a"), general_folder(tmp_path / "b", color="red")
    refuse_measured(ours, {"evaluation.skills": (theirs, theirs.read("test"))})
    shutil.copy(theirs.root / "images" / "2.png", ours.root / "images" / "0.png")
    fault = (
        r"replay: 1 of 4 rows have the request or a picture of a row that evaluation.skills "
        r"measures on \(first 'general-0', there 'general-2'\); trained rows measure nothing"
    )
    with pytest.raises(UserError, match=fault):
        refuse_measured(ours, {"evaluation.skills": (theirs, theirs.read("test"))})


def test_a_request_without_a_picture_is_known_by_query_and_policy(tmp_path: Path) -> None:
    folders = [general_folder(tmp_path / name, color=name) for name in ("red", "blue")]
    for folder in folders:
        rows = [{**row, "images": []} for row in read_rows(folder.root)]
        rows[0]["query"], rows[1]["query"] = folder.root.name, f"{folder.root.name} again"
        rows[2] |= {"query": rows[3]["query"]}  # the request of row 3, without its policy
        write_rows(folder.root, rows[:3] if folder is folders[0] else rows[3:])
    ours, theirs = folders
    refuse_measured(ours, {"evaluation.skills": (theirs, theirs.read("test"))})
    write_rows(theirs.root, [{**row, "policy": None} for row in read_rows(theirs.root)])
    with pytest.raises(UserError, match="1 of 3 rows"):
        refuse_measured(ours, {"evaluation.skills": (theirs, theirs.read("test"))})


def test_rows_of_the_task_that_are_asked_are_refused_too(tmp_path: Path) -> None:
    data = small_data(tmp_path / "data")
    recipe = recipe_of({"folder": str(data.root)})
    with pytest.raises(UserError, match=r"a row that evaluation.split measures on"):
        check_replay(recipe, data, data, None)
    check_replay(recipe, general_folder(tmp_path / "general"), data, None)


def recipe_of(replay: Any, ratio: float = 0.25, **more: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "model": {"path": "owner/name"},
            "data": {"folder": "d"},
            "stages": {"sft": {"replay_ratio": ratio}},
            "replay": replay,
            **more,
        }
    )


SKILLS = {"builder": "datasets_builders.clevr.skills_builder:build", "args": {"rows": 2}}
RECIPE = """name: r
model: {path: package://trimpi/models/tiny-vlm}
data: {folder: d}
"""


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("stages: {sft: {replay_ratio: 0.2}}",
         "stages.sft.replay_ratio: needs general examples; give the recipe a 'replay'"),
        ("stages: {sft: {}}\nreplay: {folder: g}",
         "replay: no stage has a replay_ratio; give one to a cpt or sft stage"),
        ("stages: {sft: {replay_ratio: 0.2}}\nreplay: {folder: g}\n"
         "evaluation: {skills: {folder: g}}",
         "replay: the same examples as evaluation.skills: forgetting would be measured on rows"),
        ("stages: {sft: {replay_ratio: 1.0}}\nreplay: {folder: g}", "stages.sft.replay_ratio: "),
        ("stages: {rl: {replay_ratio: 0.5}}\nreplay: {folder: g}", "stages.rl.replay_ratio: "),
        ("stages: {sft: {}, w: {kind: interpolate, weight: 0.5}}\narms: {a: [w]}",
         "arms.a.0: 'w' interpolates between the base and a trained model; put a stage before it"),
        ("stages: {interpolate: {weight: 0.5}}", "arms.main.0: 'interpolate' interpolates"),
        ("stages: {w: {kind: interpolate, weight: 1.5}}\narms: {a: []}", "stages.w.weight: "),
        ("stages: {w: {kind: interpolate, weight: 0.5, lr: 1.0}}\narms: {a: []}",
         "stages.w.lr: "),
        ("stages: {rl: {kl_reference: base, beta: 0.0}}",
         "stages.rl: kl_reference 'base' does nothing with beta 0; raise beta or drop it"),
        ("stages: {rl: {instance_filter: solvable, filter_rollouts: 5}}",
         "stages.rl: filter_rollouts 5 is odd; half of them see the policy"),
        ("stages: {rl: {filter_solved: true}}",
         "stages.rl: filter_solved belongs to instance_filter; choose one, or drop it"),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_mean(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE + text + "\n")
    with pytest.raises(UserError) as caught:
        load_recipe(file)
    assert fault in str(caught.value)


def test_the_same_builder_with_another_seed_is_allowed() -> None:
    recipe = recipe_of({**SKILLS, "seed": 7}, evaluation={"skills": SKILLS})
    assert recipe.replay is not None and recipe.replay.seed == 7
    with pytest.raises(ValueError, match=r"the same examples as evaluation\.skills"):
        recipe_of(SKILLS, evaluation={"skills": {**SKILLS, "seed": 0}})
