"""Errors of pydantic in words: dotted key, what is wrong, the nearest known name."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import MODULE_NAME


def readable(error: Any, data: Any, root: Any) -> list[tuple[str, str]]:
    """One error of pydantic as (dotted key, what is wrong) pairs.

    Args:
        error: of `ValidationError.errors()`, its `loc` without tags of unions.
        data: what was validated.
        root: the type that it was validated against.
    """
    loc, kind, found = list(error["loc"]), error["type"], error.get("input")
    key = ".".join(map(str, loc))
    if kind == "extra_forbidden":
        known = _known_keys(loc[:-1], data, root)
        return [(key, f"unknown key {loc[-1]!r}; {did_you_mean(str(loc[-1]), known)}")]
    if kind == "missing":
        return [(key, "required key is missing")]
    if kind == "value_error":
        return [(key, line) for line in str(error["ctx"]["error"]).splitlines()]
    message = error["msg"].removeprefix("Input ").removeprefix("String ").strip()
    message = message.replace("a valid tuple", "a list").replace("a valid dictionary", "a mapping")
    message = message.replace("a valid mapping", "a mapping").removesuffix(
        " or object to extract fields from"
    )
    if kind == "too_short":
        least = error["ctx"]["min_length"]
        message = f"should have at least {least} {'entry' if least == 1 else 'entries'}"
    if kind == "string_pattern_mismatch":
        named = error["ctx"]["pattern"] == MODULE_NAME
        rule = "be 'package.module:name'" if named else "begin with a letter or digit and hold "
        message = f"should {rule}" + ("" if named else "letters, digits, '.', '_' and '-'")
    if kind == "literal_error" and isinstance(found, str):
        choices = re.findall(r"'([^']*)'", error["ctx"]["expected"])
        return [(key, f"unknown value {found!r}; {did_you_mean(found, choices)}")]
    shown = repr(found)
    return [(key, f"{message}, found {shown if len(shown) < 60 else shown[:57] + '...'}")]


def _known_keys(loc: Sequence[Any], data: Any, root: Any) -> list[str]:
    """Field names of the section at `loc`."""
    annotation: Any = root
    for part in loc:
        raw, data = data, data.get(part) if isinstance(data, Mapping) else None
        models = _models(annotation)
        fields = [m.model_fields[part] for m in models if part in m.model_fields]
        if fields:
            annotation = fields[0].annotation
        elif models and isinstance(raw, Mapping):  # an item of a mapping or list of sections
            annotation = tuple(models)
    models = _models(annotation)
    for tag in ("kind", "type"):  # which of a union
        if len(models) > 1 and isinstance(data, Mapping):
            value = data.get(tag, loc[-1] if loc else None)
            models = [m for m in models if value in _values(m, tag)] or models
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _values(model: type[BaseModel], tag: str) -> tuple[Any, ...]:
    return get_args(model.model_fields[tag].annotation) if tag in model.model_fields else ()


def _models(annotation: Any) -> list[type[BaseModel]]:
    """All sections named in a type annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    parts = annotation if isinstance(annotation, tuple) else get_args(annotation)
    return [model for part in parts for model in _models(part)]
