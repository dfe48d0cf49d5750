"""Numbers as people and models write them, read without loss."""

import re
from collections.abc import Sequence
from fractions import Fraction

MAX_LENGTH = 64
MAX_EXPONENT = 308

_DIGITS = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)"
_DECIMAL = re.compile(rf"(?P<sign>[+-]?)(?P<whole>{_DIGITS}(?:\.[0-9]*)?|\.[0-9]+)"
                      r"(?:[eE](?P<exponent>[+-]?[0-9]{1,3}))?")  # fmt: skip
_RATIO = re.compile(rf"(?P<sign>[+-]?)(?:(?P<over>{_DIGITS}) ?/ ?(?P<under>{_DIGITS})|"
                    rf"\\d?frac\{{(?P<over2>{_DIGITS})\}}\{{(?P<under2>{_DIGITS})\}})")  # fmt: skip


def read_number(text: str, units: Sequence[str] = ()) -> Fraction | None:
    """The number that a text is, or None.

    Read are `1234.5`, `1,234.5` (commas in groups of three), `.5`, `3e5`, a fraction of whole
    numbers (`3/4`, `\\frac{3}{4}`), a sign, and one of `units` before or after. Not read are words,
    several numbers, a comma for the decimal point, `inf`, `nan`, and exponents beyond 308.
    """
    text = text.replace("\N{MINUS SIGN}", "-").strip()
    if len(text) > MAX_LENGTH + max(map(len, units), default=0):
        return None
    text = _without_unit(text, units)
    if len(text) > MAX_LENGTH:
        return None
    if match := _RATIO.fullmatch(text):
        over, under = (
            int((match[name] or match[f"{name}2"]).replace(",", "")) for name in ("over", "under")
        )
        return None if under == 0 else Fraction(-over if match["sign"] == "-" else over, under)
    match = _DECIMAL.fullmatch(text)
    if match is None or abs(int(match["exponent"] or 0)) > MAX_EXPONENT:
        return None
    exponent = f"e{match['exponent']}" if match["exponent"] else ""
    return Fraction(match["sign"] + match["whole"].replace(",", "").rstrip(".") + exponent)


def _without_unit(text: str, units: Sequence[str]) -> str:
    for unit in sorted(units, key=len, reverse=True):
        sign = text[:1] if text[:1] in "+-" else ""
        rest = text[len(sign) :]
        if text.endswith(unit):
            return text[: -len(unit)].rstrip()
        if rest.startswith(unit):  # -$5
            return sign + rest[len(unit) :].lstrip()
        if text.startswith(unit):
            return text[len(unit) :].lstrip()
    return text
