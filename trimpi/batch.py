"""From messages to model inputs: token ids, labels and pixels; the paper's two loss masks.

The prompt comes from the chat template; the completion is tokenized on its own and put behind it,
so that the prompt of training is the prompt of inference by construction. Nothing is truncated:
`check_budgets` refuses rows that do not fit, before any weights are loaded.
"""

import weakref
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trimpi.errors import UserError
from trimpi.pictures import Expansion, join_pixels, store_of
from trimpi.prompt import Message

IGNORED = -100
"""Label of a token that is not in the loss."""
_SENTINEL = "Completion0Goes0Here"


@dataclass(frozen=True)
class Encoded:
    """One sequence: ids, labels (`IGNORED` outside the loss), and the pictures that it shows.

    `types` are token-wise inputs that some families need beside the ids, by input name. All lists
    have the same length.
    """

    input_ids: list[int]
    labels: list[int]
    types: dict[str, list[int]]
    pictures: tuple[str, ...]


@dataclass(frozen=True)
class Turn:
    """What the chat template puts around an assistant's text: `lead` text `end`."""

    lead: str
    end: str


def completion_mask(prompt_length: int, length: int) -> list[bool]:
    """Stage 2 (CoT SFT): the loss sees the completion alone.

    Returns:
        One flag a token of a sequence of `length`, True from position `prompt_length` on.
    """
    return [position >= prompt_length for position in range(length)]


def text_mask(
    input_ids: list[int], visual: Collection[int], pictures: Iterable[list[int]] = ()
) -> list[bool]:
    """Stage 1 (VM-CPT): the paper's m_t, True for every token that is not visual.

    Args:
        input_ids: the whole sequence (P, I, Q, C, A).
        visual: ids of placeholders and boundary marks (`model.visual_token_ids`).
        pictures: the run of tokens that each picture became, in reading order. What lies between
            the first and the last visual token of a run (some families write line breaks between
            rows of tiles) is visual too.
    """
    mask = [token not in visual for token in input_ids]
    start = 0
    for run in pictures:
        places = [place for place, token in enumerate(run) if token in visual]
        inner = run[places[0] : places[-1] + 1]
        while input_ids[start : start + len(inner)] != inner:
            start = input_ids.index(inner[0], start + 1)
        mask[start : start + len(inner)] = [False] * len(inner)
        start += len(inner)
    return mask


def encode_prompt(processor: Any, messages: list[Message]) -> dict[str, Tensor]:
    """Model inputs of one prompt, ready to generate from: ids [1, T], mask [1, T], pixels.

    Raises:
        UserError: a picture cannot be read, or the text holds a placeholder of its own.
    """
    batch = collate(processor, [encode_text(processor, messages)], side="left")
    del batch["labels"]
    return batch


def encode_text(processor: Any, messages: list[Message]) -> Encoded:
    """A prompt that ends where the assistant's turn begins; nothing in the loss."""
    text = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    pictures = picture_paths(messages)
    pieces = text.split(processor.image_token)
    if len(pieces) != len(pictures) + 1:
        raise UserError(
            f"a prompt with {len(pictures)} pictures holds {len(pieces) - 1} placeholders "
            f"{processor.image_token!r}; remove that word from policy and query, or use a chat "
            "template that keeps pictures in their place"
        )
    store = store_of(processor)
    shown = [store.expansion(path) for path in pictures]
    whole = pieces[0] + "".join(e.text + piece for e, piece in zip(shown, pieces[1:], strict=True))
    # As in apply_chat_template: a template that writes the first token itself gets no second one.
    begin = processor.tokenizer.bos_token
    special = not (begin and whole.startswith(begin))
    ids = processor.tokenizer(whole, add_special_tokens=special)["input_ids"]
    return Encoded(ids, [IGNORED] * len(ids), _types(ids, shown), pictures)


