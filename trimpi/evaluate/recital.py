"""The recital probe: does the model know the policy's words, beside acting on them?

Each condition of each policy is asked for by its number, without the policy in the prompt. All
conditions of a policy are worded alike, so that a wrong one is similar to the right one; `other`
is that similarity on average, the level to be compared with, and `nearest` says whether the
recited text is closer to the right condition than to any other.
"""

import re
from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from trimpi.errors import UserError
from trimpi.prompt import parse_response
from trimpi.sample import Completion, DataFolder, Sample, Score


def samples(data: DataFolder, split: str) -> list[Sample]:
    """One request per condition of the policies that `split` is under, policies taking turns.

    A condition is called as the policy calls it: `metadata.unit`, "Condition" without it.

    Raises:
        UserError: a policy has no `conditions` (number -> text) in its metadata.
    """
    names = list(dict.fromkeys(s.policy for s in data.read(split) if s.policy is not None))
    turns: list[tuple[int, int, Sample]] = []
    for order, name in enumerate(names):
        policy = data.policies[name]
        conditions = policy.metadata.get("conditions")
        if not isinstance(conditions, dict) or not conditions:
            raise UserError(
                f"policies/{name}.json: no metadata.conditions (number -> text), so nothing to"
                " recite; add them or take 'recital' out of evaluation.settings"
            )
        word = policy.metadata.get("unit", "Condition")
        for index, (number, text) in enumerate(conditions.items()):
            sample = Sample(
                id=f"{name}/{number}",
                images=(),
                query=f"What does {word} {number} of policy {policy.name} say?",
                policy=name,
                answer=text,
                facts={
                    "condition": number,
                    "others": [other for key, other in conditions.items() if key != number],
                },
            )
            turns.append((index, order, sample))
    if not turns:
        raise UserError(f"{data.root}/{split}.jsonl: no row is under a policy to be recited")
    return [sample for *_, sample in sorted(turns, key=lambda turn: turn[:2])]


def grade(sample: Sample, completion: Completion) -> Score:
    """1 when the condition is recited word for word, else 0.

    Parts: `exact`; `similarity` to the gold condition; `other`, the mean similarity of the
    policy's other conditions to it; `nearest`, 1 when no other condition is as similar to what was
    recited. Without a box the text after the reasoning counts.
    """
    said = parse_response(completion.text).answer
    if said is None:
        said = completion.text.rpartition("</think>")[2].strip()
    others: Sequence[str] = sample.facts.get("others", ())
    similarity = token_similarity(said, sample.answer)
    exact = float(_tokens(said) == _tokens(sample.answer))
    parts = {"exact": exact, "similarity": similarity}
    if others:
        parts["other"] = sum(token_similarity(o, sample.answer) for o in others) / len(others)
        parts["nearest"] = float(all(token_similarity(said, o) < similarity for o in others))
    return Score(exact, parts, "" if exact else f"recited {said[:200]!r}")


def token_similarity(left: str, right: str) -> float:
    """1 - edit distance over tokens / length of the longer text.

    Tokens are words and dotted numbers in lower case. 1 for equal texts (two empty ones too), 0
    when nothing aligns.
    """
    return float(Levenshtein.normalized_similarity(_tokens(left), _tokens(right)))


def _tokens(text: str) -> list[str]:
    return re.findall(r"\w+(?:\.\w+)*", text.lower())
