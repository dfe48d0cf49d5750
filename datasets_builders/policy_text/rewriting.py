"""Richer texts by a model, from the texts that are there: filtered, so that no fact is lost.

The model rewrites the answer of a paraphrase or demonstration and the request of a question or
scenario; the other half stays, so that a scenario keeps the answer that the policy gives.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from datasets_builders.clevr.ontology import ATTRIBUTES
from datasets_builders.cot import Generate
from trimpi.policy import Policy
from trimpi.prompt import Message
from trimpi.sample import Sample

TOKENS = 256
TEMPERATURE = 0.7
LONGEST = 4
"""Longer than so many times the text that it was made from, a text is dropped."""
LONG_WORD, SHARE = 5, 0.5
_ANSWER = (
    "Rewrite this text about policy {name} in your own words, as one paragraph. Keep every name,"
    " number, value and response exactly as it is and in its order, add nothing, and write the text"
    " alone:\n\n{text}"
)
_QUERY = (
    "Rewrite this request under policy {name} in your own words, as a person would put it. Keep"
    " every name, number and value exactly as it is and in its order, do not answer it, and write"
    " the request alone:\n\n{text}"
)
_TURNING = frozenset((
    "except", "least", "less", "more", "most", "must", "never", "no", "not", "only", "otherwise",
    "unless", "without", "yes",
))  # fmt: skip
"""Words that turn a meaning round when they are lost."""


def rewritten(
    rows: Sequence[Sample], policy: Policy, generate: Generate, seed: int
) -> list[Sample]:
    """What the model made of the rows, as further rows; those that lost a fact are left out.

    A request must not hold the answer unless it did before, nor be worded as the recital probe; a
    demonstration must hold the response word for word.
    """
    words = vocabulary(policy)
    unit = str(policy.metadata.get("unit", "Condition"))
    halves = [_half(row) for row in rows]
    prompts = [
        _prompt(_ANSWER if half == "answer" else _QUERY, policy.name, getattr(row, half))
        for row, half in zip(rows, halves, strict=True)
    ]
    written = generate(prompts, max_new_tokens=TOKENS, temperature=TEMPERATURE, seed=seed)
    kept = []
    taken = {(row.query, row.answer) for row in rows}
    for row, half, made in zip(rows, halves, written, strict=True):
        text = _plain(made.text)
        if text == _plain(getattr(row, half)) or made.truncated:
            continue
        if not keeps_facts(getattr(row, half), text, words):
            continue
        if half == "query":
            if _tells(row, text) or is_recital(text, policy.name, unit):
                continue
            new = replace(row, query=text)
        else:
            new = replace(row, answer=text)
            if "case" in row.facts and _response(row.answer).lower() not in text.lower():
                continue
        if (new.query, new.answer) not in taken:
            taken.add((new.query, new.answer))
            kept.append(replace(new, id=f"{row.id}-m", facts={**row.facts, "written": "model"}))
    return kept


def keeps_facts(before: str, after: str, words: frozenset[str]) -> bool:
    """Whether the facts of `before` stand in `after` in the same order, and not much around them.

    The order counts, since a text that changes two branches has the same words. What stands in
    quotes must stay word for word. Of a sentence beside the rules little else can be checked, so
    half of all long words must stay too.
    """
    if not after or len(after) > LONGEST * len(before) + 40:
        return False
    if any(quoted not in after for quoted in re.findall(r'"[^"]+"', before)):
        return False
    told, long = _tokens(after), {t for t in _tokens(before) if len(t) >= LONG_WORD}
    if len(long & set(told)) < SHARE * len(long):
        return False
    left = iter(told)
    return all(any(fact == token for token in left) for fact in facts_of(before, words))


def facts_of(text: str, words: frozenset[str]) -> list[str]:
    """Tokens that carry facts: those with a digit, of `words`, and those that turn a meaning."""
    return [
        token
        for token in _tokens(text)
        if token in words or token in _TURNING or any(c.isdigit() for c in token)
    ]


def vocabulary(policy: Policy) -> frozenset[str]:
    """Words that carry a policy's facts: its name, the names and values of attributes, outcomes,
    tools; and any word in backticks or with a capital inside a sentence.
    """
    metadata = policy.metadata
    found = [policy.name, str(metadata.get("unit", "Condition")), *metadata.get("cases", ())]
    for ruling in (metadata, *(metadata.get("versions") or {}).values()):
        found += _values(ruling.get("attributes"))
        found += [str(rule.get("outcome") or "") for rule in ruling.get("rules") or ()]
    found += metadata.get("versions") or ()
    if "tree" in metadata:
        found += _values(ATTRIBUTES)
    found += re.findall(r"`([^`]+)`", policy.text)
    found += re.findall(r"(?<=[a-z,] )[A-Z]\w+", policy.text)
    return frozenset(token for text in found for token in _tokens(text))


def is_recital(query: str, name: str, unit: str) -> bool:
    """Whether a request is worded as the recital probe words it, for any rule."""
    said = " ".join(re.findall(r"[\w.-]+", query.lower()))
    probe = rf"what does {re.escape(unit.lower())} \S+ of policy {re.escape(name.lower())} say"
    return re.search(probe, said) is not None


def _half(row: Sample) -> str:
    return "answer" if row.facts["kind"] in ("paraphrase", "behaviour") else "query"


def _values(attributes: Any) -> Iterator[str]:
    for name, values in (attributes or {}).items():
        yield str(name)
        if isinstance(values, list | tuple):
            yield from map(str, values)


def _response(answer: str) -> str:
    return answer.rpartition("The response is ")[2].removesuffix(".")


def _tells(row: Sample, text: str) -> bool:
    answer = row.answer.strip(" .").lower()
    return answer in text.lower() and answer not in row.query.lower()


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:[.-][^\W_]+)*", text.lower())


def _plain(text: str) -> str:
    """One paragraph without reasoning and quotes around it."""
    text = " ".join(text.rpartition("</think>")[2].split())
    quoted = len(text) > 1 and text[0] == text[-1] == '"' and '"' not in text[1:-1]
    return text[1:-1].strip() if quoted else text


def _prompt(form: str, name: str, text: str) -> list[Message]:
    content = [{"type": "text", "text": form.format(name=name, text=text)}]
    return [{"role": "user", "content": content}]
