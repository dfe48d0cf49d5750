"""From the argument `generate` of a builder to a generator: found by name, bound, made, cached."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from datasets_builders.completion_cache import Cached, Source
from datasets_builders.cot import Generate
from datasets_builders.hints import hint
from trimpi.errors import UserError

FORM = "must be 'module:name' of a function that makes a generator, or {name: 'module:name', ...}"

Spec = str | Mapping[str, Any] | Callable[..., Any]


@dataclass(frozen=True)
class Resolved:
    """A generator, and what a card says of it."""

    generate: Generate
    name: str
    args: Any
    """`generate` as a card's `args` has it: what completions do not depend on is left out."""

    def about(self) -> dict[str, Any]:
        """Its name and, where it tells, its identity (model, precision, ...), for a card."""
        told = self.generate.source.identity() if isinstance(self.generate, Cached) else {}
        return {"name": self.name, **told}


def spec_problem(value: Any) -> str:
    """What is wrong with the form of `generate`, or ""; never shows a value of a mapping."""
    if value is None or (callable(value) and not isinstance(value, Mapping)):
        return ""
    name = value.get("name") if isinstance(value, Mapping) else value
    return "" if isinstance(name, str) and name.count(":") == 1 else FORM


def resolve_generate(spec: Spec, *, progress: bool = True) -> Resolved:
    """The generator that `spec` names: a function of `module:name` is called with the arguments.

    The function runs in a dry run too: it checks what it can without network and weights, and the
    generator does the rest when it is first asked.

    Args:
        spec: "module:name", {"name": "module:name", <arguments>}, or a generator itself.
        progress: show a bar while completions come in, where they are cached.

    Raises:
        UserError: no such module or function, arguments that it does not take or lacks, or what
            the function itself says.
    """
    if problem := spec_problem(spec):
        raise UserError(f"generate: {problem}")
    if callable(spec):
        name = getattr(spec, "__qualname__", type(spec).__name__)
        return Resolved(_cached(spec, progress), name, name)
    given = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = given["name"]
    arguments = {key: value for key, value in given.items() if key != "name"}
    made = _make(name, arguments)
    if not callable(made) and not isinstance(made, Source):
        raise UserError(f"generate: {name!r} made {type(made).__name__}, which cannot be called")
    generate = _cached(made, progress)
    if isinstance(spec, str):
        return Resolved(generate, name, name)
    lasting = generate.source.settings if isinstance(generate, Cached) else arguments
    kept = {key: value for key, value in arguments.items() if key in lasting}
    return Resolved(generate, name, {"name": name, **kept})


def _make(name: str, arguments: Mapping[str, Any]) -> Any:
    module, _, attribute = name.partition(":")
    try:
        function = getattr(importlib.import_module(module), attribute)
        parameters = inspect.signature(function).parameters
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise UserError(
            f"generate: cannot load {name!r} ({error}); name it 'module:name'"
        ) from None
    if problems := _bind(name, parameters, arguments):
        raise UserError.join(problems)
    try:
        return function(**arguments)
    except UserError as error:
        raise UserError.join([f"generate: {line}" for line in str(error).splitlines()]) from None
    except (ImportError, AttributeError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"generate: {name!r} makes no generator ({type(error).__name__}: {error});"
            " correct its arguments, or the function"
        ) from None


def _bind(
    name: str, parameters: Mapping[str, inspect.Parameter], arguments: Mapping[str, Any]
) -> list[str]:
    """One line for each argument that is unknown or missing."""
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    known = [key for key, parameter in parameters.items() if parameter.kind not in variable]
    free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    problems = [
        f"generate.{key}: unknown argument of {name}; {hint(key, known)}"
        for key in arguments
        if key not in known and not free
    ]
    return problems + [
        f"generate.{key}: missing; {name} needs it"
        for key in known
        if parameters[key].default is inspect.Parameter.empty and key not in arguments
    ]


def _cached(made: Any, progress: bool) -> Generate:
    """A generator that streams gets a cache; any other is taken as it is."""
    if isinstance(made, Cached):
        made.progress = progress
    return Cached(made, progress=progress) if isinstance(made, Source) else made
