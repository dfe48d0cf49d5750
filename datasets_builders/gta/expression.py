"""The value of an arithmetic expression that a model wrote, without executing anything.

GTA's Calculator takes "a single Python expression" that may use functions of `math`. Two such
arguments are compared by value, so they must be computed; a model's text is never executed. The
text is parsed into a syntax tree, and a walk over a list of known nodes computes the value under
limits that hold before each operation.
"""

import ast
import math
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

Number = int | float

MAX_CHARACTERS = 1000
MAX_NODES = 300
MAX_DEPTH = 40
MAX_BITS = 4096
"""Of a whole number, at any step; about 1200 digits."""
MAX_ARGUMENT = 500
"""Of functions whose value grows faster than any power."""


class NotAValue(Exception):
    """The text has no value under the rules of this module."""


_NO_VALUE = (
    NotAValue,
    SyntaxError,  # also of too many nested parentheses
    ValueError,  # outside of a function's domain; too many digits
    ArithmeticError,  # division by zero, overflow
    TypeError,  # wrong number or kind of arguments
    RecursionError,
    MemoryError,  # what the parser says of a tree that is too deep
)


def value_of(text: object) -> Number | None:
    """The value of an expression, or None where it has none.

    Numbers, `+ - * / // % **`, parentheses, the constants and functions of `FUNCTIONS` (with or
    without `math.`), and lists or tuples as arguments of `sum`, `min`, `max`, `prod`, `fsum`. None
    stands for everything else: other syntax or names, a value that is complex, infinite, NaN or no
    number, a division by zero, and whatever exceeds the limits of this module.

    Args:
        text: the expression; a number counts as its own expression.

    Returns:
        An `int` or a finite `float`.
    """
    if isinstance(text, int | float) and not isinstance(text, bool):
        try:
            return _number(text)
        except NotAValue:
            return None
    if not isinstance(text, str) or len(text) > MAX_CHARACTERS or not text.isascii():
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the parser warns of odd literals
            tree = ast.parse(text.strip(), mode="eval")
        _check_size(tree)
        return _number(_walk(tree.body))
    except _NO_VALUE:
        return None


def same_value(first: object, second: object) -> bool:
    """Whether two expressions have values, equal to nine digits."""
    one, other = value_of(first), value_of(second)
    if one is None or other is None:
        return False
    try:
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    except OverflowError:  # whole numbers beyond a float
        return one == other


def _check_size(tree: ast.AST) -> None:
    level, nodes, depth = [tree], 0, 0
    while level:
        nodes, depth = nodes + len(level), depth + 1
        if nodes > MAX_NODES or depth > MAX_DEPTH:
            raise NotAValue
        level = [child for node in level for child in ast.iter_child_nodes(node)]


def _walk(node: ast.AST) -> Any:
    """A number, or a list of numbers for `[...]` and `(...)`."""
    match node:
        case ast.Constant(value=value) if type(value) in (int, float):
            return _number(value)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_number(_walk(operand))
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _number(_walk(operand))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _number(OPERATORS[type(op)](_number(_walk(left)), _number(_walk(right))))
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_number(_walk(item)) for item in items]
        case ast.Call(func=function, args=arguments, keywords=[]):
            return _number(_named(function, FUNCTIONS)(*map(_walk, arguments)))
        case ast.Name() | ast.Attribute():
            return _named(node, CONSTANTS)
    raise NotAValue


def _named(node: ast.AST, known: Mapping[str, Any]) -> Any:
    """What `name` or `math.name` stands for."""
    match node:
        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="math"), attr=name):
            if name in known:
                return known[name]
    raise NotAValue


def _number(value: Any) -> Number:
    """`value`, if it is a finite number within the limits."""
    if type(value) is int and value.bit_length() <= MAX_BITS:
        return value
    if type(value) is float and math.isfinite(value):
        return value
    raise NotAValue


def _power(base: Number, exponent: Number) -> Any:
    """`base ** exponent`, refused before it is computed where it would be too large."""
    whole = isinstance(base, int) and isinstance(exponent, int) and exponent > 0
    if whole and base.bit_length() * exponent > MAX_BITS:  # type: ignore[union-attr]
        raise NotAValue
    return base**exponent


def _numbers(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of numbers alone."""

    def checked(first: Any, *rest: Any) -> Any:
        return function(_number(first), *map(_number, rest))

    return checked


def _small(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of small whole numbers."""

    def checked(*arguments: Any) -> Any:
        if not all(type(a) is int and 0 <= a <= MAX_ARGUMENT for a in arguments):
            raise NotAValue
        return function(*arguments)

    return checked


def _round(value: Any, digits: Any = None) -> Any:
    if digits is not None and not (type(digits) is int and abs(digits) <= 20):
        raise NotAValue
    return round(_number(value), digits)


def _of_list(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of one list of numbers."""

    def checked(items: Any, *rest: Any) -> Any:
        if not isinstance(items, list) or rest:
            raise NotAValue
        return function(items)

    return checked


def _product(items: list[Number]) -> Number:
    product: Number = 1
    for item in items:
        product = _number(product * item)
    return product


def _least_multiple(*items: Any) -> Number:
    """`math.lcm`, by pairs: of many numbers at once it would grow before it can be refused."""
    multiple: Number = 1
    for item in map(_number, items):
        multiple = _number(math.lcm(multiple, item))  # type: ignore[arg-type]
    return multiple


def _choose(function: Callable[..., Any]) -> Callable[..., Any]:
    """`min` or `max`: of a list, or of several numbers."""

    def checked(*arguments: Any) -> Any:
        items = arguments[0] if len(arguments) == 1 else list(arguments)
        if not isinstance(items, list) or not items:
            raise NotAValue
        return function(map(_number, items))

    return checked


OPERATORS: dict[type, Callable[[Number, Number], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: _power,
}

CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}

_OF_NUMBERS = [
    "sqrt", "cbrt", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sin", "cos", "tan",
    "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "hypot",
    "degrees", "radians", "fabs", "fmod", "floor", "ceil", "trunc", "isqrt", "gcd", "copysign",
]  # fmt: skip

FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _numbers(getattr(math, name)) for name in _OF_NUMBERS},
    **{name: _small(getattr(math, name)) for name in ("factorial", "comb", "perm")},
    "abs": _numbers(abs),
    "int": _numbers(int),
    "float": _numbers(float),
    "pow": _numbers(_power),
    "round": _round,
    "sum": _of_list(sum),
    "fsum": _of_list(math.fsum),
    "prod": _of_list(_product),
    "lcm": _least_multiple,
    "min": _choose(min),
    "max": _choose(max),
}
"""What may be called, by name; `math.` in front is optional."""
