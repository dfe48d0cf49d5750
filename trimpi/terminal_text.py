"""Text of others on the terminal."""

import re


def harmless(text: str) -> str:
    """Control characters escaped: a model's text must not steer the terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", lambda m: f"\\x{ord(m[0]):02x}", text)
