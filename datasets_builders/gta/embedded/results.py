"""What tools say of annotated pictures, and the values of expressions."""

from collections.abc import Mapping
from typing import Any

from datasets_builders.gta.embedded.annotation import Annotation, Box
from datasets_builders.gta.expression import value_of

MAKE_PICTURES = ("AddText", "DrawBox", "ImageStylization", "Plot", "TextToImage")
"""Tools whose result is a new picture."""
WRITTEN = ("GoogleSearch", "Solver")
"""Tools whose result cannot be derived here; a task gives it in words."""


def derive(
    tool: str, arguments: Mapping[str, Any], pictures: Mapping[str, Annotation], math: bool
) -> str:
    """The result of a call whose result follows from annotations or from arithmetic.

    Args:
        tool: name without version.
        arguments: of the call.
        pictures: annotations by the names that calls use.
        math: whether the call reads a mathematical expression.

    Raises:
        ValueError: the picture shows no such thing, or the expression has no value.
    """
    if tool == "Calculator":
        return _calculated(arguments["expression"])
    name = str(arguments.get("image"))
    if name not in pictures:
        raise ValueError(f"{tool} on {name!r}, of which nothing is known")
    seen = pictures[name]
    match tool:
        case "ImageDescription":
            return seen.description
        case "OCR":
            return _read(seen, name, math)
        case "CountGivenObject":
            return str(_count(seen, name, arguments["text"]))
        case "TextToBbox":
            found = _boxes(seen, name, arguments["text"])
            shown = found[:1] if arguments.get("top1", True) else found
            return "\n".join(f"{written(box)}, score 100" for box in shown)
        case "RegionAttributeDescription":
            return _attribute(seen, name, arguments["bbox"], arguments["attribute"])
    raise ValueError(f"the result of {tool} cannot be derived")


def named_boxes(tool: str, arguments: Mapping[str, Any], seen: Annotation) -> dict[str, str]:
    """Boxes that a call returns, by what they hold; an object found is known by the words given."""
    if tool == "OCR":
        return {text.text: written(text.box) for text in seen.texts}
    if tool == "TextToBbox":
        first, *_ = _boxes(seen, "", arguments["text"])
        return {arguments["text"]: written(first)}
    return {}


def written(box: Box) -> str:
    """A box as GTA writes it: `(x1, y1, x2, y2)`."""
    return f"({', '.join(map(str, box))})"


def _calculated(expression: str) -> str:
    value = value_of(expression)
    if value is None:
        raise ValueError(f"expression {expression!r} has no value")
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _read(seen: Annotation, name: str, math: bool) -> str:
    if math:
        if not seen.latex:
            raise ValueError(f"{name} shows no formula")
        return seen.latex
    if not seen.texts:
        raise ValueError(f"{name} shows no text")
    return "\n".join(f"{written(text.box)} {text.text}" for text in seen.texts)


def _count(seen: Annotation, name: str, kind: str) -> int:
    try:
        return seen.count(kind)
    except KeyError:
        raise ValueError(f"{name} has no count of {kind!r}") from None


def _boxes(seen: Annotation, name: str, words: str) -> list[Box]:
    found = [thing.box for thing in seen.things if words in thing.names]
    if not found:
        raise ValueError(f"{name} has no {words!r}")
    return found


def _attribute(seen: Annotation, name: str, box: str, attribute: str) -> str:
    for thing in seen.things:
        if written(thing.box) == box and attribute in thing.attributes:
            return thing.attributes[attribute]
    raise ValueError(f"{name}: {attribute!r} of {box} is not annotated")
