"""Formulas by hand, and a worksheet; each is known as LaTeX."""

import random

from datasets_builders.gta.embedded.drawings.sheet import GRAY, INK, PAPER, Drawing, Sheet


def quadratic() -> Drawing:
    sheet = _squared(380, 140)
    sheet.handwriting(34, 30, "x^2 - 5x + 6 = 0", 44, random.Random(1))
    return sheet.drawing("A handwritten quadratic equation on squared paper.", latex="x^{2}-5x+6=0")


def system() -> Drawing:
    sheet = _squared(360, 200)
    rng = random.Random(2)
    sheet.handwriting(60, 20, "2x + y = 11", 44, rng)
    sheet.handwriting(60, 90, "x - y = 1", 44, rng)
    sheet.pen.arc((26, 40, 56, 110), 110, 250, INK, 4)
    sheet.pen.arc((26, 100, 56, 170), 110, 250, INK, 4)
    latex = r"\begin{cases}2x+y=11\\x-y=1\end{cases}"
    return sheet.drawing("Two handwritten equations in x and y, joined by a brace.", latex=latex)


def integral() -> Drawing:
    sheet = _squared(340, 200)
    rng = random.Random(3)
    sheet.pen.line((66, 150, 62, 156, 54, 154), INK, 4, "curve")
    sheet.pen.line((66, 150, 80, 50), INK, 4)
    sheet.pen.line((80, 50, 86, 42, 93, 46), INK, 4, "curve")
    sheet.handwriting(98, 18, "2", 28, rng)
    sheet.handwriting(76, 138, "0", 28, rng)
    sheet.handwriting(118, 64, "3x^2 dx", 48, rng)
    latex = r"\int_{0}^{2}3x^{2}\,dx"
    return sheet.drawing("A handwritten definite integral from 0 to 2.", latex=latex)


def fractions() -> Drawing:
    sheet = _squared(320, 200)
    rng = random.Random(4)
    for x, above, below in ((60, "3", "4"), (190, "5", "6")):
        sheet.handwriting(x, 24, above, 46, rng)
        sheet.pen.line((x - 14, 98, x + 44, 96), INK, 4)
        sheet.handwriting(x, 96, below, 46, rng)
    sheet.handwriting(126, 60, "+", 46, rng)
    return sheet.drawing("A handwritten sum of two fractions.", latex=r"\frac{3}{4}+\frac{5}{6}")


def cubic() -> Drawing:
    sheet = _squared(360, 140)
    sheet.handwriting(40, 30, "y = x^3 - 3x", 46, random.Random(5))
    return sheet.drawing("A handwritten function of x on squared paper.", latex="y=x^{3}-3x")


def triangle() -> Drawing:
    sheet = _squared(380, 300)
    rng = random.Random(6)
    sheet.pen.line((60, 240, 300, 240, 60, 60, 60, 240), INK, 4)
    sheet.pen.line((60, 220, 80, 220, 80, 240), GRAY, 3)
    sheet.thing((60, 60, 300, 240), "triangle", shape="right-angled")
    sheet.handwriting(20, 110, "9", 40, rng)
    sheet.handwriting(150, 236, "12", 40, rng)
    sheet.handwriting(184, 80, "c^2 = 9^2 + 12^2", 26, rng)
    return sheet.drawing(
        "A right-angled triangle by hand with the sides 9 and 12 and a formula for side c.",
        latex="c^{2}=9^{2}+12^{2}",
    )


def _squared(width: int, height: int) -> Sheet:
    sheet = Sheet(width, height, PAPER)
    for x in range(0, width, 20):
        sheet.pen.line((x, 0, x, height), (205, 220, 235))
    for y in range(0, height, 20):
        sheet.pen.line((0, y, width, y), (205, 220, 235))
    return sheet


DRAWINGS = {
    "quadratic": quadratic, "system": system, "integral": integral, "fractions": fractions,
    "cubic": cubic, "triangle": triangle,
}  # fmt: skip
