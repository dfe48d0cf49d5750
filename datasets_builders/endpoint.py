"""Rationales by a model behind an OpenAI-compatible endpoint.

    generate: {name: "datasets_builders.endpoint:connect", model: gpt-4.1-mini}

Address and key come from OPENAI_BASE_URL and OPENAI_API_KEY alone. Neither is stored, and no
message shows the key, whatever a server or a library puts into its own.
"""

import json
import math
import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from datasets_builders.chat.faults import Faults
from datasets_builders.chat.requests import Endpoint
from datasets_builders.completion_cache import Cached
from trimpi.errors import UserError

DEFAULT_ADDRESS = "https://api.openai.com/v1"
TOKEN_FIELDS = ("max_tokens", "max_completion_tokens")
OWNED = ("model", "messages", "stream", "n", *TOKEN_FIELDS)
"""Fields of a request that `extra` may not set."""
CONNECT_SECONDS = 10.0


def connect(
    model: str,
    *,
    max_retries: int = 5,
    timeout: float = 120.0,
    concurrency: int = 8,
    token_field: str = "max_tokens",
    extra: Mapping[str, Any] | None = None,
) -> Cached:
    """A generator that asks an endpoint; sends nothing before it is called.

    Args:
        model: the model's name at the endpoint.
        max_retries: tries after the first, on connection errors, timeouts, 408, 409, 429, 5xx and
            nonsense.
        timeout: seconds without a byte of the answer after which a try is given up.
        concurrency: requests on their way at a time.
        token_field: how the request names its token limit; OpenAI's reasoning models want
            "max_completion_tokens".
        extra: further fields of the request, e.g. {"reasoning_effort": "low"}; null leaves out a
            field ({"temperature": null} for models that refuse one). Stored in card and cache
            key, so no place for secrets.

    Raises:
        UserError: wrong arguments, no key or address, or the package `openai` is missing.
    """
    extra = {} if extra is None else extra
    problems = _argument_problems(model, max_retries, timeout, concurrency, token_field, extra)
    address = os.environ.get("OPENAI_BASE_URL") or DEFAULT_ADDRESS
    key = os.environ.get("OPENAI_API_KEY") or ""
    problems += _environment_problems(address, key)
    if problems:
        raise UserError.join(problems)
    try:
        from openai import OpenAI, Timeout
    except ImportError:
        raise UserError("the package openai is missing; pip install 'trimpi[endpoint]'") from None
    client = OpenAI(
        base_url=address,
        api_key=key or "none",
        max_retries=max_retries,
        timeout=Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
    )
    settings = {"model": model, "token_field": token_field, "extra": dict(extra)}
    tries = max_retries + 1
    faults = Faults(model, address, key, timeout, tries)
    return Cached(Endpoint(client, settings, faults, tries, concurrency))


def _argument_problems(
    model: Any, max_retries: Any, timeout: Any, concurrency: Any, token_field: Any, extra: Any
) -> list[str]:
    def whole(value: Any, low: int, high: int) -> bool:
        return type(value) is int and low <= value <= high

    problems = []
    if not isinstance(model, str) or not model:
        problems.append(f"model: must be the model's name at the endpoint, found {model!r}")
    if not whole(max_retries, 0, 100):
        problems.append(f"max_retries: must be a whole number from 0 to 100, found {max_retries!r}")
    number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not number or not 0 < timeout < math.inf:
        problems.append(f"timeout: must be a number of seconds above 0, found {timeout!r}")
    if not whole(concurrency, 1, 256):
        problems.append(f"concurrency: must be a whole number from 1 to 256, found {concurrency!r}")
    if token_field not in TOKEN_FIELDS:
        problems.append(f"token_field: must be {' or '.join(TOKEN_FIELDS)}, found {token_field!r}")
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        return [*problems, "extra: must be a mapping of request fields"]
    problems += [
        f"extra.{name}: the generator sets it itself; drop it" for name in OWNED if name in extra
    ]
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError) as error:
        problems.append(f"extra: must be JSON ({error})")
    return problems


def _environment_problems(address: str, key: str) -> list[str]:
    """Faults of the two variables; shows neither, an address may hold a secret too."""
    problems = []
    try:
        parts = urlsplit(address)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine:
        problems.append("OPENAI_BASE_URL: must be http(s)://host[:port]/path, most end in /v1")
    elif parts.username or parts.password or parts.query or parts.fragment:
        problems.append(
            "OPENAI_BASE_URL: must hold no user, password or query; a key goes in OPENAI_API_KEY"
        )
    elif not key and parts.hostname == urlsplit(DEFAULT_ADDRESS).hostname:
        problems.append(
            "OPENAI_API_KEY is not set; export it, or set OPENAI_BASE_URL to a server of your own"
            " (one that asks for no key needs none)"
        )
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        problems.append("OPENAI_API_KEY: holds a space, line break or odd character; set it again")
    return problems
