"""What is wrong with a policy file: reading, rules, length; everything in one pass."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from trimpi.control_tokens import control_tokens, held
from trimpi.policy_file import KEYS, Document, located
from trimpi.recipe_rules import did_you_mean
from trimpi.rules.rule_set import RuleSet
from trimpi.rules.text import IMAGE, without_code

Level = Literal["unreadable", "fault", "warning"]
LONG = 0.5
"""Share of a model's context beyond which a policy is called very long."""
_GAPS_SHOWN, _OTHERS_SHOWN = 5, 20


@dataclass(frozen=True)
class Finding:
    """One line about a place of the file; `line` 0 for the file as a whole."""

    level: Level
    line: int
    words: str


def lint(document: Document) -> list[Finding]:
    """All that can be said without a model, in the order of the file."""
    found = [
        Finding("unreadable" if p.kind == "unreadable" else "fault", p.line, p.words)
        for p in document.problems
    ]
    if document.body.strip():
        found += _front(document)
        found += _marks(document)
        found += _rules(document)
    return sorted(dict.fromkeys(found), key=lambda finding: finding.line)


def in_place(document: Document, finding: Finding) -> str:
    """`file:line: what is wrong`."""
    return located(document.file, finding.line, finding.words)


def control_findings(document: Document, tokenizer: Any) -> list[Finding]:
    """Marks of the chat template in a policy's text, which would end its turn or open another."""
    return [
        Finding(
            "fault",
            document.line_of(at),
            f"{token!r} is a control token of the model, not text; write it in another way",
        )
        for at, token in held(document.body, control_tokens(tokenizer))
    ]


def length_findings(total: int, request: int, context: int | None, model: str) -> list[Finding]:
    """A policy against a model's context."""
    if context is None:
        return []
    if total + request > context:
        words = (
            f"{total} tokens for {model}, and {request} of a request, exceed its context of "
            f"{context}; shorten the policy or take a model with a longer context"
        )
        return [Finding("fault", 0, words)]
    if total > LONG * context:
        words = f"very long: {total} tokens are {total / context:.0%} of the context of {model}"
        return [Finding("warning", 0, words)]
    return []


def _front(document: Document) -> Iterator[Finding]:
    for key in document.front:
        # One that is near a known key is a fault already.
        if key not in KEYS and not did_you_mean(str(key), KEYS).startswith("did you mean"):
            line = document.key_lines.get(str(key), 1)
            known = ", ".join(KEYS)
            yield Finding("warning", line, f"{key}: key is not used; known: {known}")
    if "order" in document.front and not document.attributes:
        line = document.key_lines.get("order", 1)
        yield Finding("warning", line, "order: says nothing without attributes")
    asked = {name for rule in document.rules.rules for name in rule.when or ()}
    for name in document.attributes:
        if document.rules.rules and name not in asked:
            line = document.key_lines.get("attributes", 1)
            yield Finding("warning", line, f"attributes.{name}: no checkable rule asks for it")


def _marks(document: Document) -> Iterator[Finding]:
    """Marks that look like pictures and would reach the model as text."""
    plain = without_code(document.body)
    rest = IMAGE.sub(lambda match: " " * len(match[0]), plain)
    for match in re.finditer(r"(?<!\\)!\[[^\[\]\n]*\][^\s.,;]*|<img\b[^>\n]*>?", rest):
        words = f"{match[0][:60]!r} reaches the model as text; pictures are written ![](file)"
        yield Finding("warning", document.line_of(match.start()), words)


def _rules(document: Document) -> Iterator[Finding]:
    offset = document.body_line - 1
    lines = {entry.rule.id: offset + entry.line for entry in reversed(document.rules.found)}
    for at, id in document.rules.nearly:
        words = (
            f"begins like a rule, but {id} alone is not in bold; write **{id}.** and then the text"
        )
        yield Finding("warning", offset + at, words)
    if not lines:
        words = (
            "no rules found (a rule begins a line with its id in bold, such as **R1.**); rule "
            "coverage, the recital probe and texts about rules need them"
        )
        yield Finding("warning", 0, words)
        return
    ids, nearly = list(lines), {id for _, id in document.rules.nearly}
    for at, id in document.rules.mentions:
        if id not in lines and id not in nearly:
            words = f"refers to {id}, but there is no such rule (known: {_few(ids[::-1])})"
            yield Finding("fault", offset + at, words)
    units = Counter(entry.unit for entry in document.rules.found if entry.unit)
    if len(units) > 1:
        words = f"rules are called {' and '.join(sorted(units))}; call all of them alike"
        yield Finding("warning", 0, words)
    for entry in document.rules.found:
        line = offset + entry.line
        if entry.cut:
            words = (
                f"{entry.rule.id}: ends within a sentence; the next line is not part of it: indent "
                "that line, or put a blank line between"
            )
            yield Finding("warning", line, words)
        if document.attributes and entry.rule.when is None and entry.rule.text:
            level: Level = "fault" if "did you mean" in entry.said.why else "warning"
            if entry.said.why:
                yield Finding(level, line, f"{entry.rule.id}: not checkable: {entry.said.why}")
    yield from _faults(document)


def _faults(document: Document) -> Iterator[Finding]:
    rules = _with_own_ids(document)
    lines = {
        rule.id: document.body_line - 1 + entry.line
        for rule, entry in zip(rules.rules, document.rules.found, strict=True)
    }
    open_rules = [rule.id for rule in rules.rules if rule.when is None]
    gaps = 0
    others: Counter[str] = Counter()
    for fault in rules.faults():
        if fault.kind != "gap":
            others[fault.kind] += 1
            if others[fault.kind] > _OTHERS_SHOWN:
                continue
            at = max((lines[id] for id in fault.rules), default=0)
            if fault.kind == "unreachable":
                at = lines[fault.rules[0]]
            level: Level = "warning" if fault.kind == "unproven" else "fault"
            yield Finding(level, at, f"{fault.kind}: {fault.words}")
            continue
        gaps += 1
        if gaps > _GAPS_SHOWN:
            continue
        if open_rules:
            unless = f"unless one that is not checkable does ({_few(open_rules)})"
            words = f"gap: {fault.words}, {unless}"
            yield Finding("warning", 0, words)
        else:
            words = f"gap: {fault.words}; add a rule, or one that begins with Otherwise"
            yield Finding("fault", 0, words)
    for kind, count in others.items():
        if count > _OTHERS_SHOWN:
            yield Finding("fault", 0, f"{kind}: {count - _OTHERS_SHOWN} more")
    if gaps > _GAPS_SHOWN:
        level = "warning" if open_rules else "fault"
        yield Finding(level, 0, f"gap: {gaps - _GAPS_SHOWN} more")


def _with_own_ids(document: Document) -> RuleSet:
    """The rules; one whose id was given before is called by its line too."""
    rules, seen = [], set()
    for entry in document.rules.found:
        line = document.body_line - 1 + entry.line
        again = entry.rule.id in seen
        seen.add(entry.rule.id)
        rules.append(
            replace(entry.rule, id=f"{entry.rule.id} (line {line})") if again else entry.rule
        )
    return replace(document.rule_set, rules=tuple(rules))


def _few(ids: list[str]) -> str:
    return ", ".join(ids) if len(ids) <= 6 else f"{', '.join(ids[:3])}, ... {ids[-1]}"


def exit_code(findings: list[Finding]) -> int:
    """0 clean or warnings alone, 1 faults, 2 something that cannot be read."""
    levels = {finding.level for finding in findings}
    return 2 if "unreadable" in levels else 1 if "fault" in levels else 0
