"""Rows as chats, TRL's `messages`/`images` and `prompt`/`completion`: the policy is taken out."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from trimpi.policy import Policy, TextPart
from trimpi.prompt import INSTRUCTION, parse_response

_HERE = "\ufffc"
"""Where a picture stands in a turn (the object replacement character)."""
_TAG = "<image>"


@dataclass(frozen=True)
class Chat:
    """A chat taken apart. `images` are the pictures of the request; `policy` is the id of the
    policy that stood in it, None for none; `moved` says that pictures stood inside of its text,
    where no prompt of the toolkit has them.
    """

    query: str
    answer: str
    rationale: str | None
    images: tuple[Any, ...]
    policy: str | None
    moved: bool = False


def read_chat(
    record: Mapping[str, Any], images: Sequence[Any], policies: Mapping[str, Policy]
) -> Chat:
    """Take a row apart: the last turn of the assistant is the answer, `<think>` and `\\boxed{}`
    are read, a system turn or leading text that equals a policy is taken out.

    Args:
        record: with `messages`, or with `prompt` and `completion` (texts or turns).
        images: the values of the picture column, in order; turns take them by their placeholders.
        policies: those that may stand in the chat.

    Raises:
        ValueError: what is wrong, in words.
    """
    turns, pictures = _turns(record, list(images))
    role, said = turns.pop()
    if role != "assistant":
        raise ValueError(f"the last turn is of {role!r}; end with the assistant's answer")
    if _HERE in said:
        raise ValueError("the assistant's answer holds a picture; answers are texts, take it out")
    if not turns:
        raise ValueError("has no turn before the answer; put the request there")
    named = None
    cut = 0
    if turns[0][0] == "system":
        _, system = turns.pop(0)
        named = next((id for id, policy in policies.items() if _match(policy, system, True)), None)
        if named is None and system.strip():
            raise ValueError(
                f"the system turn ({_short(system)}) is not the text of "
                f"{_names(policies)}; make them equal, or drop the turn"
            )
        cut = system.count(_HERE)
    if not turns:
        raise ValueError("has no turn of the user; put the request there")
    first = turns[0][1]
    if named is None:
        for id, policy in policies.items():
            if (end := _match(policy, first, False)) is not None:
                named, cut = id, first[:end].count(_HERE)
                turns[0] = (turns[0][0], first[end:])
                break
    query = _request(turns)
    placed = any(_HERE in text for _, text in turns) or cut
    shown = pictures[cut:] if placed else pictures
    answer, rationale = _response(said)
    moved = any(re.search(rf"[^\s{_HERE}]\s*{_HERE}", text) for _, text in turns)
    return Chat(query, answer, rationale, tuple(shown), named, moved)


def _turns(record: Mapping[str, Any], images: list[Any]) -> tuple[list[tuple[str, str]], list[Any]]:
    """Turns as (role, text with marks), and pictures in the order of their marks, then the rest."""
    if record.get("messages") is not None:
        messages = record["messages"]
    else:
        messages = [
            *_as_turns(record.get("prompt"), "user", "prompt"),
            *_as_turns(record.get("completion"), "assistant", "completion"),
        ]
    if not isinstance(messages, list) or not messages:
        raise ValueError("messages must be a list of turns {role, content}; correct the row")
    turns: list[tuple[str, str]] = []
    placed: list[Any] = []
    waiting = list(images)
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ValueError(f"turn {number} must be {{role, content}}; correct it")
        text = ""
        for kind, value in _parts(message.get("content"), number):
            if kind == "text":
                text += value.replace(_HERE, " ")
                continue
            if value is None:
                if not waiting:
                    raise ValueError(
                        f"turn {number} has a picture beyond the {len(images)} of the column "
                        "images; add it there"
                    )
                value = waiting.pop(0)
            placed.append(value)
            text += _HERE
        turns.append((message["role"], text))
    return turns, placed + waiting


def _as_turns(value: Any, role: str, key: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, list):
        return value
    raise ValueError(f"{key} must be a text or a list of turns, found {type(value).__name__}")


def _parts(content: Any, number: int) -> Iterator[tuple[str, Any]]:
    if isinstance(content, str):
        # as LLaMA-Factory and ms-swift mark pictures
        for index, text in enumerate(content.split(_TAG)):
            if index:
                yield "image", None
            yield "text", text
        return
    if not isinstance(content, list):
        raise ValueError(f"turn {number}: content must be a text or a list of parts; correct it")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield "text", part["text"]
        elif kind in ("image", "image_url"):
            yield "image", next((part[k] for k in ("image", "image_url", "url", "path", "base64")
                                 if part.get(k) is not None), None)  # fmt: skip
        else:
            raise ValueError(f"turn {number}: a part must be a text or an image, found {kind!r}")


def _request(turns: Sequence[tuple[str, str]]) -> str:
    """The user's text; several turns are written out with who speaks."""
    texts = [(role, re.sub(rf"[ \t]*{_HERE}[ \t]*", " ", text).strip()) for role, text in turns]
    if len(texts) == 1:
        query = texts[0][1]
    else:
        query = "\n".join(f"{role.capitalize()}: {text}" for role, text in texts if text)
    for line in INSTRUCTION.values():
        query = query.removesuffix(line).rstrip()
    return query


def _response(text: str) -> tuple[str, str | None]:
    response = parse_response(text)
    if response.answer is not None:
        return response.answer, response.rationale
    _, end, tail = text.rpartition("</think>")
    return (tail if end else text).strip(), response.rationale


@lru_cache(maxsize=64)
def _patterns(parts: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    """The policy's text, spacing aside, with marks of its pictures or without."""
    with_marks, without = [], []
    for part in parts:
        words = [re.escape(word) for word in part.split()]
        with_marks += words or ([] if part != _HERE else [_HERE])
        without += [] if part == _HERE else words
    gap = r"\s*"
    return tuple(
        re.compile(r"\s*" + r"\s+".join(words).replace(rf"\s+{_HERE}", gap + _HERE).replace(
            rf"{_HERE}\s+", _HERE + gap) + r"\s*")
        for words in dict.fromkeys((tuple(with_marks), tuple(without)))
    )  # fmt: skip


def _match(policy: Policy, text: str, whole: bool) -> int | None:
    """Where the policy's text ends at the beginning of `text` (all of it, if `whole`)."""
    parts = tuple(p.text if isinstance(p, TextPart) else _HERE for p in policy.parts)
    for pattern in _patterns(parts):
        match = pattern.fullmatch(text) if whole else pattern.match(text)
        if match and match.end():
            return match.end()
    return None


def _names(policies: Mapping[str, Policy]) -> str:
    names = [policy.name for policy in policies.values()]
    return f"policy {names[0]}" if len(names) == 1 else "any of the policies"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) < 50 else line[:47] + "...")
