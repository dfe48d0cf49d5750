"""Names in a recipe ("package.module:Name") to objects, arguments bound before anything heavy."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from trimpi.errors import UserError
from trimpi.recipe_rules import did_you_mean

MODULE_NAME = r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$"
"""What a name looks like."""


def resolve(name: str, where: str) -> Any:
    """Import the object that `name` names.

    Args:
        name: `package.module:Name`, dots allowed after the colon.
        where: the key of the recipe, for the message.

    Raises:
        UserError: the module or the name in it does not exist, or its import fails.
    """
    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise UserError(f"{where}: {name!r} must be 'package.module:name'; correct it")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if missing and (module_name == missing or module_name.startswith(missing + ".")):
            raise UserError(
                f"{where}: no module {missing!r} (from {name!r}); correct the name, or install "
                "the package or add its folder to PYTHONPATH"
            ) from None
        raise UserError(
            f"{where}: module {module_name!r} needs {missing!r}, which is not installed; install it"
        ) from None
    except ImportError as error:
        raise UserError(f"{where}: module {module_name!r} does not import ({error})") from None
    for part in path.split("."):
        if not hasattr(found, part):
            own = getattr(found, "__name__", None)
            public = [
                n
                for n, value in vars(found).items()
                if not n.startswith("_") and callable(value) and value.__module__ == own
            ]
            owner = getattr(found, "__name__", module_name)
            few = 0 < len(public) < 200
            hint = did_you_mean(part, public) if few else "check the spelling"
            raise UserError(f"{where}: {owner!r} has no {part!r}; {hint}")
        found = getattr(found, part)
    return found


def resolve_callable(name: str, where: str) -> Callable[..., Any]:
    """Like `resolve`, for something that is called.

    Raises:
        UserError: not found, or not callable.
    """
    found = resolve(name, where)
    if not callable(found):
        raise UserError(f"{where}: {name!r} is {type(found).__name__}, not a function or class")
    return found  # type: ignore[no-any-return]


def bind_problems(
    function: Callable[..., Any], args: Mapping[str, Any], where: str, given: tuple[str, ...] = ()
) -> list[str]:
    """Faults of calling `function(**args)`, found from its signature without calling it.

    Args:
        function: what will be called.
        args: keyword arguments of the recipe.
        where: dotted key of `args`, for the messages.
        given: names of parameters that the caller fills itself, which `args` may not hold.

    Returns:
        One line per unknown, missing or doubly given argument; empty when the call binds.
    """
    parameters = inspect.signature(function).parameters.values()
    named = [
        p
        for p in parameters
        if p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    ]
    free = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    open_names = [p.name for p in named if p.name not in given]
    problems = []
    for name in args:
        if name in given:
            problems.append(f"{where}.{name}: given by the toolkit itself; drop it")
        elif name not in open_names and not free:
            hint = did_you_mean(name, open_names) if open_names else "it takes none"
            problems.append(f"{where}.{name}: unknown argument; {hint}")
    for parameter in named:
        if parameter.default is parameter.empty and parameter.name not in {*args, *given}:
            problems.append(f"{where}.{parameter.name}: required argument is missing")
    return problems
