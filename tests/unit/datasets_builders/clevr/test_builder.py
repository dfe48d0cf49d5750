"""ClevrPolicy data folders, end to end on small pictures."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from datasets_builders.check import check
from datasets_builders.clevr import wording
from datasets_builders.clevr.builder import build, verify
from datasets_builders.clevr.sources import part
from datasets_builders.clevr.tree import Tree
from trimpi.errors import UserError
from trimpi.sample import DataFolder

SMALL: dict[str, Any] = {
    "depth": 2,
    "policies": 2,
    "train": 8,
    "train_cot": 4,
    "test": 4,
    "override": 4,
    "profile": "tiny",
    "workers": 1,
}


def make(out: Path, seed: int = 0, **args: Any) -> DataFolder:
    return build(out, seed=seed, progress=False, **(SMALL | args))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return make(tmp_path_factory.mktemp("text") / "data")


@pytest.fixture(scope="module")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> DataFolder:
    return make(tmp_path_factory.mktemp("images") / "data", variant="M", depth=3)


def test_splits_have_their_rows_and_the_folder_checks_clean(folder: DataFolder) -> None:
    assert folder.card["splits"] == {"train": 16, "train_cot": 8, "test": 8, "override": 8}
    assert check(folder.root) == []


def test_rationales_are_gold_walks_and_train_has_none(folder: DataFolder) -> None:
    assert all(sample.rationale is None for sample in folder.read("train"))
    for sample in folder.read("train_cot"):
        policy = folder.policies[sample.policy or ""]
        tree = Tree.from_json(policy.metadata["tree"])
        path, case = tree.decide(sample.facts["scene"]["objects"])
        assert sample.rationale == wording.rationale(path, case)
        assert sample.answer == f"Case {case}" and policy.name in sample.query


def test_every_response_is_asked_for_equally_often(folder: DataFolder) -> None:
    for table in folder.card["balance"].values():
        for entry in table.values():
            assert entry["responses"] == 4 and entry["majority_share"] == 0.25


def test_no_picture_is_in_two_splits_or_twice_in_one(folder: DataFolder) -> None:
    pictures = sorted((folder.root / "images").rglob("*.png"))
    assert len({hashlib.sha256(file.read_bytes()).digest() for file in pictures}) == 40


def test_override_keeps_the_name_and_changes_the_tree(folder: DataFolder) -> None:
    policies = folder.policies
    assert len(policies) == 4
    for name in [name for name in policies if not name.startswith("override/")]:
        old, new = policies[name], policies[f"override/{name}"]
        assert old.name == new.name and old.metadata["tree"] != new.metadata["tree"]
    for sample in folder.read("override"):
        policy = policies[(sample.policy or "").removeprefix("override/")]
        tree = Tree.from_json(policy.metadata["tree"])
        case = tree.decide(sample.facts["scene"]["objects"])[1]
        assert sample.facts["original_answer"] == f"Case {case}"


def test_equal_seeds_give_equal_bytes_whatever_the_workers(
    folder: DataFolder, tmp_path: Path
) -> None:
    one, two = (make(tmp_path / f"{n}", train=20, workers=n) for n in (1, 2))
    assert (one.root / "card.json").read_bytes() == (two.root / "card.json").read_bytes()
    other = make(tmp_path / "other", seed=1)
    assert not set(other.policies) & set(folder.policies)


def test_a_killed_build_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    args = SMALL | {"train": 60}
    whole = build(tmp_path / "whole", seed=5, progress=False, **args)
    code = (
        "import json, sys; from datasets_builders.clevr.builder import build;"
        "build(sys.argv[1], seed=5, progress=False, **json.loads(sys.argv[2]))"
    )
    out = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", code, str(out), json.dumps(args)])
    work = tmp_path / ".killed.partial" / ".work"
    deadline = time.monotonic() + 60
    while not list(work.glob("scenes/train-*.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not out.exists()
    kept = {file: file.stat().st_mtime_ns for file in work.rglob("*.png")}
    assert kept
    resumed = build(out, seed=5, progress=False, **args)
    assert resumed.card == whole.card
    untouched = [
        file
        for file, written in kept.items()
        if (out / file.relative_to(work)).stat().st_mtime_ns == written
    ]
    assert len(untouched) >= 16
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed", "whole"]


def test_variant_m_shows_crops_from_pictures_of_no_split(pictured: DataFolder) -> None:
    assert check(pictured.root) == []
    crops = {
        Path(image).read_bytes() for policy in pictured.policies.values() for image in policy.images
    }
    assert crops and all(policy.images for policy in pictured.policies.values())
    for policy in pictured.policies.values():
        conditions = policy.metadata["conditions"]
        for image in policy.images:
            condition = Path(image).stem
            assert condition in conditions
            # What the crop shows is not also said in words.
            assert conditions[condition] not in policy.text
            assert f"Condition {condition}: is there an object with the" in policy.text


def test_variants_of_one_seed_differ_in_the_policy_text_alone(
    pictured: DataFolder, tmp_path: Path
) -> None:
    plain = make(tmp_path / "plain", depth=3)
    for name, policy in plain.policies.items():
        other = pictured.policies[name]
        assert policy.metadata["tree"] == other.metadata["tree"] and policy.text != other.text
    for ours, theirs in zip(plain.read("test"), pictured.read("test"), strict=True):
        assert Path(ours.images[0]).read_bytes() == Path(theirs.images[0]).read_bytes()
        assert (ours.query, ours.answer) == (theirs.query, theirs.answer)


def test_names_run_out_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "made_up_name", lambda rng: "Vlomar")
    with pytest.raises(UserError, match="names are exhausted after 1"):
        make(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_verify_derives_answers_again(folder: DataFolder) -> None:
    sample = folder.read("test")[0]
    policy = folder.policies[sample.policy or ""]
    assert verify(sample, policy) == []
    row = sample.to_json(folder.root.resolve())
    others = [case for case in policy.metadata["cases"] if case != sample.answer]

    def changed(**values: Any) -> list[str]:
        return verify(type(sample).from_json(row | values, folder.root, "x"), policy)

    assert changed(answer=others[0]) == [
        f"answer {others[0]!r}, but the tree gives {sample.answer!r}"
    ]
    assert "no case of policy" in changed(answer="Case 99")[0]
    path = [{**step, "outcome": not step["outcome"]} for step in row["facts"]["path"]]
    assert "not the tree's path" in changed(facts={**row["facts"], "path": path})[0]
    assert "does not name policy" in changed(query="Which response?")[0]


@dataclass(frozen=True)
class Said:
    text: str
    truncated: bool = False


def test_forward_cot_takes_the_place_of_gold_walks(tmp_path: Path) -> None:
    def generate(prompts: list[Any], **options: Any) -> list[Said]:
        assert "Section 1" in prompts[0][0]["content"][0]["text"]
        return [Said("<think> I look. </think> \\boxed{Case 2}") for _ in prompts]

    made = make(tmp_path / "data", generate=generate, cot_attempts=1)
    kept = made.read("train_cot")
    assert {(row.rationale, row.answer) for row in kept} == {("I look.", "Case 2")}
    assert made.card["forward_cot"]["dropped"] == 8 - len(kept) > 0
    assert check(made.root) == []


def clevr_directory(root: Path, folder: DataFolder, count: int) -> Path:
    """A directory in CLEVR's form out of drawn pictures."""
    (root / "images").mkdir(parents=True)
    (root / "scenes").mkdir()
    scenes = []
    for number, sample in enumerate(folder.read("train")[:count]):
        name = f"CLEVR_new_{number:06d}.png"
        shutil.copyfile(sample.images[0], root / "images" / name)
        scenes.append({**sample.facts["scene"], "image_filename": name, "image_index": number})
    (root / "scenes" / "scenes.json").write_text(json.dumps({"info": {}, "scenes": scenes}))
    return root


