"""Rules in the text of a policy: where they begin and end, their ids, and mentions of ids."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trimpi.rules.extents import Extent
from trimpi.rules.rule_set import Rule
from trimpi.rules.sentences import Sentence, with_sentence

IMAGE = re.compile(
    r"(?<!\\)!\[[^\[\]\n]*\]\(\s*(?:<([^>\n]+)>|((?:[^()\s]|\([^()\s]*\))+))"
    r"(?:\s+(?:\"[^\"\n]*\"|'[^'\n]*'))?\s*\)"
)
"""`![alt](path)`, `![alt](<path with spaces>)`, `![alt](path "title")`."""

_NUMBER = r"\d+(?:\.\d+)*"
_ID = (
    rf"(?:(?P<unit>[A-Za-z]+) (?P<of_unit>(?:[A-Za-z]+\.?)?{_NUMBER})"
    rf"|(?P<own>[A-Za-z]+[.-]?{_NUMBER}))"
)
_LIST_MARK = r"[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+)?"
_MARK = r"(?P<mark>[ \t]*(?:(?:[-*+]|\d+[.)])[ \t]+|#{1,6}[ \t]+)?)"
_BEGIN = re.compile(_MARK + r"(\*\*|__)\s*" + _ID + r"\s*[.:]?\s*\2[ \t]*[.:]?(?P<rest>.*)")
UNITS = ("rule", "condition", "clause")
_NEAR = re.compile(
    _LIST_MARK + r"(?P<bold>(?:\*\*|__)\s*)?" + _ID + r"(?P<after>[ \t]*(?:[.:)]|\*\*|__))"
)
_HEADING = re.compile(r"[ \t]{0,3}#{1,6}[ \t]+(.*?)[ \t#]*$")
_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]+")
_FENCE = re.compile(r"[ \t]{0,3}(`{3,}|~{3,})")
_CODE = re.compile(r"`[^`\n]*`")


@dataclass(frozen=True)
class Found:
    """A rule and where it stands.

    `line` counts from 1 in the text; `raw` is its text with pictures; `unit` is the word before
    the id ("" for none); `said` is what its text was taken for; `cut` tells that the next line
    looks like more of it.
    """

    rule: Rule
    line: int
    raw: str
    unit: str
    said: Sentence
    cut: bool


@dataclass(frozen=True)
class RulesInText:
    """All rules of a text, lines that nearly begin a rule as (line, id), and mentions of ids.

    `rest` is the text outside of rules.
    """

    found: tuple[Found, ...]
    nearly: tuple[tuple[int, str], ...]
    mentions: tuple[tuple[int, str], ...]
    rest: str

    @property
    def rules(self) -> tuple[Rule, ...]:
        return tuple(found.rule for found in self.found)

    @property
    def unit(self) -> str:
        """What the policy calls its rules, as in "Condition 1.2"; "Rule" without a word."""
        units = Counter(found.unit for found in self.found if found.unit)
        return units.most_common(1)[0][0] if units else "Rule"


def without_code(text: str) -> str:
    """The text with what stands in fenced blocks and backticks blanked, at its length."""
    lines, fence = [], ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if fence or mark:
            lines.append(" " * len(line))
            if not fence and mark:
                fence = mark[1]
            elif mark and mark[1].startswith(fence) and not line[mark.end() :].strip():
                fence = ""
        else:
            lines.append(_CODE.sub(lambda code: " " * len(code[0]), line))
    return "\n".join(lines)


def find_rules(text: str, attributes: Mapping[str, Extent]) -> RulesInText:
    """Rules of a policy's body.

    A rule begins a line, after a list or heading mark, with its id in bold: `**R1.**`,
    `**R1**:`, `**Condition 1.2**`. It goes on to the next rule, heading or blank line; one in a
    list also ends where the next item or a line that is not indented begins.
    """
    lines = text.split("\n")
    plain = without_code(text).split("\n")
    found: list[Found] = []
    nearly: list[tuple[int, str]] = []
    rest: list[str] = []
    section, at = "", 0
    while at < len(lines):
        begin = _BEGIN.match(lines[at]) if plain[at].strip() else None
        if begin is None:
            if heading := _HEADING.match(plain[at]):
                section = _plain(heading[1])
            near = _NEAR.match(plain[at])
            if near and (near["bold"] or not near["unit"] or near["unit"].lower() in UNITS):
                nearly.append((at + 1, _name(near)))
            rest.append(lines[at])
            at += 1
            continue
        end = _end_of_rule(lines, plain, at, begin)
        raw = " ".join([begin["rest"], *lines[at + 1 : end]])
        text_of_rule = _plain(raw)
        rule, said = with_sentence(Rule(_name(begin), text_of_rule, section), attributes)
        cut = (
            end < len(lines)
            and bool(plain[end].strip())
            and not text_of_rule.endswith((".", "!", "?", ":", ";", "`", ")"))
            and not _starts_block(lines[end])
        )
        found.append(Found(rule, at + 1, raw, begin["unit"] or "", said, cut))
        at = end
    mentions = _mentions(plain, found)
    return RulesInText(tuple(found), tuple(nearly), mentions, "\n".join(rest))


def _end_of_rule(lines: Sequence[str], plain: Sequence[str], at: int, begin: re.Match[str]) -> int:
    mark = begin["mark"]
    listed = bool(mark.strip()) and not mark.strip().startswith("#")
    indent = len(mark) - len(mark.lstrip())
    end = at + 1
    if not _plain(begin["rest"]):  # the text stands in the next paragraph
        while end < len(lines) and not lines[end].strip():
            end += 1
    while end < len(lines) and plain[end].strip():
        line = lines[end]
        if _BEGIN.match(line) or _HEADING.match(line):
            break
        deeper = len(line) - len(line.lstrip()) > indent
        if listed and not deeper:
            break
        if not listed and not deeper and _ITEM.match(line):
            break
        end += 1
    return end


def _starts_block(line: str) -> bool:
    return any(pattern.match(line) for pattern in (_BEGIN, _HEADING, _ITEM)) or line.startswith("|")


def _name(match: re.Match[str]) -> str:
    return match["of_unit"] or match["own"]


def _plain(text: str) -> str:
    """Without pictures, in one line."""
    return " ".join(IMAGE.sub(" ", text).split())


def _mentions(plain: Sequence[str], found: Sequence[Found]) -> tuple[tuple[int, str], ...]:
    """Ids that the text names by the letters or the word of its rules, beside where they begin."""
    letters = {re.match(r"[A-Za-z]*[.-]?", f.rule.id)[0] for f in found}  # type: ignore[index]
    units = {f.unit for f in found if f.unit and f.rule.id[0].isdigit()}
    heads = [re.escape(head) for head in letters if head]
    heads += [f"{re.escape(unit)}s?[ \\t]" for unit in units]
    if not heads:
        return ()
    pattern = re.compile(
        rf"(?<![\w.-])({'|'.join(sorted(heads, key=len, reverse=True))})(\d+(?:\.\d+)*)(?!\w)"
    )
    starts = {f.line for f in found}
    mentions = []
    for number, line in enumerate(plain, 1):
        begin = _BEGIN.match(line) if number in starts else None
        line = IMAGE.sub(" ", line[begin.start("rest") :] if begin else line)
        for match in pattern.finditer(line):
            head = match[1]
            mentions.append((number, match[2] if head[-1].isspace() else head + match[2]))
    return tuple(mentions)


def said_by_rule(line: str) -> str | None:
    """What stands behind the id of a rule that a line begins with, bold or not; None for no rule.

    `**R1.** Stop.`, `- Rule 2: Stop.` and `Condition 1.2: Stop.` begin rules.
    """
    if begin := _BEGIN.match(line):
        return begin["rest"].strip()
    near = _NEAR.match(line)
    if near and (near["bold"] or not near["unit"] or near["unit"].lower() in UNITS):
        return line[near.end() :].strip()
    return None


def heading(line: str) -> int:
    """Level of a Markdown heading, 1 to 6; 0 for any other line."""
    stripped = line.lstrip(" \t")
    return len(stripped) - len(stripped.lstrip("#")) if _HEADING.match(line) else 0
