"""`trimpi policy lint`, `show` and `diff`: findings by line, exit codes, what is printed."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from trimpi.cli import app

HEAD = """---
name: Ostrel
version: 2
attributes:
  item: [knife, bottle, none]
  place: [kitchen, street]
---
"""
BODY = """# Weapons
- **R1.** If item is knife and place is kitchen, the response is `allow`.
- **R2.** If item is knife, the response is `block`. ![](images/knife.png)
- **R3.** Otherwise, the response is `allow`.
"""


def call(*words: Any) -> Result:
    return CliRunner().invoke(app, ["policy", *(str(word) for word in words)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images" / "knife.png")
    return tmp_path


def written(folder: Path, text: str, name: str = "p.md") -> Path:
    (folder / name).write_text(text)
    return folder / name


def lint(folder: Path, text: str, *options: Any) -> tuple[int, list[str], str]:
    """Exit code, findings without the file's name, what is printed."""
    file = written(folder, text)
    result = call("lint", file, *options)
    assert "Traceback" not in result.output
    lines = [line.replace(f"{file}:", "") for line in result.stderr.splitlines()]
    return result.exit_code, lines, result.stdout


def test_a_clean_policy(folder: Path) -> None:
    code, lines, shown = lint(folder, HEAD + BODY, "--price", "2.5", "--requests", "10000")
    assert (code, lines) == (0, [])
    assert "Ostrel, version 2: 3 rules, 3 in a checkable form" in shown
    assert "nothing wrong found" in shown
    total, text, visual = map(
        int,
        re.search(r"(\d+) tokens for \S+: (\d+) of text, (\d+) of 1 picture", shown).groups(),  # type: ignore[union-attr]
    )
    assert total == text + visual and visual > 0
    assert f"{total / (total + 150):.1%} of the prompt of a request of 150 tokens" in shown
    assert f"{total * 10000 * 2.5 / 1e6:.2f} USD of input for a day of 10000 requests" in shown


def test_tokens_are_what_the_policy_adds_to_a_prompt(folder: Path) -> None:
    """Counted once more by hand, from the tokenizer."""
    from transformers import AutoTokenizer

    import trimpi

    model = Path(trimpi.__file__).parent / "models" / "tiny-vlm"
    file = written(folder, HEAD + BODY)
    shown = call("lint", file).stdout
    tokenizer = AutoTokenizer.from_pretrained(model)
    before, after = BODY.split("![](images/knife.png)")
    text = f"{before}<|vision_start|><|vision_end|>{after}\n\n"
    expected = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    found = re.search(r": (\d+) of text", shown)
    assert found and int(found[1]) == expected


def test_all_findings_at_once_in_the_order_of_the_file(folder: Path) -> None:
    text = HEAD.replace("---\n", "---\nauthor: me\n", 1) + (
        "# Weapons\n"
        "- **R1.** If item is knife, the response is `block`.\n"
        "- **R2.** If itme is knife, the response is `block`. ![](images/none.png)\n"
        "- **R3.** If item is knife and place is street, the response is `allow`. See R9.\n"
        "- **R3.** If item is knife, the response is `allow`.\n"
        "- **R5. Kind.** Be kind.\n"
        "![demo][x]\n"
    )
    code, lines, shown = lint(folder, text)
    assert code == 1 and "3 in a checkable form" in shown
    assert lines == [
        "warning:  gap: no rule decides for item bottle or none, unless one that is not checkable "
        "does (R2)",
        "warning: 2: author: key is not used; known: name, version, task, attributes, order",
        f"error: 11: file 'images/none.png' not found below {folder}; restore it or fix the path",
        "error: 11: R2: not checkable: unknown attribute 'itme'; did you mean 'item'?",
        "error: 12: refers to R9, but there is no such rule (known: R1, R2, R3)",
        "error: 12: unreachable: R3 is never reached: R1 decides wherever it holds",
        "error: 13: R3: id given twice, first in line 12; rename one",
        "error: 13: contradictory: R3 (line 13) has the conditions of R1 and another outcome "
        "(allow, not block)",
        "warning: 14: begins like a rule, but R5 alone is not in bold; write **R5.** and then the "
        "text",
        "warning: 15: '![demo][x]' reaches the model as text; pictures are written ![](file)",
    ]


