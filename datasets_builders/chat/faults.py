"""What went wrong at an endpoint, in words."""

from typing import Any
from urllib.parse import urlsplit

_DURING_AN_ANSWER = ("RemoteProtocolError", "DecodingError", "ReadError")
"""Exceptions of httpx, the SDK's client, that are met when a server is there already."""


class Faults:
    """One line for each thing that goes wrong; never shows the key."""

    def __init__(self, model: str, address: str, key: str, timeout: float, tries: int) -> None:
        parts = urlsplit(address)
        self.host = parts.hostname or ""
        if parts.port is not None:
            self.host += f":{parts.port}"
        self._model, self._timeout = model, timeout
        self._tried = "tried once" if tries == 1 else f"tried {tries} times"
        # A shorter one is no secret, and its letters stand in every message.
        self._secret = key if len(key) > 3 else ""
        self._has_key = bool(key)

    def failure(self, error: Exception, number: int) -> str:
        """The line for an exception of the SDK, met at prompt `number`."""
        import openai

        if isinstance(error, openai.APITimeoutError):
            fault = (
                f"gives no answer within {self._timeout:g} s, {self._tried}; raise timeout,"
                " or lower concurrency"
            )
        elif isinstance(error, openai.APIConnectionError):
            cause = error.__cause__ or error
            reason = self._shown(str(cause) or type(cause).__name__)
            if type(cause).__name__ in _DURING_AN_ANSWER:
                fault = f"gives no whole answer, {self._tried} ({reason}); look at the server's log"
            else:
                fault = (
                    f"cannot be reached ({reason}); start the server, or correct OPENAI_BASE_URL"
                )
        elif isinstance(error, openai.APIStatusError):
            fault = self._status(error, number)
        else:
            fault = f"fails ({type(error).__name__}: {self._shown(str(error))})"
        return self._line(fault)

    def nonsense(self, what: str) -> str:
        """The line for answers that hold no completion."""
        return self._line(
            f"answers nonsense, {self._tried} ({self._shown(what)}); look whether"
            " OPENAI_BASE_URL names an OpenAI-compatible server of this model"
        )

    def _status(self, error: Any, number: int) -> str:
        code, body = error.status_code, error.body
        message = body.get("message") or body.get("detail") if isinstance(body, dict) else None
        said = f"{code}: {self._shown(str(message or body or 'no reason given'))}"
        if code in (401, 403):
            refusal = "refuses the key" if self._has_key else "asks for a key"
            return f"{refusal} ({said}); set OPENAI_API_KEY"
        if code == 404:
            return f"is not there ({said}); correct model or OPENAI_BASE_URL (most end in /v1)"
        if code == 429:
            return f"turns requests away ({said}); lower concurrency, or look at the quota"
        if code >= 500:
            return f"fails, {self._tried} ({said}); look at the server's log"
        return f"refuses prompt {number} ({said}); correct the arguments"

    def _line(self, fault: str) -> str:
        return f"generate: model {self._model!r} at {self.host} {fault}"

    def _shown(self, text: str) -> str:
        """The key struck out first, then one line of printable characters, cut off."""
        if self._secret:
            text = text.replace(self._secret, "***")
        text = "".join(c if c.isprintable() else " " for c in text)
        line = " ".join(text.split())
        return line if len(line) <= 200 else line[:197] + "..."
