"""The prompt of a model that judges, and the strict reading of its answer."""

import re
from functools import cache
from importlib.resources import files
from typing import Any

from trimpi.evaluate.referral.judgement import TOP, Judgement, reasoning_of
from trimpi.policy import Policy, TextPart
from trimpi.prompt import Message
from trimpi.sample import Completion, Sample

_SLOT = re.compile(r"\{(policy|request|reasoning)\}")
_MARK = re.compile(r"<(/?)(policy|request|reasoning)>", re.IGNORECASE)
_SCORE = re.compile(r"Score: ([0-9]{1,2})")


@cache
def template() -> str:
    """The text of the prompt with its three slots."""
    return files(__package__).joinpath("prompt.txt").read_text(encoding="utf-8").strip()


def judge_messages(
    sample: Sample, policy: Policy, completion: Completion, pictures: bool = True
) -> list[Message]:
    """What a judge is asked: the policy, its pictures in place, the request, the reasoning.

    The request's own pictures are left out: citations are judged, not what is seen.

    Args:
        sample, policy, completion: what is judged.
        pictures: False puts "[picture]" in the place of each picture of the policy.
    """
    content: list[dict[str, Any]] = []

    def text(words: str) -> None:
        if content and content[-1]["type"] == "text":
            content[-1]["text"] += words
        elif words:
            content.append({"type": "text", "text": words})

    # Pieces are put in once and never read again: what is judged may hold slots and marks.
    for place, piece in enumerate(_SLOT.split(template())):
        if place % 2 == 0:
            text(piece)
        elif piece == "request":
            text(_inert(sample.query.strip()))
        elif piece == "reasoning":
            text(_inert(reasoning_of(completion)))
        else:
            for part in policy.parts:
                if isinstance(part, TextPart):
                    text(_inert(part.text))
                elif pictures:
                    content.append({"type": "image", "image": part.path})
                else:
                    text("[picture]")
    return [{"role": "user", "content": content}]


def read_score(answer: str, truncated: bool = False) -> Judgement:
    """The score in the last line, `Score: N` with N from 0 to 10 and nothing else in the line.

    Anything else is unreadable: no score is guessed.
    """
    *reason, last = [line.strip() for line in answer.strip().splitlines()] or [""]
    match = _SCORE.fullmatch(last)
    if truncated:
        return Judgement(None, "the length limit cut the judge's answer off", unreadable=True)
    if match is None or int(match[1]) > TOP:
        shown = last if len(last) <= 80 else last[:77] + "..."
        return Judgement(
            None, f"the judge's answer ends in {shown!r}, not in 'Score: N'", unreadable=True
        )
    return Judgement(float(match[1]), " ".join(" ".join(reason).split())[:300])


def _inert(text: str) -> str:
    """Marks of the prompt in a text of others, written so that they close nothing."""
    return _MARK.sub(r"<\1 \2>", text)
