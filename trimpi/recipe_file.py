"""Reading a recipe from YAML: overrides, all problems at once, paths made absolute.

Every problem is one line: file and line (or the `--set` that caused it), dotted key, what is
wrong, and for a mistyped name the nearest known one.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trimpi.config_errors import readable
from trimpi.errors import UserError
from trimpi.graders.config import grader_problems
from trimpi.recipe import KINDS, DataConfig, Recipe
from trimpi.recipe_rules import cross_problems, did_you_mean
from trimpi.resolve import resolve_callable
from trimpi.yaml_text import parse_yaml


def load_recipe(file: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe; `overrides` are `dotted.key=value` with the value in YAML.

    Local paths (model, data folders) come back absolute, so that the result can be written
    elsewhere and means the same.

    Raises:
        UserError: all problems at once, one a line.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such recipe file; check the path")
    try:
        data, lines = parse_yaml(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; a recipe is a YAML file") from None
    if not isinstance(data, dict):
        raise UserError(f"{file}: a recipe is a mapping with 'name', 'model', 'data', 'stages'")
    origins = {key: f"{file}:{line}" for key, line in lines.items()}
    problems: list[str] = []
    for override in overrides:
        try:
            origins[_apply(data, override)] = "--set"
        except UserError as error:
            problems.append(str(error))
    found = cross_problems(data)
    recipe = None
    try:
        recipe = Recipe.model_validate(data)
    except ValidationError as error:
        found += [problem for item in error.errors() for problem in _problems(item, data)]
    by_line = sorted(found, key=lambda item: _line_of(lines, item[0]))
    for key, fault in by_line:
        problems.append(f"{_origin(origins, key, str(file))}: {key}: {fault}")
    if problems or recipe is None:
        raise UserError.join(list(dict.fromkeys(problems)))
    return _absolute(recipe, file.resolve().parent)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, defaults written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def recipe_schema() -> dict[str, Any]:
    """JSON schema for editors; a stage named like a kind needs no `kind` there."""
    schema = Recipe.model_json_schema()
    stages = schema["properties"]["stages"]
    union = stages.pop("additionalProperties")
    kinds = union["discriminator"]["mapping"]
    stages["properties"] = {kind: {"$ref": kinds[kind]} for kind in KINDS}
    stages["additionalProperties"] = {"allOf": [union, {"required": ["kind"]}]}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def parse_pairs(pairs: Sequence[str]) -> dict[str, Any]:
    """`key=value` pairs with values in YAML, dots for nested keys, as one mapping.

    Raises:
        UserError: all pairs that are not of this form.
    """
    data: dict[str, Any] = {}
    problems = []
    for pair in pairs:
        try:
            _apply(data, pair)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError.join(problems)
    return data


def _apply(data: dict[str, Any], override: str) -> tuple[str, ...]:
    """Set one value in the raw recipe; returns its path."""
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise UserError(f"--set {override}: must be dotted.key=value, e.g. stages.rl.lr=2e-6")
    value, _ = parse_yaml(text, f"--set {key}")
    node: Any = data
    for depth, part in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(node, list):
            if not part.isdigit() or int(part) >= len(node):
                place = ".".join(path[:depth])
                raise UserError(
                    f"--set {key}: {place} is a list of {len(node)}; {part!r} is not an index of it"
                )
            if last:
                node[int(part)] = value
            node = node[int(part)]
        elif isinstance(node, dict):
            if last:
                node[part] = value
            elif node.get(part) is None:
                node[part] = {}
            node = node[part]
        else:
            raise UserError(f"--set {key}: {'.'.join(path[:depth])} is {node!r}, it has no keys")
    return path


def _origin(origins: Mapping[tuple[str, ...], str], key: str, default: str) -> str:
    path = tuple(key.split("."))
    while path:
        if path in origins:
            return origins[path]
        path = path[:-1]
    return default


def _line_of(lines: Mapping[tuple[str, ...], int], key: str) -> int:
    path = tuple(key.split("."))
    return next((lines[path[:n]] for n in range(len(path), 0, -1) if path[:n] in lines), 0)


def _problems(error: Any, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One error of pydantic as (dotted key, what is wrong) pairs."""
    loc, kind = list(error["loc"]), error["type"]
    if loc[:1] == ["grader"]:
        found = grader_problems({**error, "loc": loc[1:]}, data["grader"])
        return [(f"grader{key}", fault) for key, fault in found]
    if len(loc) > 2 and loc[0] == "stages" and loc[2] in KINDS:
        del loc[2]  # the tag of the union, no key of the file
    key = ".".join(map(str, loc))
    if kind == "missing" and not loc:
        return [("recipe", "required key is missing")]
    if kind == "union_tag_not_found":
        hint = did_you_mean(str(loc[-1]), KINDS)
        other = f"Any other name needs 'kind: {'|'.join(KINDS)}'"
        return [(key, f"unknown stage {loc[-1]!r}; {hint} {other}")]
    if kind == "union_tag_invalid":
        tag = error["ctx"]["tag"]
        return [(f"{key}.kind", f"unknown kind of stage {tag!r}; {did_you_mean(tag, KINDS)}")]
    if kind == "value_error" and not loc:
        return []  # faults between parts, reported from the raw data already
    return readable({**error, "loc": loc}, data, Recipe)


def _absolute(recipe: Recipe, base: Path) -> Recipe:
    """Local paths resolved against the recipe file's folder; hub ids and package:// stay."""

    def folder(path: str) -> str:
        return str((base / Path(path).expanduser()).resolve())

    model = recipe.model.path
    hub_like = re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", model)
    if not model.startswith("package://") and (not hub_like or (base / model).is_dir()):
        model = folder(model)
    changes: dict[str, Any] = {"model": recipe.model.model_copy(update={"path": model})}
    grader = recipe.model_dump(mode="json", include={"grader"})["grader"]

    def located(config: DataConfig, key: str) -> DataConfig:
        if config.folder:
            return config.model_copy(update={"folder": folder(config.folder)})
        args = _in_recipe(config, key, base, grader)
        return config if args is None else config.model_copy(update={"args": args})

    changes["data"] = located(recipe.data, "data")
    if recipe.replay:
        changes["replay"] = located(recipe.replay, "replay")
    if skills := recipe.evaluation.skills:
        skills = located(skills, "evaluation.skills")
        changes["evaluation"] = recipe.evaluation.model_copy(update={"skills": skills})
    return recipe.model_copy(update=changes)


def _in_recipe(config: DataConfig, key: str, base: Path, grader: Any) -> dict[str, Any] | None:
    """Arguments as a builder's module reads them in a recipe, by its function `in_recipe`.

    None where it has no such function; a module that is not there is told when data are looked at.

    Raises:
        UserError: what the function says.
    """
    assert config.builder is not None
    try:
        function = resolve_callable(f"{config.builder.partition(':')[0]}:in_recipe", key)
    except UserError:
        return None
    try:
        return dict(function(config.args, folder=base, grader=grader))
    except UserError as error:
        raise UserError.join([f"{key}.args.{line}" for line in str(error).splitlines()]) from None
