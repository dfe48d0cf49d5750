"""`trimpi init`: a folder that runs, from a drawn or a given policy; nothing over what is there."""

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from datasets_builders.check import check
from datasets_builders.starter import project
from trimpi.cli import app
from trimpi.policy_file import read_policy_file
from trimpi.recipe_file import load_recipe
from trimpi.rules import RuleSet
from trimpi.sample import DataFolder

RULES = """---
name: Ostrel
attributes: {item: [knife, bottle], age: {from: 0, to: 99}}
---
![](pictures/demo.png)
- **R1.** If item is knife and age is less than 18, the response is `block`.
- **R2.** Otherwise, the response is `allow`.
"""


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "ROWS", 40)


@pytest.mark.parametrize(
    ("template", "policy", "rows", "uncovered"),
    [("guardrail", "lumora", 44, ["R7"]), ("toys", "toyshop", 40, [])],
)
def test_it_dry_runs_builds_and_checks(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    template: str,
    policy: str,
    rows: int,
    uncovered: list[str],
) -> None:
    monkeypatch.setattr(project, "ROWS", rows)
    monkeypatch.chdir(tmp_path)
    result = call("init", "shop", "--template", template)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "shop: written; next:", "  cd shop", "  trimpi run recipe.yaml --dry-run",
        "  trimpi run recipe.yaml"]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop"]
    assert sorted(path.name for path in Path("shop").iterdir()) == [
        "README.md", "examples.jsonl", "images", "policy.md", "recipe.yaml"]  # fmt: skip
    result = call("run", "shop/recipe.yaml", "--dry-run")
    assert result.exit_code == 0, result.output
    result = call("data", "build", "shop/recipe.yaml")
    assert result.exit_code == 0, result.output
    root = tmp_path / "runs" / "shop" / "data"
    assert check(root) == []
    data = DataFolder(root)
    assert ("cot" in data.card) == (template == "toys")  # the other has its reasons in the table
    splits = {name: len(data.read(name)) for name in ("train_cot", "test")}
    assert sum(splits.values()) == rows and splits["test"] >= rows // 5
    covered = data.card["coverage"][policy]
    assert [rule for rule, seen in covered.items() if not any(seen["rows"].values())] == uncovered


def test_the_first_template_is_the_default(tmp_path: Path) -> None:
    project.write_project(tmp_path / "shop")
    assert "name: Lumora" in (tmp_path / "shop" / "policy.md").read_text()
    recipe = load_recipe(tmp_path / "shop" / "recipe.yaml")
    assert recipe.model.path == "package://trimpi/models/tiny-vlm-guard"


@pytest.mark.parametrize("template", list(project.MODELS))
def test_its_labels_are_those_of_the_rules(tmp_path: Path, template: str) -> None:
    project.write_project(tmp_path / "shop", template=template)
    rules = RuleSet.from_metadata(read_policy_file(tmp_path / "shop" / "policy.md").metadata)
    assert rules.faults() == []
    rows = [
        json.loads(line) for line in (tmp_path / "shop/examples.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 40
    for row in rows:
        decides = rules.decide(row["facts"])
        assert decides is not None and row["answer"] == decides.outcome
        (image,) = row["images"]
        assert Image.open(tmp_path / "shop" / image).size == (96, 64)


def test_templates_that_are_not_there(tmp_path: Path) -> None:
    result = call("init", tmp_path / "shop", "--template", "none")
    assert result.exit_code == 2
    assert "--template: no template 'none'; choose guardrail or toys" in result.stderr
    (tmp_path / "rules.md").write_text(RULES.replace("![](pictures/demo.png)\n", ""))
    words = ("init", tmp_path / "shop", "--from", tmp_path / "rules.md", "--template", "toys")
    result = call(*words)
    assert result.exit_code == 2
    assert "--template: cannot be given together with --from" in result.stderr
    assert not (tmp_path / "shop").exists()


def test_a_grader_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write_project(tmp_path / "shop", python=True)
    monkeypatch.syspath_prepend(str(tmp_path / "shop"))
    assert load_recipe(tmp_path / "shop" / "recipe.yaml").data.args["grader"] == "grader:grade"
    result = call("data", "build", tmp_path / "shop/recipe.yaml", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    assert "PYTHONPATH=. trimpi run recipe.yaml" in (tmp_path / "shop" / "README.md").read_text()


def test_a_policy_of_ones_own_with_checkable_rules(tmp_path: Path) -> None:
    (tmp_path / "own" / "pictures").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "own" / "pictures" / "demo.png")
    (tmp_path / "own" / "rules.md").write_text(RULES)
    result = call("init", tmp_path / "desk", "--from", tmp_path / "own" / "rules.md")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "desk" / "pictures" / "demo.png").is_file()
    rows = [
        json.loads(line) for line in (tmp_path / "desk/examples.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 40 and {row["answer"] for row in rows} == {"block", "allow"}
    assert "What is the response of Ostrel?" in rows[0]["query"]
    result = call("data", "build", tmp_path / "desk/recipe.yaml", "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output


def test_a_policy_without_checkable_rules_waits_for_examples(tmp_path: Path) -> None:
    (tmp_path / "plain.md").write_text("---\nname: Plain\n---\nBe kind.\n")
    result = call("init", tmp_path / "desk", "--from", tmp_path / "plain.md")
    assert result.exit_code == 0 and "examples.csv: has no rows yet" in result.stdout
    result = call("run", tmp_path / "desk" / "recipe.yaml", "--dry-run")
    assert result.exit_code == 2
    assert "examples.csv: has no rows; put labelled examples there" in result.stderr


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine")
    result = call("init", tmp_path / "shop", "--from", tmp_path / "none.md")
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first.endswith("is there already and not empty; choose another name")
    assert second.startswith(f"error: {tmp_path / 'none.md'}: cannot be read")
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]
    assert [path.name for path in (tmp_path / "shop").iterdir()] == ["mine.txt"]
    result = call("init", tmp_path / "a b")
    assert result.exit_code == 2 and "'a b': must begin with a letter or digit" in result.stderr


def test_the_way_there_is_told_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call("init", "my desks/shop")
    assert result.exit_code == 0 and "  cd 'my desks/shop'\n" in result.stdout
