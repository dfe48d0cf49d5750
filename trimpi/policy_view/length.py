"""How long a policy is for a model, and what it costs in every request. Loads no weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimpi.batch import encode_text
from trimpi.errors import UserError
from trimpi.model_source import PACKAGE, locate
from trimpi.pictures import store_of
from trimpi.policy import Policy
from trimpi.processor import load_processor
from trimpi.prompt import Message, build_messages
from trimpi.quiet import quiet
from trimpi.recipe import ModelConfig
from trimpi.sample import Sample

TYPICAL_REQUEST = 150
"""Tokens of a request without the policy: a picture, a question, the template."""
REQUEST = Sample(id="request", images=(), query="(the request)", policy=None, answer="")


@dataclass(frozen=True)
class Length:
    """Tokens that a policy adds to a prompt: of its text, and of its pictures.

    `request` are the tokens of the rest of a prompt; `context` is the model's, None if unbounded.
    """

    text: int
    visual: int
    request: int
    context: int | None

    @property
    def total(self) -> int:
        return self.text + self.visual

    @property
    def share(self) -> float:
        """Of all tokens of a request's prompt."""
        return self.total / max(self.total + self.request, 1)

    def dollars_a_day(self, price: float, requests: int) -> float:
        """What the policy's tokens cost.

        Args:
            price: US dollars for a million input tokens.
            requests: a day.
        """
        return self.total * price * requests / 1e6


@dataclass(frozen=True)
class Reader:
    """A model's processor and the length of its context."""

    name: str
    processor: Any
    context: int | None


def open_reader(model: str) -> Reader:
    """Processor and context of a model.

    Args:
        model: a folder, `package://...`, or a hub id.

    Raises:
        UserError: there is no such model, or it has no processor.
    """
    quiet()
    from transformers import AutoConfig

    local = not model.startswith(PACKAGE) and Path(model).is_dir()
    config = ModelConfig(path=str(Path(model).resolve()) if local else model)
    folder = locate(config, "--model", weights=False)
    processor = load_processor(folder, config)
    try:
        settings = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
    except Exception as error:  # a faulty configuration shows as any kind of error
        line = " ".join(str(error).split())[:300]
        raise UserError(f"--model {model}: no model configuration ({line})") from None
    context = getattr(settings.get_text_config(), "max_position_embeddings", None)
    return Reader(model, processor, context)


def measure(policy: Policy, reader: Reader, request: int = TYPICAL_REQUEST) -> Length:
    """Count a policy's tokens as the difference that it makes to a prompt.

    Raises:
        UserError: the prompt cannot be made: the text holds a placeholder of pictures, or the
            image processor refuses a picture.
    """
    messages = build_messages(REQUEST, policy)
    with_policy = len(encode_text(reader.processor, messages).input_ids)
    without = len(encode_text(reader.processor, build_messages(REQUEST, None)).input_ids)
    store = store_of(reader.processor)
    visual = sum(len(store.expansion(path).ids) for path in policy.images)
    return Length(with_policy - without - visual, visual, request, reader.context)


def as_template_text(reader: Reader, messages: list[Message]) -> str:
    """A prompt as the chat template writes it, one placeholder for each picture."""
    return str(
        reader.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    )
