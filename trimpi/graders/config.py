"""Graders without code, as a recipe declares them: `grader: {type: ..., ...}`.

Everything about a declaration that can be wrong is found when it is read, patterns included.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, field_validator

from trimpi.config_errors import readable
from trimpi.graders.pattern import Pattern
from trimpi.grading import folded
from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import MODULE_NAME

NonNegative = Annotated[float, Field(ge=0, strict=True, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, strict=True, allow_inf_nan=False)]
Flag = Annotated[bool, Field(strict=True)]
Name = Annotated[str, Field(min_length=1)]


class _Declared(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ExactConfig(_Declared):
    """The gold answer, case and spacing aside."""

    type: Literal["exact"]


class ChoiceConfig(_Declared):
    """One of several options, case and spacing aside."""

    type: Literal["choice"]
    options: tuple[str, ...]
    """All answers that there are; a gold answer that is none of them is a fault of the data."""

    @field_validator("options", mode="before")
    @classmethod
    def _as_texts(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        # YAML reads 3 and true as such; an answer is a text
        plain = (bool, int, float)
        return tuple(json.dumps(v) if isinstance(v, plain) else v for v in value)

    @field_validator("options")
    @classmethod
    def _distinct(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        problems, seen = [], dict[str, str]()
        if len(value) < 2:
            problems.append(f"needs two options or more, found {len(value)}")
        for option in value:
            if not folded(option):
                problems.append("an option is empty; write it out or drop it")
            elif (first := seen.setdefault(folded(option), option)) is not option:
                problems.append(f"{option!r} is the same answer as {first!r}; keep one")
        if problems:
            raise ValueError("\n".join(problems))
        return value


class NumberConfig(_Declared):
    """A number near the gold one: within `tolerance` or within `relative` of it."""

    type: Literal["number"]
    tolerance: NonNegative = 0.0
    """Largest difference that is right."""
    relative: Annotated[float, Field(ge=0, lt=1, strict=True)] = 0.0
    """The same as a share of the gold number."""
    units: tuple[Name, ...] = ("%",)
    """What may stand before or after a number and is dropped: 12 % is 12, not 0.12."""


class RegexConfig(_Declared):
    """An answer by a pattern in RE2's syntax, which is matched in linear time."""

    type: Literal["regex"]
    pattern: Name
    """Without a group a match is right; with one, what it holds must equal what it holds in the
    gold answer."""
    fullmatch: Flag = True
    """The whole answer must match; else the pattern may stand anywhere in it."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: str) -> str:
        Pattern(value)
        return value


class _Field(_Declared):
    weight: Positive = 1.0
    """Share of the field in the mean, against the weights of the others."""
    required: Flag = True
    """Every gold answer has the field; else those may leave it out to which it does not apply."""


class ExactField(ExactConfig, _Field):
    """A JSON value that equals the gold one; texts without regard to case and spacing."""


class ChoiceField(ChoiceConfig, _Field):
    """One of several options."""


class NumberField(NumberConfig, _Field):
    """A number, as JSON or as a text that holds one."""


class RegexField(RegexConfig, _Field):
    """A text by a pattern."""


class TextField(_Field):
    """A text by its likeness to the gold one, in [0, 1]: words (F1) and letters (Indel)."""

    type: Literal["text"]


FieldConfig = Annotated[
    ExactField | ChoiceField | NumberField | RegexField | TextField, Field(discriminator="type")
]


class JsonConfig(_Declared):
    """A JSON object, field by field: the weighted mean of the fields' scores."""

    type: Literal["json"]
    fields: Annotated[Mapping[Name, FieldConfig], Field(min_length=1)]
    """The fields that are compared, each by a rule of its own."""


GraderConfig = ExactConfig | ChoiceConfig | NumberConfig | RegexConfig | JsonConfig
"""A grader without code."""

TYPES = ("exact", "choice", "number", "regex", "json")
FIELD_TYPES = ("exact", "choice", "number", "regex", "text")
_NAMED = "package.module:name"


def _tag(value: Any) -> str | None:
    if isinstance(value, str):
        return _NAMED
    found = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
    return found if isinstance(found, str) and found != _NAMED else None


Grading = Annotated[
    Annotated[str, Field(pattern=MODULE_NAME), Tag(_NAMED)]
    | Annotated[ExactConfig, Tag("exact")]
    | Annotated[ChoiceConfig, Tag("choice")]
    | Annotated[NumberConfig, Tag("number")]
    | Annotated[RegexConfig, Tag("regex")]
    | Annotated[JsonConfig, Tag("json")],
    Discriminator(_tag),
]
"""The key `grader` of a recipe: the name of a grader or reward function, or a declaration."""


def grader_problems(error: Any, data: Any) -> list[tuple[str, str]]:
    """One error of pydantic on a `Grading` as (rest of the dotted key, what is wrong) pairs."""
    loc, kind = list(error["loc"][1:]), error["type"]  # without the tag of the union
    of_field = loc[:1] == ["fields"]
    if of_field and len(loc) > 2 and loc[2] != "[key]":
        del loc[2]  # the tag of the inner union
    rest = "".join(f".{part}" for part in loc)
    known = FIELD_TYPES if of_field else TYPES
    if kind == "union_tag_invalid":
        tag = str(error["ctx"]["tag"])
        return [(f"{rest}.type", f"unknown type {tag!r}; {did_you_mean(tag, known)}")]
    if kind == "union_tag_not_found":
        form = f"a mapping with the key 'type' ({', '.join(known)})"
        other = "" if of_field else "'package.module:name', or "
        return [(rest, f"must be {other}{form}, found {_cut(error['input'])}")]
    found = readable({**error, "loc": loc}, data, Grading)
    return [(f".{key}" if key else "", fault) for key, fault in found]


def _cut(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 60 else text[:57] + "..."
