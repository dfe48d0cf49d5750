"""`trimpi policy diff`: what a new version of a policy changes, in words and in outcomes."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.policy_file import Document, read_document
from trimpi.policy_view.lint import many, title_of
from trimpi.rules.changes import OutcomeChange, diff, outcome_changes, shared_attributes
from trimpi.rules.extents import Extent, Words, box_in_words, count
from trimpi.rules.rule_set import Rule, RuleSet, TooManyParts
from trimpi.terminal_text import harmless

_EXAMPLES = 8
_LINES = 20


def diff_policies(old: Path, new: Path, console: Console) -> None:
    """Print the changes from one policy file to another.

    Raises:
        UserError: all problems of both files at once.
    """
    documents = [read_document(old), read_document(new)]
    problems = [str(error) for d in documents if (error := d.error()) is not None]
    if problems:
        raise UserError.join(problems)
    before, after = (document.policy() for document in documents)
    changes = diff(before, after)
    titles = [title_of(p.name, p.metadata.get("version")) for p in (before, after)]
    console.print(f"{titles[0]} -> {titles[1]}", markup=False)
    for kind in ("added", "removed", "changed", "unchanged"):
        ids = getattr(changes, kind)
        console.print(f"{kind:<10}{len(ids):>4}  {', '.join(ids)}".rstrip(), markup=False)
    texts = [p.metadata.get("conditions", {}) for p in (before, after)]
    for id in changes.removed:
        console.print(_line(f"{id}: ", word_diff(texts[0][id], "")))
    for id in changes.added:
        console.print(_line(f"{id}: ", word_diff("", texts[1][id])))
    for id in changes.changed:
        if texts[0][id] == texts[1][id]:
            console.print(f"{id}: other pictures", markup=False)
        else:
            console.print(_line(f"{id}: ", word_diff(texts[0][id], texts[1][id])))
    for line in _outside(documents, changes.preamble_changed):
        console.print(line, markup=False)
    for line in _front(before, after):
        console.print(line, markup=False)
    for line in _outcomes(documents[0].rule_set, documents[1].rule_set):
        console.print(line, markup=False)


def word_diff(old: str, new: str) -> Text:
    """The new text with what is gone as `[-...-]` and what is new as `{+...+}`."""
    left, right = (re.findall(r"\s+|\w+|[^\w\s]", harmless(text)) for text in (old, new))
    shown = Text()
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for kind, i, j, k, m in matcher.get_opcodes():
        if kind == "equal":
            shown.append("".join(left[i:j]))
            continue
        if j > i:
            shown.append(f"[-{''.join(left[i:j])}-]", "red")
        if m > k:
            shown.append(f"{{+{''.join(right[k:m])}+}}", "green")
    return shown


def _line(head: str, text: Text) -> Text:
    return Text(head).append_text(text)


def _outside(documents: list[Document], changed: bool) -> Iterator[str]:
    yield f"text outside of rules: {'changed' if changed else 'unchanged'}"
    if changed:
        old, new = (document.rules.rest.splitlines() for document in documents)
        found = [
            line
            for line in list(difflib.unified_diff(old, new, n=0, lineterm=""))[2:]
            if not line.startswith("@@") and line[1:].strip()
        ]
        yield from (f"  {harmless(line)}" for line in found[:_LINES])
        if len(found) > _LINES:
            yield f"  ... and {len(found) - _LINES} more lines"
        if not found:
            yield "  other pictures"


def _or_none(value: object) -> str:
    return "(none)" if value is None else harmless(str(value))


def _front(before: Policy, after: Policy) -> Iterator[str]:
    for key in ("name", "task", "order"):
        old, new = (
            policy.name if key == "name" else policy.metadata.get(key) for policy in (before, after)
        )
        if old != new:
            yield f"{key}: {_or_none(old)} -> {_or_none(new)}"
    old_set, new_set = (RuleSet.from_metadata(p.metadata) for p in (before, after))
    for name in {**old_set.attributes, **new_set.attributes}:
        was, becomes = old_set.attributes.get(name), new_set.attributes.get(name)
        if was != becomes:
            yield f"attribute {name}: {_values(was)} -> {_values(becomes)}"
    kept = {rule.id for rule in old_set.rules} & {rule.id for rule in new_set.rules}
    orders = [[r.id for r in s.rules if r.id in kept] for s in (old_set, new_set)]
    if orders[0] != orders[1]:
        yield "the rules that both have stand in another order"


def _values(extent: Extent | None) -> str:
    if extent is None:
        return "(none)"
    if isinstance(extent, Words):
        return ", ".join(extent.values)
    return f"{extent.low} to {extent.high}"


def _outcomes(old: RuleSet, new: RuleSet) -> Iterator[str]:
    if not old.checkable or not new.checkable:
        yield "outcomes: not compared; both versions need rules in a checkable form"
        return
    shared = shared_attributes(old, new)
    try:
        changes = outcome_changes(old, new)
    except TooManyParts:
        yield "outcomes: not compared; the rules cut the attributes into too many parts"
        return
    every, other = count(shared), sum(change.combinations for change in changes)
    yield (
        f"outcomes: {other:,} of {every:,} combinations of attribute values "
        f"({other / max(every, 1):.1%}) get another outcome"
    )
    for change in sorted(changes, key=lambda change: -change.combinations)[:_EXAMPLES]:
        yield f"  {_example(change, shared)}"
    if len(changes) > _EXAMPLES:
        yield f"  ... and {many(len(changes) - _EXAMPLES, 'more group')}"
    opened = [rule.id for s in (old, new) for rule in s.rules if rule.when is None]
    if opened:
        yield f"  not counted: {', '.join(dict.fromkeys(opened))} (not checkable)"


def _example(change: OutcomeChange, attributes: dict[str, Extent]) -> str:
    where = box_in_words(change.box, attributes) or "all values"
    return f"{where}: {_decided(change.before)} -> {_decided(change.after)}"


def _decided(rule: Rule | None) -> str:
    return "no rule" if rule is None else f"{rule.outcome or 'no outcome'} ({rule.id})"
