"""Values of expressions: what Python's arithmetic says, and nothing at all for hostile text."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets_builders.gta.expression import FUNCTIONS, same_value, value_of


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("290 / 5", 58.0),
        ("(12 + 3) * 2", 30),
        ("2 ** 10 - 1", 1023),
        ("-7 // 2", -4),
        ("7 % 3", 1),
        ("+5", 5),
        ("1_000 * 2", 2000),
        ("1e3", 1000.0),
        ("0x10", 16),
        ("2 ** -1", 0.5),
        ("math.sqrt(2) ** 2", 2.0000000000000004),
        ("sqrt(16)", 4.0),
        ("pi * 2", 2 * math.pi),
        ("math.factorial(5)", 120),
        ("comb(10, 3)", 120),
        ("round(3.14159, 2)", 3.14),
        ("round(2.5)", 2),
        ("sum([1, 2, 3.5])", 6.5),
        ("sum((1, 2))", 3),
        ("max(3, 9, 4)", 9),
        ("min([3, 9, 4])", 3),
        ("prod([2, 3, 4])", 24),
        ("abs(-3)", 3),
        ("pow(2, 3)", 8),
        ("int(7.9)", 7),
        ("math.log(8, 2)", 3.0),
        ("  3 * 4 \n", 12),
        ("10 ** 400 // 10 ** 399", 10),
        (12, 12),
        (0.5, 0.5),
    ],
)
def test_what_pythons_arithmetic_says(text: object, value: float) -> None:
    found = value_of(text)
    assert found == value and type(found) is type(value)


numbers = st.one_of(
    st.integers(-1000, 1000), st.floats(-1000, 1000, allow_nan=False).map(lambda x: round(x, 3))
)


def both(pair: tuple, sign: str, other: tuple) -> tuple[str, float]:
    (text, value), (text_2, value_2) = pair, other
    result = {"+": value + value_2, "-": value - value_2, "*": value * value_2}[sign]
    return f"({text} {sign} {text_2})", result


expressions = st.recursive(
    numbers.map(lambda n: (repr(n), n)),
    lambda inner: st.builds(both, inner, st.sampled_from("+-*"), inner),
    max_leaves=12,
)


@given(expressions)
def test_sums_and_products_of_any_shape(pair: tuple[str, float]) -> None:
    text, value = pair
    assert value_of(text) == (value if abs(value) < math.inf else None)


def test_the_same_value_written_in_two_ways() -> None:
    assert same_value("290/5", "58") and same_value("0.1 + 0.2", "3 / 10")
    assert same_value(58, "58.0") and same_value("10**400", "10**200 * 10**200")
    assert not same_value("290/5", "59") and not same_value("10**400", "10**400 + 1.5")
    assert not same_value("x", "x") and not same_value("1/0", "1/0")


MARK = "/tmp/trimpi-executed"
CALLS = [
    f"open('{MARK}', 'w')",
    f"__import__('pathlib').Path('{MARK}').touch()",
    "__import__('os').system('true')",
    "eval('1')",
    "exec('x=1')",
    "compile('1', '', 'eval')",
    "globals()",
    "locals()",
    "vars()",
    "dir()",
    "input()",
    "print(1)",
    "breakpoint()",
    "exit()",
    "quit()",
    "getattr(1, 'real')",
    "type(1)",
    "id(1)",
    "hash(1)",
    "iter([1])",
    "range(9)",
    "list([1])",
    "str(1)",
    "bytes(9)",
    "chr(65)",
    "complex(1, 2)",
    "memoryview(1)",
    "map(abs, [1])",
    "os.getcwd()",
    "sys.exit(0)",
    "math.__loader__",
    "math.__dict__",
    "math.sqrt.__self__",
    "math.inf",
    "math.nan",
    "inf",
    "nan",
    "float('nan')",
    "float('inf')",
    "int('9' * 99)",
    "math.dist([1], [2])",
    "math.sumprod([1], [2])",
    "divmod(7, 2)",
    "(1).__class__",
    "(1).real",
    "1 .bit_length()",
    "().__class__.__bases__[0].__subclasses__()",
    "[].append(1)",
    "''.join([])",
    "'{0.__class__}'.format(1)",
    "sqrt.__call__(4)",
    "sum.__class__",
]
SYNTAX = [
    "",
    " ",
    "1 +",
    "* 2",
    "(1",
    "1)",
    "1; 2",
    "1\n2",
    "x = 1",
    "x := 1",
    "(x := 1)",
    "import os",
    "from os import *",
    "def f(): pass",
    "class A: pass",
    "lambda: 1",
    "(lambda: 1)()",
    "(lambda x: x(x))(lambda x: x(x))",
    "[i for i in (1, 2)]",
    "sum(i for i in (1, 2))",
    "{1, 2}",
    "{1: 2}",
    "{**{}}",
    "[*(1, 2)]",
    "max(*[1, 2])",
    "sum([1], start=2)",
    "round(number=1)",
    "1 if 1 else 2",
    "1 and 2",
    "1 or 2",
    "not 1",
    "~1",
    "1 < 2",
    "1 == 1",
    "1 is 1",
    "1 in [1]",
    "1 & 2",
    "1 | 2",
    "1 ^ 2",
    "1 << 2",
    "1 << 99999999",
    "4 >> 1",
    "1 @ 2",
    "[1, 2][0]",
    "(1, 2)[0]",
    "[1][0:1]",
    "'a'",
    "b'a'",
    "'a' * 999",
    "'a' + 'b'",
    "'%099999999d' % 1",
    "f'{1}'",
    "f'{9**9**9}'",
    "True",
    "False",
    "True + True",
    "None",
    "...",
    "1j",
    "1 + 2j",
    "await x",
    "yield 1",
    "(yield)",
    "x",
    "x + 1",
    "e.real",
    "pi()",
    "sqrt",
    "math",
    "math.sqrt",
    "math.math.sqrt(4)",
    "5%",
    "$5",
    "5 apples",
    "1,000",
    "1, 2",
    "[1, 2]",
    "()",
    "[] + []",
    "[1] * 999999999",
    "sum",
    "print",
    "__builtins__",
    "__name__",
    "# comment",
    "\\boxed{3}",
    "```3```",
    "0777",
    "1__0",
    "0b2",
    "1e",
    "\x00",
    "1\x002",
]
TOO_LARGE = [
    "9**9**9",
    "9**9**9**9",
    "9.0**9**9",
    "-9**9**9",
    "2**99999999",
    "2**(2**40)",
    "(2**2000)**2000",
    "10**10**10",
    "1e308 * 10",
    "1e999",
    "-1e999",
    "1e999 - 1e999",
    "1e308 + 1e308",
    "10**1000 * 1.0",
    "10**1000 / 3",
    "10**1233",
    "10**1200 * 10**1200",
    "9" * 1233,
    "9" * 5000,
    "0x" + "f" * 1200,
    "pow(9, 9**9)",
    "pow(9, pow(9, 9))",
    "pow(2, 10**8, 7)",
    "factorial(501)",
    "factorial(10**9)",
    "factorial(factorial(factorial(5)))",
    "math.factorial(99999999)",
    "comb(10**9, 5 * 10**8)",
    "comb(501, 2)",
    "perm(10**6)",
    "perm(10**6, 10**5)",
    "exp(1000)",
    "exp(exp(exp(9)))",
    "exp2(99999)",
    "sinh(9999)",
    "cosh(-9999)",
    "prod([10**900, 10**900])",
    "prod([1e200, 1e200])",
    "lcm(10**900 + 1, 10**900 - 1)",
    "sum([1e308, 1e308])",
    "fsum([1e308, 1e308])",
    "round(1.5, 10**9)",
    "round(1, -99999999)",
    "float(10**400)",
    "sqrt(10**900)",
]
NO_VALUE = [
    "1 / 0",
    "1 // 0",
    "1 % 0",
    "1.0 / 0.0",
    "0 ** -1",
    "0.0 ** -2",
    "(-8) ** 0.5",
    "(-1) ** 0.5 * (-1) ** 0.5",
    "sqrt(-1)",
    "log(0)",
    "log(-1)",
    "log10(0)",
    "log(2, 1)",
    "asin(2)",
    "acos(-2)",
    "acosh(0)",
    "atanh(1)",
    "isqrt(-1)",
    "isqrt(2.5)",
    "gcd(1.5, 2)",
    "fmod(1, 0)",
    "factorial(-1)",
    "factorial(2.5)",
    "factorial(2.0)",
    "comb(-1, 2)",
    "comb(5)",
    "perm(2.5)",
    "sqrt()",
    "sqrt(1, 2)",
    "sqrt([4])",
    "abs([1])",
    "int()",
    "int([1])",
    "sum(1, 2)",
    "sum()",
    "sum([1], 2)",
    "sum([[1]])",
    "sum(['a'])",
    "prod(3)",
    "min([])",
    "max(())",
    "max()",
    "min([1], [2])",
    "max([1, [2]])",
    "round()",
    "round([1])",
    "round(1.5, 0.5)",
    "round(1.5, None)",
    "-[1]",
    "+(1, 2)",
    "(1, 2) + (3, 4)",
    "[1] * 2",
]
DEEP = [
    "(" * 41 + "1" + ")" * 400,
    "(" * 100 + "1" + ")" * 100 + "+" + "x",
    "(" * 400 + "1" + ")" * 400,
    "[" * 41 + "]" * 41,
    "-" * 41 + "1",
    "-" * 999 + "1",
    "+-" * 450 + "1",
    "abs(" * 45 + "1" + ")" * 45,
    "abs(" * 190 + "1" + ")" * 190,
    "1" + "+1" * 160,
    "1" + "+1" * 499,
    "2" + "**2" * 41,
    "2" + "**1" * 300,
    "sum([" + "1," * 310 + "])",
    "1" + " " * 1000,
    "1+" * 5000 + "1",
    "x." * 300 + "x",
    "x(" * 90 + ")" * 90,
    "not " * 200 + "1",
    "~" * 900 + "1",
]
UNICODE = [
    "１＋１",
    "１",
    "٣ + ٣",
    "𝟑",
    "²",
    "2²",
    "½",
    "ｓｑｒｔ(4)",
    "𝓼𝓺𝓻𝓽(4)",
    "math.ｓｑｒｔ(4)",
    "π",
    "∞",
    "3 × 4",
    "8 ÷ 2",
    "5 − 3",
    "1\u200b+1",
    "1\u00a0+ 1",
    "\ufeff1",
    "1 + 1\u202e",
    "__ｉｍｐｏｒｔ__('os')",
    "√4",
    "1，000",
    "（1）",
]
HOSTILE = list(dict.fromkeys([*CALLS, *SYNTAX, *TOO_LARGE, *NO_VALUE, *DEEP, *UNICODE]))


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 200


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_has_no_value_takes_no_time_and_does_nothing(
    text: str,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
    best_of_three: Callable[[Callable[[], object]], float],
) -> None:
    assert value_of(text) is None
    assert best_of_three(lambda: value_of(text)) < 0.05
    assert not Path(MARK).exists() and capsys.readouterr() == ("", "") and not recwarn


@pytest.mark.parametrize("value", [None, True, [], {}, math.nan, math.inf, b"1", object()])
def test_what_is_no_text_has_no_value(value: object) -> None:
    assert value_of(value) is None


@given(st.text(max_size=60))
def test_any_text_has_a_finite_value_or_none(text: str) -> None:
    found = value_of(text)
    assert found is None or math.isfinite(found)


def test_the_least_common_multiple_of_many_numbers() -> None:
    assert value_of("lcm(4, 6, 10)") == 60 and value_of("math.lcm(-4, 6)") == 12
    assert value_of("lcm(0, 5)") == 0 and value_of("lcm(2**2000, 2**1990, 8)") == 2**2000
    assert value_of("lcm(2.5, 5)") is None and value_of("lcm([4, 6])") is None


def test_the_slowest_calls_that_are_allowed_are_fast(
    best_of_three: Callable[[Callable[[], object]], float],
) -> None:
    big = "9" * 1200
    texts = [f"{name}({', '.join([arg] * count)})" for name in FUNCTIONS for count in (1, 2)
             for arg in (big, "500", "[" + ", ".join(["9e99"] * 140) + "]")]  # fmt: skip
    texts += [f"{big} {sign} {big[:-300]}" for sign in ("*", "//", "%", "**")]
    primes = [p for p in range(2, 400) if all(p % q for q in range(2, p))]
    texts += [f"lcm({', '.join(f'{p}**{int(4090 / math.log2(p))}' for p in primes[:73])})"]
    for text in texts:
        assert best_of_three(lambda text=text: value_of(text)) < 0.05, text  # type: ignore[misc]
