"""Version rules: the paper's table, the proof that rules divide all profiles, faults by name."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.gta import rules as module
from datasets_builders.gta.rules import Interval, VersionRules, in_words, read_version_rules
from datasets_builders.gta.wording import override_versions
from trimpi.errors import UserError

FILE = Path(module.__file__).with_name("rules.yaml")
PAPER: VersionRules = read_version_rules(FILE)

profiles = st.fixed_dictionaries(
    {
        "account_type": st.sampled_from("ABCD"),
        "age": st.integers(13, 90),
        "credits": st.integers(0, 1000),
    }
)


def papers_table(account: str, age: int, credit: int) -> dict[str, str]:
    """The rules as the paper states them, written out by hand."""
    if account == "A":
        described = "v5"
    elif account in "BC":
        described = "v4" if credit > 500 else "v3"
    else:
        described = "v2" if credit > 500 else "v1"
    if credit <= 250:
        read = "v5"
    elif credit <= 750:
        read = "v4" if account in "AB" else "v3"
    else:
        read = "v2" if age < 21 else "v1"
    searched = "v1" if age < 21 else "v2" if credit < 500 else "v3"
    drawn = "v1" if account in "ABC" else "v2" if credit > 500 else "v3"
    counted = "v1" if credit < 250 else "v2" if credit < 500 else "v3" if credit < 750 else "v4"
    return {
        "ImageDescription": described,
        "OCR": read,
        "GoogleSearch": searched,
        "TextToImage": drawn,
        "RegionAttributeDescription": "v2" if account in "AB" else "v1",
        "CountGivenObject": counted,
        "ImageStylization": "v1" if age < 21 else "v2" if age < 60 else "v3",
    }


@given(profiles)
def test_the_papers_versions(profile: dict) -> None:
    expected = papers_table(profile["account_type"], profile["age"], profile["credits"])
    assert set(PAPER.tools) == set(expected)
    for tool, version in expected.items():
        assert PAPER.versioned(tool, profile) == f"{tool}_{version}"
    assert PAPER.versioned("Calculator", profile) == "Calculator"


def test_the_bounds_belong_where_the_paper_puts_them() -> None:
    def ocr(account: str, age: int, credit: int) -> str:
        return PAPER.versioned("OCR", {"account_type": account, "age": age, "credits": credit})

    assert [ocr("A", 30, c) for c in (250, 251, 750, 751)] == [
        "OCR_v5",
        "OCR_v4",
        "OCR_v4",
        "OCR_v1",
    ]
    assert [ocr("D", a, 751) for a in (20, 21)] == ["OCR_v2", "OCR_v1"]


def test_the_rules_in_the_form_of_all_policies() -> None:
    for tool, rules in PAPER.tools.items():
        found = PAPER.rule_set(tool)
        assert found.faults() == [] and [r.id for r in found.rules] == [r.id for r in rules]
        profile = {"account_type": "C", "age": 20, "credits": 750}
        deciding = found.decide(profile)
        assert deciding is not None and deciding.outcome == PAPER.versioned(tool, profile)


def test_conditions_in_words() -> None:
    rule = PAPER.tools["OCR"][1]
    words = [in_words(name, extent) for name, extent in rule.conditions.items()]
    assert words == ["credits is more than 250 and at most 750", "account_type is A or B"]
    assert in_words("age", Interval(3, 9)) == "age is 3 to 9"


def written(folder: Path, versions: object, attributes: object = None) -> Path:
    file = folder / "rules.yaml"
    default = {"account": ["A", "B", "C"], "age": {"from": 0, "to": 99}}
    content = {"attributes": default if attributes is None else attributes, "versions": versions}
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return file


def test_a_new_tool_and_a_new_version_are_new_lines(tmp_path: Path) -> None:
    versions = {
        "Old": [{"age": "< 18", "version": "v1"}, {"age": ">= 18", "version": "v2"}],
        "New": [{"account": ["A", "B"], "version": "v1"}, {"account": "C", "version": "beta"}],
    }
    rules = read_version_rules(written(tmp_path, versions))
    assert rules.versioned("New", {"account": "C", "age": 5}) == "New_beta"
    assert rules.versioned("Old", {"account": "C", "age": 18}) == "Old_v2"


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        (
            [{"age": "< 18", "version": "v1"}, {"age": "> 18", "version": "v2"}],
            ["versions.T: no rule for age 18; add one"],
        ),
        (
            [{"age": "<= 18", "version": "v1"}, {"age": ">= 10", "version": "v2"}],
            ["versions.T: T.1 and T.2 overlap at age 10 to 18; change one"],
        ),
        (
            [{"age": "< 18", "account": "A", "version": "v1"}, {"age": ">= 18", "version": "v2"}],
            ["versions.T: no rule for account B or C, age 0 to 17; add one"],
        ),
        (
            [{"version": "v1"}, {"account": "B", "version": "v2"}],
            ["versions.T: T.1 and T.2 overlap at account B; change one"],
        ),
        (
            [{"aeg": "< 18", "version": "v1"}],
            ["versions.T.1: unknown attribute 'aeg'; did you mean 'age'?"],
        ),
        (
            [{"wealth": "< 18", "version": "v1"}],
            ["versions.T.1: unknown attribute 'wealth'; known: account, age"],
        ),
        ([{"account": "E", "version": "v1"}], ["versions.T.1.account: 'E' is not among A, B, C"]),
        (
            [{"account": 3, "version": "v1"}],
            ["versions.T.1.account: must be one of A, B, C, or a list of them; found 3"],
        ),
        (
            [{"age": "young", "version": "v1"}],
            ["versions.T.1.age: must be comparisons such as '> 250, <= 750'; found 'young'"],
        ),
        (
            [{"age": "> 30, < 20", "version": "v1"}],
            ["versions.T.1.age: '> 30, < 20' holds for no number from 0 to 99"],
        ),
        (
            [{"age": "> 99", "version": "v1"}],
            ["versions.T.1.age: '> 99' holds for no number from 0 to 99"],
        ),
        (
            [{"account": ["A", "B"], "version": "v1"}, {"age": "> 9", "version": "v2"}],
            [
                "versions.T: T.1 and T.2 overlap at account A or B, age 10 to 99; change one",
                "versions.T: no rule for account C, age 0 to 9; add one",
            ],
        ),
        (
            [{"version": "v1"}, *({"account": a, "version": "v2"} for a in "ABC")],
            ["versions.T: T.1 and T.2 overlap at account A; it overlaps 2 more; change one"],
        ),
        (
            [{"age": f"= {age}", "version": "v1"} for age in range(0, 99, 2)],
            [
                "versions.T: no rule for age 1, nor for age 3, nor for age 5, nor for 47 other "
                "parts; add one"
            ],
        ),
        (
            [{"age": "<= " + "9" * 5000, "version": "v1"}],
            [
                "versions.T.1.age: must be comparisons such as '> 250, <= 750'; found "
                f"'<= {'9' * 34}...{'9' * 38}'"
            ],
        ),
        (
            [{"version": ""}, {"version": 'v 5"x'}],
            [
                "versions.T.1.version: must be a word of letters, digits, '.' and '-', such as v1; "
                "found ''",
                "versions.T.2.version: must be a word of letters, digits, '.' and '-', such as v1; "
                "found 'v 5\"x'",
            ],
        ),
        ([{"age": "> 9"}], ["versions.T.1: must be an object with a 'version', a word such as v1"]),
        ([], ["versions.T: must be a list of rules; give it at least one"]),
    ],
)
def test_faults_of_rules(tmp_path: Path, rows: list, lines: list[str]) -> None:
    file = written(tmp_path, {"T": rows})
    with pytest.raises(UserError) as caught:
        read_version_rules(file)
    assert str(caught.value).splitlines() == [f"{file}: {line}" for line in lines]


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({}, "attributes: must map names"),
        ({"x": []}, "attributes.x: must be a list of words"),
        ({"x": {"from": 3, "to": 1}}, "with n at most m; found {'from': 3, 'to': 1}"),
        ({"x": {"from": 0, "to": 1.5}}, "attributes.x: must be a list of words"),
        ({"x": ["A", "A"]}, "attributes.x: a word appears twice"),
    ],
)
def test_faults_of_attributes(tmp_path: Path, attributes: object, line: str) -> None:
    with pytest.raises(UserError) as caught:
        read_version_rules(written(tmp_path, {"T": [{"version": "v1"}]}, attributes))
    assert line in str(caught.value)


def test_files_that_are_no_rules(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_version_rules(tmp_path / "absent.yaml")
    nine = "9" * 5000
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 9)]
    for text, line in (
        ("a: [", "not YAML"),
        ("- 1", "must hold the keys"),
        ("a: 1", "versions:"),
        ("a: " + "[" * 5000, r"x.yaml: not YAML \(maximum recursion depth"),
        ("a: &x {b: *x}", r"x.yaml: not YAML \(maximum recursion depth"),
        ("\n".join(levels), r"x.yaml: not YAML \(more than 100000 entries"),
        (f"attributes: {{age: {{from: 0, to: {nine}}}}}", r"x.yaml: not YAML \(Exceeds the limit"),
        ("versions: {}\nattributes: {}\nversions: {}", "x.yaml:3: versions: key given twice"),
        ("versions:\n  T: []\n  T: []", r"x.yaml:3: versions.T: key given twice; keep one"),
        ("versions:\n  T:\n  - {age: 1, age: 2}", r"x.yaml:3: versions.T.0.age: key given twice"),
    ):
        (tmp_path / "x.yaml").write_text(text)
        with pytest.raises(UserError, match=line):
            read_version_rules(tmp_path / "x.yaml")


def test_many_attributes_are_proven_at_once(tmp_path: Path) -> None:
    """The profiles that they tell apart are too many to be tried."""
    attributes = {f"a{n}": {"from": 0, "to": 100} for n in range(13)}
    middle = {name: ">= 1, < 50" for name in attributes}
    file = written(tmp_path, {"T": [{**middle, "version": "v1"}]}, attributes)
    with pytest.raises(UserError) as caught:
        read_version_rules(file)
    (line,) = str(caught.value).splitlines()
    assert line.endswith(", nor for 23 other parts; add one")


VERSIONS = {
    "Old": [{"age": "< 18", "version": "v1"}, {"age": ">= 18", "version": "v2"}],
    "One": [{"version": "v1"}],
}


def overridden(folder: Path, **content: object) -> VersionRules:
    file = written(folder, VERSIONS)
    if content:
        file.write_text(file.read_text() + yaml.safe_dump(content))
    return override_versions(read_version_rules(file))


def test_versions_move_on_and_single_ones_stay(tmp_path: Path) -> None:
    moved = overridden(tmp_path)
    assert [rule.version for rule in moved.tools["Old"]] == ["v2", "v1"]
    assert [rule.version for rule in moved.tools["One"]] == ["v1"]


def test_the_file_may_say_which_versions_change(tmp_path: Path) -> None:
    moved = overridden(tmp_path, override={"Old": {"v1": "v3"}, "One": {"v1": "v9"}})
    assert [rule.version for rule in moved.tools["Old"]] == ["v3", "v2"]
    assert [rule.version for rule in moved.tools["One"]] == ["v9"]
    assert [r.id for r in moved.tools["Old"]] == ["Old.1", "Old.2"]


def test_single_versions_alone_cannot_move() -> None:
    only = module.version_rules(
        {"attributes": {"a": ["x"]}, "versions": {"One": VERSIONS["One"]}}, "rules"
    )
    with pytest.raises(UserError, match="versions: every tool has one alone, so that none can"):
        override_versions(only)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ([], ": must map tools to {version: version that takes its place}; drop it"),
        ({}, ": must map tools to {version"),
        ({"Odl": {"v1": "v2"}}, ".Odl: no tool of 'versions'; did you mean 'Old'?"),
        ({"Old": "v2"}, ".Old: must be {version: version that takes its place}; found 'v2'"),
        ({"Old": {"v7": "v2"}}, ".Old: unknown version 'v7'; known: v1, v2"),
        ({"Old": {"v1": 2}}, ".Old.v1: must be a word of letters, digits, '.' and '-', such as v1"),
        ({"Old": {"v1": "v1"}}, ".Old: changes nothing; drop it, or name other versions"),
    ],
)
def test_faults_of_an_override(tmp_path: Path, override: object, line: str) -> None:
    with pytest.raises(UserError) as caught:
        overridden(tmp_path, override=override)
    assert f"rules.yaml: override{line}" in str(caught.value)
