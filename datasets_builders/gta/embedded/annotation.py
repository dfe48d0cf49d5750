"""What is known about a picture: texts, objects with boxes, counts, a description, a formula."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Text:
    """A piece of legible text and where it stands."""

    text: str
    box: Box


@dataclass(frozen=True)
class Thing:
    """An object under all names that a request may call it by; `attributes` such as `color`."""

    names: tuple[str, ...]
    box: Box
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Annotation:
    """All that tools can say about a picture.

    `counts` has numbers of what is not annotated object by object; `latex` is the formula that the
    picture shows.
    """

    size: tuple[int, int]
    description: str
    texts: tuple[Text, ...] = ()
    things: tuple[Thing, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    latex: str = ""

    def count(self, name: str) -> int:
        """How many there are of what goes by `name`.

        Raises:
            KeyError: nothing goes by it.
        """
        if name in self.counts:
            return self.counts[name]
        if not (found := sum(name in thing.names for thing in self.things)):
            raise KeyError(name)
        return found

    def to_json(self) -> dict[str, Any]:
        """As JSON values; what is empty is left out."""
        return {key: value for key, value in asdict(self).items() if value}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Annotation":
        """The annotation that `to_json` wrote, or that a YAML file holds in the same form."""
        texts = tuple(Text(row["text"], _box(row["box"])) for row in record.get("texts", ()))
        things = tuple(
            Thing(tuple(row["names"]), _box(row["box"]), dict(row.get("attributes", {})))
            for row in record.get("things", ())
        )
        width, height = record["size"]
        counts, latex = dict(record.get("counts", {})), record.get("latex", "")
        return cls((width, height), record["description"], texts, things, counts, latex)


def _box(values: Any) -> Box:
    left, top, right, bottom = values
    return left, top, right, bottom
