"""Boxes in pictures: `(x1, y1, x2, y2)` as GTA writes them, and how far two agree."""

import math
import re
from typing import Any

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels."""

_NUMBER = r"(-?\d{1,12}(?:\.\d{0,12})?)"
_BOX = re.compile(r"[(\[]?\s*" + r"\s*,\s*".join([_NUMBER] * 4) + r"\s*[)\]]?")


def parse_box(value: Any) -> Box | None:
    """A box, or None for what is none: malformed, reversed, without area, not finite.

    An area that is no number above 0 in double precision is none.

    Args:
        value: text such as `(10, 20, 110, 220)`, brackets optional, or a list of four numbers.
    """
    if isinstance(value, str):
        match = _BOX.fullmatch(value.strip())
        if match is None:
            return None
        numbers = [float(text) for text in match.groups()]
    elif isinstance(value, list | tuple) and len(value) == 4:
        if not all(type(number) in (int, float) and abs(number) < 1e12 for number in value):
            return None  # NaN is below nothing
        numbers = [float(number) for number in value]
    else:
        return None
    left, top, right, bottom = numbers
    if left >= right or top >= bottom or not (right - left) * (bottom - top) > 0:
        return None
    return left, top, right, bottom


def overlap(first: Any, second: Any) -> float:
    """Intersection over union of two boxes, 0 where one of them is none.

    Boxes are taken as they are: what lies outside of the picture counts for the union.
    """
    one, other = parse_box(first), parse_box(second)
    if one is None or other is None:
        return 0.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    union = math.fsum([*areas, -shared])
    return shared / union
