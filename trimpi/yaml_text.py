"""YAML as people write it: safe, without the surprises of YAML 1.1, with the line of each key."""

import re
from typing import Any

import yaml

from trimpi.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe YAML with the plain scalars of YAML 1.2: 1e-6 is a float, yes and no are words."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own attribute)


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?([0-9]+\.[0-9]*([eE][-+]?[0-9]+)?|\.[0-9]+([eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)"
        r"|[-+]?\.inf|\.nan",
        list("-+0123456789."),
    ),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first
    )
_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(node.value))


MOST_ENTRIES = 100_000
"""Entries of a text, each as often as aliases repeat it: a few lines can stand for billions."""


def parse_yaml(text: str, where: str) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The data of a YAML text, and the line of each key.

    Raises:
        UserError: the text is not YAML, a mapping holds a key twice, or aliases make it too long.
    """
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # a character that YAML does not allow
        raise UserError(f"{where}: not YAML ({' '.join(str(error).split())})") from None
    try:
        node = loader.get_single_node()
        lines: dict[tuple[str, ...], int] = {}
        if twice := _note_lines(node, (), lines):
            raise UserError.join(
                [f"{where}:{line}: {key}: key given twice; keep one" for key, line in twice]
            )
        return (None if node is None else loader.construct_document(node)), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        fault = " ".join(filter(None, [error.context, error.problem]))
        place = where if where.startswith("--set") else f"{where}:{line}"
        raise UserError(f"{place}: not YAML ({fault}); correct it") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise UserError(f"{where}: not YAML ({' '.join(str(error).split())})") from None
    finally:
        loader.dispose()


def _note_lines(
    node: Any, path: tuple[str, ...], lines: dict[tuple[str, ...], int]
) -> list[tuple[str, int]]:
    twice = []
    if len(lines) > MOST_ENTRIES:
        raise ValueError(f"more than {MOST_ENTRIES} entries")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*path, str(key.value))
            if here in lines:
                twice.append((".".join(here), key.start_mark.line + 1))
                continue
            lines[here] = key.start_mark.line + 1
            twice += _note_lines(value, here, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            here = (*path, str(index))
            lines[here] = value.start_mark.line + 1
            twice += _note_lines(value, here, lines)
    return twice
