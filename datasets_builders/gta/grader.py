"""Grading of GTAPolicy: half for the tool, half for its arguments (paper, metrics of GTAPolicy)."""

import json
from functools import lru_cache

from datasets_builders.gta.calls import Call, parse_call
from datasets_builders.gta.scoring import CallScore, lexical_similarity, score_call
from trimpi.errors import UserError
from trimpi.sample import Completion, Sample, Score


def grade(sample: Sample, completion: Completion) -> Score:
    """The overall score of the call in a completion; texts are compared by lexical likeness.

    `parts` holds `tool`, `argument` and the score of each argument as `field/<name>`. A completion
    without a readable call scores 0: it is wrong, not ungradable.

    Raises:
        UserError: the sample's own answer is no call.
    """
    gold, said = _gold(sample.answer, sample.id), parse_call(completion.text)
    found = score_call(gold, said, sample.facts.get("defaults", {}), lexical_similarity)
    return Score(found.overall, _parts(found), _note(gold, said))


def _parts(found: CallScore) -> dict[str, float]:
    fields = {f"field/{name}": value for name, value in found.fields.items() if name}
    return {"tool": found.tool, "argument": found.argument, **fields}


def _note(gold: Call, said: Call | None) -> str:
    if said is None:
        return "no call"
    if said.name != gold.name:
        return f"called {said.name!r}"
    differing = [name for name in gold.arguments if name not in said.arguments]
    return f"left out {', '.join(differing)}" if differing else ""


@lru_cache(maxsize=4096)
def _gold(answer: str, sample_id: str) -> Call:
    try:
        content = json.loads(answer)
        if not isinstance(content["name"], str):
            raise TypeError
        return Call(content["name"], dict(content["arguments"]))
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"row {sample_id!r}: answer is no call; write it as "
            '{"name": "...", "arguments": {...}}'
        ) from None