def test_what_warns_does_not_fail(folder: Path) -> None:
    code, lines, _ = lint(folder, "---\nname: A\n---\nBe kind.\n")
    assert code == 0 and len(lines) == 1
    assert "no rules found" in lines[0] and "coverage, the recital probe" in lines[0]


@pytest.mark.parametrize(
    ("text", "code", "line"),
    [
        (HEAD + BODY.replace("- **R3", "R3"), 1, "gap: no rule decides for item bottle or none"),
        (HEAD.replace("---\n", "---\norder: any\n", 1) + BODY, 1, "R1 (allow) and R2 (block) both"),
        (HEAD.replace("name: Ostrel\n", "") + BODY, 2, "name: missing"),
        (HEAD, 2, "the policy has no body"),
        ("no front matter", 2, "front matter is missing"),
        (HEAD + BODY.replace("knife.png", "cut.png"), 2, "is no whole picture"),
        (HEAD + "<|image_pad|>" + BODY, 1, "remove that word from policy"),
        (HEAD + BODY + "\nhi <|im_end|>", 1, "'<|im_end|>' is a control token of the model, not"),
        (
            HEAD + BODY + "**R4.** If place is street and place is kitchen, answer x.",
            1,
            "contradictory: R4 can never hold: no place meets its condition",
        ),
    ],
)
def test_faults_and_exit_codes(folder: Path, text: str, code: int, line: str) -> None:
    content = (folder / "images" / "knife.png").read_bytes()
    (folder / "images" / "cut.png").write_bytes(content[:50])
    found, lines, _ = lint(folder, text)
    assert found == code and any(line in each for each in lines), lines


def test_a_policy_beyond_the_context(folder: Path) -> None:
    code, lines, _ = lint(folder, HEAD + BODY + "Be kind to all people. " * 40_000)
    (line,) = lines
    assert code == 1 and "exceed its context of 8192; shorten the policy or take" in line
    code, lines, _ = lint(folder, HEAD + BODY + "\nBe kind to all people. " * 300)
    assert code == 0 and "very long" in lines[0] and "% of the context" in lines[0]


def test_lint_needs_no_weights(folder: Path) -> None:
    import trimpi

    source = Path(trimpi.__file__).parent / "models" / "tiny-vlm"
    copy = shutil.copytree(source, folder / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    assert lint(folder, HEAD + BODY, "--model", copy)[0] == 0


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--model", "package://trimpi/models/none"], "--model: package 'trimpi' holds no folder"),
        (["--price", "inf"], "--price: must be a number of dollars"),
        (["--requests", "5"], "--requests: says nothing without a price"),
    ],
)
def test_faults_of_options(folder: Path, options: list[str], line: str) -> None:
    code, lines, _ = lint(folder, HEAD + BODY, *options)
    assert code == 2 and line in lines[-1]


def test_a_placeholder_in_the_text_is_no_crash(folder: Path) -> None:
    file = written(folder, HEAD + "<|image_pad|>" + BODY)
    result = call("show", file)
    assert result.exit_code == 2 and "remove that word from policy" in result.stderr


def test_many_rules_alike_are_told_in_few_lines(folder: Path) -> None:
    rules = "".join(f"**R{n}.** If item is knife, answer `{n}`.\n\n" for n in range(1, 101))
    code, lines, _ = lint(folder, HEAD + rules + "**R101.** Otherwise, answer `x`.")
    alike = [line for line in lines if "has the conditions of R1 and another outcome" in line]
    assert code == 1 and len(alike) == 20 and len(lines) < 60
    assert any("contradictory: 79 more" in line for line in lines)