def encode_example(
    processor: Any,
    messages: list[Message],
    completion: str,
    supervise: Literal["completion", "text"],
    visual: Collection[int] = frozenset(),
) -> Encoded:
    """A training sequence: prompt, completion and the token that ends the turn.

    Args:
        processor: of the model.
        messages: the prompt.
        completion: what the assistant is to write.
        supervise: "completion" (SFT) or "text" (VM-CPT: everything that is not visual).
        visual: ids of visual tokens, needed for "text".
    """
    if supervise == "text" and not visual:
        raise ValueError("the text mask needs the ids of the visual tokens")
    prompt = encode_text(processor, messages)
    added = completion_ids(processor, completion)
    ids = prompt.input_ids + added
    if supervise == "completion":
        mask = completion_mask(len(prompt.input_ids), len(ids))
    else:
        store = store_of(processor)
        mask = text_mask(ids, visual, [store.expansion(path).ids for path in prompt.pictures])
    labels = [token if kept else IGNORED for token, kept in zip(ids, mask, strict=True)]
    types = {name: values + [0] * len(added) for name, values in prompt.types.items()}
    return Encoded(ids, labels, types, prompt.pictures)


def completion_ids(processor: Any, completion: str) -> list[int]:
    """Token ids of an assistant's text as it stands behind a prompt, turn end included."""
    turn = turn_of(processor)
    text = turn.lead + completion + turn.end
    ids: list[int] = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def turn_end(processor: Any) -> str:
    """Text that closes an assistant's turn; generation stops at its first token."""
    return turn_of(processor).end


def turn_of(processor: Any) -> Turn:
    """Read from the chat template what it puts around an assistant's text."""
    if processor not in _turns:
        user = {"role": "user", "content": [{"type": "text", "text": "?"}]}
        said = {"role": "assistant", "content": [{"type": "text", "text": _SENTINEL}]}
        prompt = processor.apply_chat_template([user], add_generation_prompt=True, tokenize=False)
        whole = processor.apply_chat_template([user, said], tokenize=False)
        before, found, after = whole.rpartition(_SENTINEL)
        if not found:
            raise UserError("the chat template leaves out the assistant's text; use another one")
        lead = before[len(prompt) :] if before.startswith(prompt) else ""
        end = after.strip() or processor.tokenizer.eos_token
        _turns[processor] = Turn(lead, end)
    return _turns[processor]


def collate(
    processor: Any, rows: Sequence[Encoded], side: Literal["left", "right"] = "right"
) -> dict[str, Tensor]:
    """A padded batch: `input_ids`, `attention_mask`, `labels` and token types [B, T], pixels.

    Args:
        processor: of the model.
        rows: the sequences.
        side: where padding goes; left for generation.
    """
    batch = pad_rows(rows, processor.tokenizer.pad_token_id, side)
    store = store_of(processor)
    return batch | join_pixels([[store.pixels(path) for path in row.pictures] for row in rows])


def pad_rows(
    rows: Sequence[Encoded], pad: int, side: Literal["left", "right"]
) -> dict[str, Tensor]:
    """The token-wise part of a padded batch, each tensor [B, T]; `pad` fills the ids."""
    length = max(len(row.input_ids) for row in rows)

    def padded(lists: Iterable[list[int]], fill: int) -> Tensor:
        filled = []
        for values in lists:
            gap = [fill] * (length - len(values))
            filled.append(gap + values if side == "left" else values + gap)
        return torch.tensor(filled, dtype=torch.long)

    batch = {
        "input_ids": padded((r.input_ids for r in rows), pad),
        "attention_mask": padded(([1] * len(r.input_ids) for r in rows), 0),
        "labels": padded((r.labels for r in rows), IGNORED),
    }
    for name in sorted({name for row in rows for name in row.types}):
        none: list[list[int]] = [row.types.get(name, [0] * len(row.input_ids)) for row in rows]
        batch[name] = padded(none, 0)
    return batch


def picture_paths(messages: list[Message]) -> tuple[str, ...]:
    """Paths of all pictures in reading order."""
    return tuple(
        str(item["image"])
        for message in messages
        if not isinstance(message["content"], str)
        for item in message["content"]
        if item["type"] == "image"
    )


def _types(ids: list[int], shown: list[Expansion]) -> dict[str, list[int]]:
    values: dict[str, dict[int, int]] = {}
    for expansion in shown:
        for name, types in expansion.types.items():
            values.setdefault(name, {}).update({i: t for i, t in types.items() if t})
    return {name: [types.get(i, 0) for i in ids] for name, types in values.items()}


_turns: "weakref.WeakKeyDictionary[Any, Turn]" = weakref.WeakKeyDictionary()
