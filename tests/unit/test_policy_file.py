"""Policy files: what is read, round trips, and every fault with its line, all at once."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from trimpi.errors import UserError
from trimpi.policy import ImagePart, Policy, TextPart
from trimpi.policy_file import read_policy_file
from trimpi.rules import RuleSet, diff

POLICY = """---
name: Ostrel
version: 2
task: Say whether a picture may be shown.
attributes:
  item: [knife, bottle, none]
  place: [kitchen, street]
  age: {from: 0, to: 99}
order: first
---
![](images/a.png)
# Weapons
- **R1.** If item is knife and place is kitchen, the response is `allow`.
- **R2.** If item is knife, the response is `block`.  ![shown](<images/b c.png> "b")
- **R3.** Otherwise, the response is `allow`.
`![](not/a/picture.png)` is code. ![](images/a.png)"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for name, color in (("a.png", "red"), ("b c.png", "blue")):
        Image.new("RGB", (8, 6), color).save(tmp_path / "images" / name)
    return tmp_path


def written(folder: Path, text: str | bytes, name: str = "p.md") -> Path:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def read(folder: Path, text: str | bytes) -> Policy:
    return read_policy_file(written(folder, text))


def faults(folder: Path, text: str | bytes) -> list[str]:
    file = written(folder, text)
    with pytest.raises(UserError) as caught:
        read_policy_file(file)
    return [line.removeprefix(str(file)) for line in str(caught.value).splitlines()]


def test_a_policy_with_all_there_is(folder: Path) -> None:
    policy = read(folder, POLICY)
    images = [str(folder / "images" / name) for name in ("a.png", "b c.png", "a.png")]
    assert policy.images == tuple(images) and isinstance(policy.parts[0], ImagePart)
    assert "`![](not/a/picture.png)` is code." in policy.text
    metadata = policy.metadata
    assert (policy.name, metadata["version"], metadata["unit"]) == ("Ostrel", 2, "Rule")
    assert metadata["task"] == "Say whether a picture may be shown."
    assert metadata["conditions"] == {
        "R1": "If item is knife and place is kitchen, the response is `allow`.",
        "R2": "If item is knife, the response is `block`.",
        "R3": "Otherwise, the response is `allow`.",
    }
    assert metadata["cases"] == ["allow", "block"]
    rules = RuleSet.from_metadata(json.loads(json.dumps(metadata)))
    decided = rules.decide({"item": "knife", "place": "street", "age": 5})
    assert decided is not None and (decided.id, decided.section) == ("R2", "Weapons")
    assert Policy.from_markdown(folder / "p.md") == policy


def test_cases_need_a_response_word_for_word_in_every_rule(folder: Path) -> None:
    head = "---\nname: A\n---\n"
    assert read(folder, head + "**R1.** If it rains, refuse.").metadata.get("cases") is None
    assert read(folder, head + "**R1.** If it rains, answer no.").metadata["cases"] == ["no"]
    assert "conditions" not in read(folder, head + "Be kind.").metadata


def test_markdown_round_trip(folder: Path) -> None:
    policy = read(folder, POLICY)
    (folder / "again.md").write_text(policy.to_markdown(folder))
    assert read_policy_file(folder / "again.md") == policy


def test_the_example_of_the_documentation(folder: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")
    example = page.split("```markdown\n")[1].split("```")[0]
    policy = read(folder, example.replace("knife.png", "a.png"))
    rules = RuleSet.from_metadata(policy.metadata)
    assert rules.faults() == []
    decided = rules.decide({"item": "knife", "place": "street", "age": 12})
    assert decided is not None and decided.id == "R2"


@given(
    name=st.text(st.characters(exclude_categories=("C", "Z")), min_size=1),
    body=st.text("ab *#-:'\"\\[](.é\n", min_size=1).filter(str.strip),
)
def test_names_and_bodies_round_trip(tmp_path_factory, name: str, body: str) -> None:  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.getbasetemp()
    policy = Policy(name, (TextPart(body),))
    file = written(folder, policy.to_markdown(folder), "round.md")
    again = read_policy_file(file)
    assert (again.name, again.parts, again.digest()) == (name, policy.parts, policy.digest())


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("name: 'Ostrel: two'", "Ostrel: two"),
        ('name: "007"', "007"),
        ("name: yes", "yes"),
        ("name: Ostrel # the second", "Ostrel"),
        ("name: Öström", "Öström"),
    ],
)
def test_names(folder: Path, line: str, name: str) -> None:
    assert read(folder, f"---\n{line}\n---\nBe kind.").name == name