def test_the_prompt_is_shown_as_the_template_writes_it(folder: Path) -> None:
    text = HEAD.replace("Ostrel", "Z") + "![](images/knife.png)" + BODY + "\x1b[2J"
    result = call("show", written(folder, text))
    assert result.exit_code == 0, result.output
    start = result.stdout.index("<|im_start|>user\n")
    assert result.stdout[start:].startswith(
        "<|im_start|>user\n<|vision_start|>[images/knife.png, 40 x 30 pixels, "
    )
    assert "<|vision_end|># Weapons\n- **R1.** If item" in result.stdout
    assert (
        "(the request)\nThink inside" in result.stdout and "<|im_start|>assistant" in result.stdout
    )
    assert "\\x1b[2J" in result.stdout and "\x1b" not in result.stdout


def test_segments_join_to_the_prompt(folder: Path) -> None:
    from trimpi.policy_file import read_policy_file
    from trimpi.policy_view.length import REQUEST, as_template_text, open_reader
    from trimpi.policy_view.show import prompt_segments
    from trimpi.prompt import build_messages

    policy = read_policy_file(written(folder, HEAD + "![](images/knife.png)" + BODY))
    reader = open_reader("package://trimpi/models/tiny-vlm")
    segments = prompt_segments(policy, reader)
    joined = "".join(reader.processor.image_token if s.path else s.text for s in segments)
    assert joined == as_template_text(reader, build_messages(REQUEST, policy))
    shown = "".join(s.text for s in segments if s.kind == "policy")
    marks = "<|vision_start|><|vision_end|>"
    assert shown == marks + BODY.replace("![](images/knife.png)", marks) + "\n\n"


def test_the_page_is_self_contained_and_escaped(folder: Path) -> None:
    file = written(folder, HEAD + BODY + "<script>x</script>\n")
    page = folder / "page.html"
    result = call("show", file, "--html", page)
    assert result.exit_code == 0, result.output
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 1 and "&lt;script&gt;" in text
    assert not re.search(r"<script|(src|href)=\"(?!data:)", text)
    assert "item is knife and place is kitchen" in text and "otherwise" in text
    assert not list(folder.glob(".*.part"))
    result = call("show", file, "--html", file / "x.html")
    assert result.exit_code == 2 and "cannot be written" in result.stderr


def test_a_diff_in_words_and_outcomes(folder: Path) -> None:
    old = written(folder, HEAD + BODY)
    new = BODY.replace("is knife, the", "is knife or bottle, the").replace("Weapons", "Arms")
    head = HEAD.replace("version: 2", "version: 3").replace("[kitchen,", "[yard, kitchen,")
    result = call("diff", old, written(folder, head + new + "- **R4.** Be kind.\n", "new.md"))
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "Ostrel, version 2 -> Ostrel, version 3",
        "added        1  R4",
        "removed      0",
        "changed      1  R2",
        "unchanged    2  R1, R3",
        "R4: {+Be kind.+}",
        "R2: If item is knife{+ or bottle+}, the response is `block`.",
        "text outside of rules: changed",
        "  -# Weapons",
        "  +# Arms",
        "attribute place: kitchen, street -> yard, kitchen, street",
        "outcomes: 2 of 6 combinations of attribute values (33.3%) get another outcome",
        "  item bottle: allow (R3) -> block (R2)",
        "  not counted: R4 (not checkable)",
    ]


def test_a_diff_of_policies_without_checkable_rules_and_of_none(folder: Path) -> None:
    plain = written(folder, "---\nname: A\n---\nBe kind.\n")
    assert "outcomes: not compared" in call("diff", plain, plain).stdout
    bad = written(folder, "---\nname: 7\n---\n![](none.png)\n", "bad.md")
    result = call("diff", bad, folder / "absent.md")
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 3


def test_a_mistyped_key_is_told_once(folder: Path) -> None:
    head = HEAD.replace("---\n", "---\nversoin: 2\n", 1)
    code, lines, _ = lint(folder, head + "- **R1.** If item is knife, the response is `block`.\n")
    assert code != 0 and sum("versoin" in line for line in lines) == 1