REAL: dict[str, Any] = {"policies": 3, "train": 4, "train_cot": 2, "test": 2, "override": 2}


def test_a_clevr_directory_is_parted_among_the_splits(folder: DataFolder, tmp_path: Path) -> None:
    source = clevr_directory(tmp_path / "clevr", folder, 12)
    made = make(tmp_path / "data", source=str(source), **REAL)
    assert check(made.root) == []
    assert made.card["splits"] == {"train": 12, "train_cot": 6, "test": 6, "override": 6}
    used = {split: {s.images[0] for s in made.read(split)} for split in made.splits}
    originals = {file.read_bytes() for file in (source / "images").iterdir()}
    contents = [Path(image).read_bytes() for images in used.values() for image in images]
    assert set(contents) <= originals and len(contents) == len(set(contents)) <= 12
    assert make(tmp_path / "again", source=str(source), **REAL).card == made.card


def test_pictures_of_a_directory_are_resized_on_demand(folder: DataFolder, tmp_path: Path) -> None:
    from PIL import Image

    source = clevr_directory(tmp_path / "clevr", folder, 10)
    made = make(tmp_path / "data", source=str(source), width=120, height=80, **REAL)
    sample = made.read("test")[0]
    with Image.open(sample.images[0]) as image:
        assert image.size == (120, 80)
    for item in sample.facts["scene"]["objects"]:
        assert 0 <= item["pixel_coords"][0] <= 120 and 0 <= item["pixel_coords"][1] <= 80
    with pytest.raises(UserError, match="picture size 600x5: outside 96x64 to 480x320"):
        make(tmp_path / "odd", source=str(source), width=600, height=5, **REAL)


def test_too_few_or_broken_source_pictures_are_errors(folder: DataFolder, tmp_path: Path) -> None:
    source = clevr_directory(tmp_path / "clevr", folder, 9)
    with pytest.raises(UserError, match=r"has 9 pictures left and the splits need 10"):
        make(tmp_path / "data", source=str(source), **REAL)
    source = clevr_directory(tmp_path / "broken", folder, 10)
    broken = source / "images" / "CLEVR_new_000003.png"
    broken.write_bytes(broken.read_bytes()[:200])
    with pytest.raises(UserError, match=r"CLEVR_new_000003\.png"):
        make(tmp_path / "data", source=str(source), **REAL)
    assert not (tmp_path / "data").exists()


def test_parts_hold_what_is_needed_and_share_the_surplus() -> None:
    parts = part(range(20), [4, 2, 2, 2])
    assert [len(items) for items in parts] == [8, 4, 4, 4]
    assert [item for items in parts for item in items] == list(range(20))
    assert [len(items) for items in part(range(11), [4, 2, 2, 2])] == [4, 2, 2, 3]
