"""A sheet to draw on that keeps what it shows, so that annotations are true by construction."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from datasets_builders.gta.embedded.annotation import Annotation, Box, Text, Thing

INK = (35, 35, 45)
PAPER = (252, 250, 244)
RED = (205, 50, 45)
BLUE = (45, 95, 190)
GREEN = (60, 145, 75)
YELLOW = (240, 195, 45)
ORANGE = (235, 130, 40)
GRAY = (130, 135, 140)

Color = tuple[int, int, int]
Point = tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """A picture and what it shows."""

    image: Image.Image
    annotation: Annotation


class Sheet:
    """A picture in the making; `pen` draws what is not annotated."""

    def __init__(self, width: int, height: int, background: Color = PAPER) -> None:
        self.image = Image.new("RGB", (width, height), background)
        self.pen = ImageDraw.Draw(self.image)
        self._texts: list[Text] = []
        self._things: list[Thing] = []

    def text(
        self, x: float, y: float, text: str, size: int = 18, fill: Color = INK, anchor: str = "la"
    ) -> Box:
        """Write a piece of text that can be read; `anchor` is Pillow's. Returns its box."""
        box = self._write(x, y, text, size, fill, anchor)
        self._texts.append(Text(text, box))
        return box

    def row(self, left: float, right: float, y: float, *cells: str, size: int = 18) -> Box:
        """Write cells from `left` to `right` on one line, which is read as one text."""
        first = self._write(left, y, cells[0], size, INK, "la")
        step = (right - left) / (len(cells) - 0.3)
        boxes = [
            self._write(right - step * number, y, cell, size, INK, "ra")
            for number, cell in enumerate(reversed(cells[1:]))
        ]
        box = _union([first, *boxes])
        self._texts.append(Text(" ".join(cells), box))
        return box

    def thing(self, box: tuple[float, ...], *names: str, **attributes: str) -> None:
        """Note an object that was drawn."""
        self._things.append(Thing(names, _outward(box), attributes))

    def handwriting(self, x: float, y: float, text: str, size: int, rng: random.Random) -> float:
        """Write letters by an unsteady hand, `^` before a raised one; returns where they end."""
        raised = False
        for letter in text:
            if letter == "^":
                raised = True
                continue
            font = ImageFont.load_default(round(size * (0.6 if raised else 1)))
            lift = size * 0.3 if raised else 0
            glyph = Image.new("L", (2 * size, 2 * size), 0)
            ImageDraw.Draw(glyph).text((size // 2, size * 1.4), letter, 255, font, anchor="ls")
            glyph = glyph.rotate(rng.uniform(-7, 7), Image.Resampling.BICUBIC)
            at = (round(x - size // 2), round(y - lift + rng.uniform(-2, 2)))
            self.image.paste(INK, at, glyph)
            x += font.getlength(letter) * 1.06 + (size * 0.05)
            raised = False
        return x

    def drawing(
        self, description: str, counts: Mapping[str, int] | None = None, latex: str = ""
    ) -> Drawing:
        """The finished picture."""
        size = self.image.size
        return Drawing(
            self.image,
            Annotation(
                size, description, tuple(self._texts), tuple(self._things), counts or {}, latex
            ),
        )

    def _write(self, x: float, y: float, text: str, size: int, fill: Color, anchor: str) -> Box:
        font = ImageFont.load_default(size)
        self.pen.text((x, y), text, fill, font, anchor=anchor)
        return _outward(self.pen.textbbox((x, y), text, font, anchor=anchor))


def _outward(box: tuple[float, ...]) -> Box:
    left, top, right, bottom = box
    return math.floor(left), math.floor(top), math.ceil(right), math.ceil(bottom)


def _union(boxes: list[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)
