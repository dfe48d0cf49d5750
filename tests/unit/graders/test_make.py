"""What a recipe may say of a grader: all faults at once, and what makes it another one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.recipe import Recipe
from trimpi.recipe_file import dump_recipe, load_recipe, parse_yaml, recipe_schema
from trimpi.sample import Completion, Sample, Score

HERE = __name__


class Judge:
    """A grader that is an object, and names its model."""

    identity = "judge two"
    about = "judged by hand"

    def check(self) -> None:
        raise UserError("TRIMPI_JUDGE: not set; name the judge")

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        return Score(1.0)


judge = Judge()


def one(sample: Sample) -> Score:
    return Score(1.0)


def backwards(sample: Sample, /, *, completion: Completion) -> Score:
    return Score(1.0)


def faults(spec: Any) -> list[str]:
    with pytest.raises(UserError) as raised:
        make_grader(spec, "grader")
    return str(raised.value).splitlines()


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, ["grader: must be 'package.module:name', or a mapping with the key 'type' (exact, "
              "choice, number, regex, json), found {}"]),
        (None, ["grader: must be 'package.module:name', or a mapping with the key 'type' (exact, "
                "choice, number, regex, json), found None"]),
        (["exact"], ["grader: must be 'package.module:name', or a mapping with the key 'type' "
                     "(exact, choice, number, regex, json), found ['exact']"]),
        ("exact", ["grader: should be 'package.module:name', found 'exact'"]),
        ({"type": "chioce"}, ["grader.type: unknown type 'chioce'; did you mean 'choice'?"]),
        ({"type": "exact", "options": []},
         ["grader.options: unknown key 'options'; known here: type"]),
        ({"type": "choice"}, ["grader.options: required key is missing"]),
        ({"type": "choice", "options": "a"}, ["grader.options: should be a list, found 'a'"]),
        ({"type": "choice", "options": ["a"]},
         ["grader.options: needs two options or more, found 1"]),
        ({"type": "choice", "options": ["a", " A", " ", None]},
         ["grader.options.3: should be a valid string, found None"]),
        ({"type": "choice", "options": ["a", " A", " "]},
         ["grader.options: ' A' is the same answer as 'a'; keep one",
          "grader.options: an option is empty; write it out or drop it"]),
        ({"type": "number", "tolerance": -1, "relative": 1.0, "unit": "kg"},
         ["grader.tolerance: should be greater than or equal to 0, found -1",
          "grader.relative: should be less than 1, found 1.0",
          "grader.unit: unknown key 'unit'; did you mean 'units'?"]),
        ({"type": "number", "tolerance": float("nan")},
         ["grader.tolerance: should be a finite number, found nan"]),
        ({"type": "regex", "pattern": "(a", "fullmatch": 1},
         ["grader.pattern: not a pattern (missing ): (a); patterns are RE2's, which has neither "
          "look-around nor references to groups",
          "grader.fullmatch: should be a valid boolean, found 1"]),
        ({"type": "regex", "pattern": "(?=a)"},
         ["grader.pattern: not a pattern (invalid perl operator: (?=); patterns are RE2's, which "
          "has neither look-around nor references to groups"]),
        ({"type": "regex", "pattern": "(a)(b)"},
         ["grader.pattern: has 2 groups; name the one that holds the answer (?P<answer>...), and "
          "write the others (?:...)"]),
        ({"type": "json", "fields": {}},
         ["grader.fields: should have at least 1 entry, found {}"]),
        ({"type": "json", "fields": [1]}, ["grader.fields: should be a mapping, found [1]"]),
        ({"type": "json", "fields": {
            "a": {"type": "text", "wieght": 1}, "b": {"type": "choice", "options": ["x"]},
            "c": {"weight": 1}, "d": {"type": "json"}, "e": {"type": "exact", "weight": 0},
            "json": 5}},
         ["grader.fields.a.wieght: unknown key 'wieght'; did you mean 'weight'?",
          "grader.fields.b.options: needs two options or more, found 1",
          "grader.fields.c: must be a mapping with the key 'type' (exact, choice, number, regex, "
          "text), found {'weight': 1}",
          "grader.fields.d.type: unknown type 'json'; known here: exact, choice, number, regex, "
          "text",
          "grader.fields.e.weight: should be greater than 0, found 0",
          "grader.fields.json: should be a mapping, found 5"]),
        ("nowhere.at_all:grade",
         ["grader: no module 'nowhere' (from 'nowhere.at_all:grade'); correct the name, or install"
          " the package or add its folder to PYTHONPATH"]),
        (f"{HERE}:Judge", [f"grader: '{HERE}:Judge' is a class; name an object of it, or a "
                           "function"]),
        (f"{HERE}:one", [f"grader: '{HERE}:one' cannot be called with (sample, completion): too "
                         "many positional arguments; neither has it TRL's parameters (prompts, "
                         "completions, **kwargs)"]),
        (f"{HERE}:backwards", [f"grader: '{HERE}:backwards' cannot be called with (sample, "
                               "completion): too many positional arguments; neither has it TRL's "
                               "parameters (prompts, completions, **kwargs)"]),
    ],
)  # fmt: skip
def test_all_faults_at_once(spec: Any, expected: list[str]) -> None:
    assert faults(spec) == expected


def test_what_a_grader_says_of_itself_is_kept() -> None:
    made = make_grader(f"{HERE}:judge")
    assert (made.identity, made.about) == ("judge two", "judged by hand")
    with pytest.raises(UserError, match="TRIMPI_JUDGE: not set"):
        made.check()
    plain = make_grader("trimpi.grading:exact_answer")
    assert (plain.identity, plain.about) == ("trimpi.grading:exact_answer", "")
    plain.check()


def test_the_identity_changes_with_the_declaration_and_with_nothing_else() -> None:
    def identity(**keys: Any) -> str:
        return make_grader({"type": "number", **keys}).identity

    assert identity() == identity(tolerance=0, units=["%"]) == 'number {"type": "number"}'
    assert len({identity(), identity(tolerance=1), identity(relative=0.1), identity(units=[])}) == 4
    field = {"type": "exact"}
    fields = [{"a": field}, {"a": {**field, "weight": 2}}, {"a": field, "b": field}]
    assert len({make_grader({"type": "json", "fields": f}).identity for f in fields}) == 3
    assert (
        make_grader({"type": "choice", "options": ["a", "b"]}).about
        == "answers are compared as one of a, b"
    )


RECIPE = """\
name: small
model: {path: package://trimpi/models/tiny-vlm}
data: {folder: data}
grader:
  type: json
  fields:
    response: {type: choice, options: [allow, block]}
    severity: {type: number, tolerance: 1}
"""


def load(folder: Path, text: str, *sets: str) -> Recipe:
    file = folder / "recipe.yaml"
    file.write_text(text)
    return load_recipe(file, sets)


def test_a_recipe_with_a_declared_grader(tmp_path: Path) -> None:
    recipe = load(tmp_path, RECIPE, "grader.fields.severity.tolerance=0.5")
    assert recipe.grader.fields["severity"].tolerance == 0.5  # type: ignore[union-attr]
    assert load(tmp_path, dump_recipe(recipe)) == recipe
    dumped = json.loads(recipe.model_dump_json())["grader"]
    assert make_grader(dumped).identity == make_grader(recipe.grader).identity
    assert load(tmp_path, RECIPE.partition("grader:")[0]).grader == "trimpi.grading:exact_answer"


def test_faults_of_a_grader_stand_beside_the_others_with_their_line(tmp_path: Path) -> None:
    text = RECIPE.replace("tolerance: 1", "tolerance: x").replace("[allow", "[Block, allow")
    with pytest.raises(UserError) as raised:
        load(tmp_path, text + "seed: -1\n", "grader.fields.place.type=words")
    file = tmp_path / "recipe.yaml"
    assert str(raised.value).splitlines() == [
        "--set: grader.fields.place.type: unknown type 'words'; known here: exact, choice, number, "
        "regex, text",
        f"{file}:7: grader.fields.response.options: 'block' is the same answer as 'Block'; keep "
        "one",
        f"{file}:8: grader.fields.severity.tolerance: should be a valid number, found 'x'",
        f"{file}:9: seed: should be greater than or equal to 0, found -1",
    ]


def test_the_schema_knows_declarations() -> None:
    schema = json.loads(json.dumps(recipe_schema()))
    assert "options" in schema["$defs"]["ChoiceConfig"]["properties"]
    assert len(schema["properties"]["grader"]["oneOf"]) == 6


def test_the_examples_of_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "graders.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    specs = [parse_yaml(block, "docs")[0]["grader"] for block in blocks]
    made = [make_grader(spec).name for spec in specs if not isinstance(spec, str)]
    assert made == ["choice", "number", "regex", "json"]
    choice = make_grader(specs[2])
    sample = Sample("s", (), "?", None, "B")
    assert choice(sample, Completion("s", "\\boxed{Answer: b)}")).value == 1
