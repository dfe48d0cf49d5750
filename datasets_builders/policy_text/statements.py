"""What a policy states, sentence by sentence and rule by rule, and of which form each is.

Forms, after CAP-CPT's four kinds of specification, told by these signs:

- factual: no condition, and no word that asks for something.
- behavioural: no condition; `must`, `never`, `do not` ..., or it begins with a verb in the
  imperative.
- conditional: one condition, no exception.
- complex: two or more conditions, a nested one, or an exception.

Conditions of checkable rules are counted as they were read; an earlier rule with another outcome
that takes part of a rule's cases is an exception to it, and `Otherwise` excepts all other rules. A
condition of a decision tree is complex where a branch leads to another condition. Other texts are
told by their words: `if`, `when` ... each begin a condition, `and` or `or` before the next comma
adds one, `unless`, `except`, `otherwise` ... are exceptions.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from datasets_builders.clevr.tree import Node, Tree
from datasets_builders.clevr.wording import condition_text
from trimpi.policy import Policy, TextPart
from trimpi.rules import Rule, RuleSet
from trimpi.rules.conditions import all_in_words
from trimpi.rules.extents import overlap
from trimpi.rules.text import find_rules

Form = Literal["factual", "behavioural", "conditional", "complex"]

_CONDITION = re.compile(
    r"\b(?:if|when|whenever|in case|provided that|as long as|once|while)\b([^,.;:]*)", re.I
)
_EXCEPTION = re.compile(
    r"\b(?:unless|except(?:ing)?|otherwise|apart from|but not|whatever|in place of)\b", re.I
)
_ASKS = re.compile(
    r"\b(?:must|shall|should|never|always|do not|don't|may not|cannot|can't|not allowed|required"
    r"|have to|has to|needs? to)\b",
    re.I,
)
_IMPERATIVE = re.compile(
    r"(?:please\s+)?(?:answer|apply|ask|avoid|begin|call|check|choose|consider|decide|describe"
    r"|explain|find|follow|get|give|go|ignore|judge|keep|look|make|mention|name|read|refuse|reply"
    r"|report|respond|say|show|start|take|tell|treat|use|write)\b",
    re.I,
)
_SPLIT = re.compile(
    r"(?:if|when|whenever)\s+(?P<condition>[^,]+),\s*(?:then\s+)?(?P<rest>.+)", re.I
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])")
_LIST = re.compile(r"[ \t]*(?:[-*+]|\d+[.)])[ \t]+")
_PICTURE = "\ufffc"
_FEWEST_WORDS = 4


@dataclass(frozen=True)
class Statement:
    """One thing that a policy states.

    `id` is that of a rule, None for a sentence beside the rules. `condition` and `outcome` are the
    parts of the text, "" where they could not be told apart; `exceptions` are ids of rules that
    come before this one; `node` is a condition of a decision tree.
    """

    form: Form
    text: str
    id: str | None = None
    condition: str = ""
    outcome: str = ""
    exceptions: tuple[str, ...] = ()
    node: Node | None = None


def statements(policy: Policy) -> list[Statement]:
    """All statements of a policy: sentences beside the rules, then the rules, in their order.

    Rules are taken from `metadata`: `tree` (a ClevrPolicy), `rules` (a policy file), else
    `conditions` with the conditions of `versions` where there are some (a GTAPolicy). A policy
    with none of these is taken sentence by sentence.

    Raises:
        UserError: the metadata are not of the form that builders write.
    """
    return [*_beside_rules(policy), *_rules(policy)]


def form_of(text: str) -> Form:
    """The form of a text, told by its words."""
    conditions = [match[1] for match in _CONDITION.finditer(text)]
    joined = sum(len(re.findall(r"\b(?:and|or)\b", part, re.I)) for part in conditions)
    if len(conditions) + joined >= 2 or _EXCEPTION.search(text):
        return "complex"
    if conditions:
        return "conditional"
    return "behavioural" if _ASKS.search(text) or _IMPERATIVE.match(text) else "factual"


def _rules(policy: Policy) -> Iterator[Statement]:
    metadata = policy.metadata
    where = f"policy {policy.name}: metadata"
    if isinstance(metadata.get("tree"), Mapping):
        for node in Tree.from_json(metadata["tree"]).decisions():
            assert node.yes is not None and node.no is not None
            nested = node.yes.case is None or node.no.case is None
            form: Form = "complex" if nested else "conditional"
            yield Statement(form, condition_text(node), node.condition, node=node)
    elif metadata.get("rules"):
        ruling = RuleSet.from_metadata(metadata, where)
        for rule in ruling.rules:
            yield _of_rule(rule, rule.text, ruling)
    else:
        versions = rule_sets(metadata, where)
        of_id = {rule.id: (rule, ruling) for ruling in versions for rule in ruling.rules}
        for id, text in (metadata.get("conditions") or {}).items():
            if id in of_id:
                yield _of_rule(of_id[id][0], str(text), of_id[id][1])
            else:
                yield _of_text(str(text), str(id))


def rule_sets(metadata: Mapping[str, Any], where: str = "metadata") -> list[RuleSet]:
    """The rules of versioned tools of a GTAPolicy, a set for each tool.

    Raises:
        UserError: they are not of the form that the builder writes.
    """
    versions = metadata.get("versions") or {}
    return [
        RuleSet.from_metadata(content, f"{where}.versions.{tool}")
        for tool, content in versions.items()
    ]


def _of_rule(rule: Rule, text: str, ruling: RuleSet) -> Statement:
    if rule.when is None or rule.outcome is None:
        return _of_text(text, rule.id)
    before = tuple(_exceptions(rule, ruling))
    others = len(ruling.checkable) > 1
    many = len(rule.when) > 1 or bool(before) or (not rule.when and others)
    condition = all_in_words(rule.when) if rule.when else "no other rule holds" if others else ""
    form: Form = "complex" if many else "conditional" if rule.when else form_of(text)
    return Statement(form, text, rule.id, condition, rule.outcome, before if rule.when else ())


def _exceptions(rule: Rule, ruling: RuleSet) -> Iterator[str]:
    """Earlier rules that take a part of the rule's cases and answer otherwise."""
    box = overlap(ruling.attributes, rule.when or {})
    for other in ruling.checkable if ruling.order == "first" else ():
        if other is rule:
            return
        if box and other.outcome != rule.outcome and overlap(box, other.when or {}):
            yield other.id