def test_line_ends_and_byte_order_marks_do_not_matter(folder: Path) -> None:
    text = "---\nname: A\n---\nBe\nkind."
    windows = b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()
    assert read(folder, windows) == read(folder, text)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("Be kind.", [":1: front matter is missing; start the file with ---, name: ..., ---"]),
        ("---\nname: A\nBe kind.", [":1: the front matter that begins here is never closed"]),
        ("---\nname: A\n---\n \n", [":4: the policy has no body"]),
        ("---\nversion: 1\n---\nx", [":1: name: missing"]),
        ("---\nname: 7\n---\nx", [":2: name: must be a text of one line, found 7; put it in q"]),
        ("---\nname: ''\n---\nx", [":2: name: must be a text of one line"]),
        ("---\nname: A: b\n---\nx", [":2: not YAML (mapping values are not allowed here)"]),
        ("---\nname: A\nname: B\n---\nx", [":3: name: key given twice; keep one"]),
        ("---\n- a\n---\nx", [":1: the front matter must hold keys"]),
        (
            "---\nnmae: A\nversion: [1]\ntask: 3\norder: last\nattributes:\n  a: 3\n---\nx",
            [
                ":1: name: missing",
                ":2: nmae: unknown key; did you mean 'name'?",
                ":3: version: must be a text or a number",
                ":4: task: must be a text",
                ":5: order: must be first or any",
                ":7: attributes.a: must be a list of words",
            ],
        ),
        (
            "---\nname: A\n---\n**R1.** a\n\n**R1.** b\n\n**R2.**",
            [":6: R1: id given twice, first in line 4; rename one", ":8: R2: no text follows"],
        ),
        (
            "---\nname: A\n---\n![](up.png)\n![](../up.png) ![](http://x.org/a.png)\n![](n.md)",
            [
                ":4: file 'up.png' not found",
                ":5: path '../up.png' leaves its folder",
                ":5: image 'http://x.org/a.png' is an address, not a file",
                ":6: image 'n.md' is no whole picture (cannot identify image file",
            ],
        ),
    ],
)
def test_faults_with_their_lines(folder: Path, text: str, lines: list[str]) -> None:
    (folder / "n.md").write_text("no picture")
    found = faults(folder, text)
    assert len(found) == len(lines), found
    for fault, line in zip(found, lines, strict=True):
        assert fault.startswith(line)


def test_the_cure_of_a_colon_is_told(folder: Path) -> None:
    assert 'in quotes: name: "a: b"' in faults(folder, "---\nname: A: b\n---\nx")[0]


def test_pictures_that_are_cut_off_or_too_large(folder: Path) -> None:
    Image.effect_noise((64, 64), 90).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    Image.new("1", (8000, 7000)).save(folder / "large.png")
    Image.new("1", (20000, 10000)).save(folder / "bomb.png")
    body = "![](cut.jpg)\n![](large.png)\n![](bomb.png)\n![](whole.jpg)"
    found = faults(folder, "---\nname: A\n---\n" + body)
    assert [line.split(";")[0] for line in found[1:]] == [
        ":5: image 'large.png' has 8000 x 7000 pixels, more than 50 megapixels",
        ":6: image 'bomb.png' has more than 50 megapixels",
    ]
    assert found[0].startswith(":4: image 'cut.jpg' is no whole picture (image file is truncated")


def test_other_encodings(folder: Path) -> None:
    mixed = "---\nname: A\n---\nGrün\n".encode() + "naïve\n".encode("cp1252") + b"\x80\n"
    found = faults(folder, mixed)
    assert [line.split(",")[0] for line in found] == [
        ":5: byte 0xef is not UTF-8",
        ":6: byte 0x80 is not UTF-8",
    ]
    assert "save the whole file as UTF-8" in found[0] and "naïve" in found[0]
    (line,) = faults(folder, "---\nname: A\n---\nx".encode("utf-16"))
    assert line.startswith(": not UTF-8 text (UTF-16")
    many = faults(folder, b"---\nname: A\n---\n" + b"\xe9\n" * 30)
    assert len(many) == 11 and ": 20 more lines are not UTF-8" in many


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "none.md", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_policy_file(path)


def test_changes_between_versions(folder: Path) -> None:
    old = read(folder, POLICY)
    text = POLICY.replace("R3.** Otherwise", "R4.** Otherwise").replace(
        "knife and place", "none and place"
    )
    changes = diff(old, read(folder, text))
    assert (changes.added, changes.removed, changes.changed) == (("R4",), ("R3",), ("R1",))
    assert changes.unchanged == ("R2",) and not changes.preamble_changed
    rewrapped = POLICY.replace("is knife, the", "is knife,\n  the")
    assert diff(old, read(folder, rewrapped)).unchanged == ("R1", "R2", "R3")
    pictures = POLICY.replace("images/b c.png", "images/a.png")
    assert diff(old, read(folder, pictures)).changed == ("R2",)
    assert diff(old, read(folder, POLICY.replace("Weapons", "Arms"))).preamble_changed


def test_changes_of_policies_whose_rules_stand_in_metadata() -> None:
    def policy(*texts: str, head: str = "Hello.") -> Policy:
        conditions = {str(n): text for n, text in enumerate(texts, 1)}
        lines = [f"Condition {n}: {text}" for n, text in conditions.items()]
        return Policy("A", (TextPart("\n".join([head, *lines])),), {"conditions": conditions})

    changes = diff(policy("be kind", "be brief"), policy("be kind", "be long"))
    assert (changes.changed, changes.unchanged) == (("2",), ("1",))
    assert not changes.preamble_changed
    assert diff(policy("a"), policy("a", head="Bye.")).preamble_changed