def _of_text(text: str, id: str | None = None) -> Statement:
    parts = _SPLIT.fullmatch(text.strip())
    condition = parts["condition"].strip() if parts else ""
    outcome = parts["rest"].strip().rstrip(".") if parts else ""
    return Statement(form_of(text), text, id, condition, outcome)


def _beside_rules(policy: Policy) -> Iterator[Statement]:
    """Sentences that are no rule, heading or table; those that hold a picture say little alone."""
    joined = "".join(p.text if isinstance(p, TextPart) else _PICTURE for p in policy.parts)
    rest = find_rules(joined, {}).rest
    ids = sorted(map(str, policy.metadata.get("conditions") or {}), key=len, reverse=True)
    unit = re.escape(str(policy.metadata.get("unit", "Condition")))
    begin = None
    if ids:
        begin = re.compile(
            rf"\W*(?:{unit}\s+)?(?:{'|'.join(map(re.escape, ids))})(?:\W*$|[.:*)]\W)"
        )
    seen = set()
    for line in rest.split("\n"):
        if line.lstrip().startswith(("#", "|", "```", ">")) or (begin and begin.match(line)):
            continue
        item = _LIST.match(line)
        plain = re.sub(r"\*\*|__", "", line[item.end() :] if item else line).strip()
        for sentence in [plain] if item else _SENTENCE_END.split(plain):
            sentence = " ".join(sentence.split())
            enough = len(sentence.split()) >= _FEWEST_WORDS
            if enough and _PICTURE not in sentence and sentence not in seen:
                seen.add(sentence)
                yield _of_text(sentence)
