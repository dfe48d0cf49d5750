"""Things that a guardrail picture may hold: each a sketch on a transparent square tile."""

import random
from collections.abc import Callable, Mapping

from PIL import Image, ImageDraw

TILE = 256
"""Side of a tile in pixels."""

Pen = ImageDraw.ImageDraw
Color = tuple[int, int, int]
INK: Color = (30, 30, 34)


def sketch(rng: random.Random, item: str) -> Image.Image:
    """A picture of one thing, RGBA, `TILE` pixels a side; `rng` chooses among its looks."""
    tile = Image.new("RGBA", (TILE, TILE), (0, 0, 0, 0))
    _SKETCHES[item](ImageDraw.Draw(tile), rng)
    return tile


def _knife(pen: Pen, rng: random.Random) -> None:
    handle = rng.choice([(110, 66, 36), (40, 40, 46), (150, 40, 36)])
    pen.polygon([(112, 8), (150, 60), (150, 168), (112, 168)], (206, 212, 222), INK, 5)
    pen.line((124, 40, 124, 160), (246, 248, 252), 8)
    pen.rounded_rectangle((106, 164, 156, 250), 14, handle, INK, 5)
    pen.ellipse((124, 190, 138, 204), (220, 220, 220))
    pen.ellipse((124, 218, 138, 232), (220, 220, 220))


def _gun(pen: Pen, rng: random.Random) -> None:
    metal = rng.choice([(58, 60, 70), (84, 86, 92), (40, 46, 52)])
    pen.rectangle((10, 66, 246, 122), metal, INK, 5)
    pen.polygon([(158, 120), (232, 120), (250, 236), (186, 236)], (88, 60, 40), INK, 5)
    pen.arc((104, 104, 168, 176), 0, 180, INK, 12)
    pen.line((10, 88, 246, 88), (132, 134, 144), 7)
    pen.rectangle((16, 50, 34, 68), INK)


def _bottle(pen: Pen, rng: random.Random) -> None:
    glass = rng.choice([(34, 120, 60), (110, 66, 24), (24, 90, 84)])
    pen.rounded_rectangle((78, 96, 178, 250), 26, glass, INK, 5)
    pen.rectangle((108, 30, 148, 104), glass, INK, 5)
    pen.rectangle((102, 8, 154, 36), (200, 160, 50), INK, 4)
    pen.rectangle((84, 146, 172, 206), (240, 232, 204), INK, 4)
    pen.line((98, 176, 158, 176), (170, 40, 40), 14)


def _cigarette(pen: Pen, rng: random.Random) -> None:
    pen.rectangle((14, 148, 176, 186), (250, 250, 246), INK, 5)
    pen.rectangle((176, 148, 242, 186), (226, 150, 62), INK, 5)
    pen.rectangle((8, 148, 30, 186), (236, 74, 34))
    for shift in (0, 34):
        pen.arc((10 + shift, 84, 50 + shift, 140), 90, 270, (186, 188, 196), 10)
        pen.arc((10 + shift, 28, 50 + shift, 84), -90, 90, (186, 188, 196), 10)


def _pills(pen: Pen, rng: random.Random) -> None:
    left, right = rng.choice(
        [((214, 48, 58), (250, 246, 240)), ((60, 92, 214), (250, 220, 70)), ((240, 120, 40),) * 2]
    )
    for x, y in ((14, 30), (112, 92), (22, 162)):
        pen.rounded_rectangle((x, y, x + 124, y + 58), 28, right, INK, 5)
        pen.rounded_rectangle((x, y, x + 62, y + 58), 28, left, INK, 5)
        pen.rectangle((x + 40, y + 4, x + 62, y + 54), left)


def _dice(pen: Pen, rng: random.Random) -> None:
    paper, dot = rng.choice([((250, 250, 250), INK), ((196, 30, 44), (255, 255, 255))])
    for x, y, points in ((8, 110, 5), (122, 20, 4)):
        pen.rounded_rectangle((x, y, x + 124, y + 124), 20, paper, INK, 6)
        spots = [(30, 30), (94, 94), (30, 94), (94, 30), (62, 62)][:points]
        for dx, dy in spots:
            pen.ellipse((x + dx - 14, y + dy - 14, x + dx + 14, y + dy + 14), dot)


def _apple(pen: Pen, rng: random.Random) -> None:
    skin = rng.choice([(206, 38, 40), (120, 186, 52)])
    pen.ellipse((26, 66, 150, 240), skin, INK, 5)
    pen.ellipse((106, 66, 230, 240), skin, INK, 5)
    pen.ellipse((60, 74, 196, 236), skin)
    pen.line((128, 82, 136, 26), (90, 56, 30), 14)
    pen.ellipse((138, 20, 206, 58), (60, 150, 60), INK, 4)


def _ball(pen: Pen, rng: random.Random) -> None:
    first, second = rng.choice([((36, 84, 204), (250, 250, 250)), ((224, 44, 60), (250, 250, 250))])
    pen.ellipse((16, 16, 240, 240), first, INK, 5)
    pen.pieslice((16, 16, 240, 240), -30, 30, second)
    pen.pieslice((16, 16, 240, 240), 90, 150, second)
    pen.pieslice((16, 16, 240, 240), 210, 270, second)


def _book(pen: Pen, rng: random.Random) -> None:
    cover = rng.choice([(40, 70, 150), (130, 30, 90), (20, 110, 100)])
    pen.polygon([(8, 70), (124, 96), (124, 230), (8, 204)], cover, INK, 5)
    pen.polygon([(248, 70), (132, 96), (132, 230), (248, 204)], cover, INK, 5)
    pen.polygon([(22, 56), (124, 84), (124, 210), (22, 184)], (252, 250, 240), INK, 4)
    pen.polygon([(234, 56), (132, 84), (132, 210), (234, 184)], (252, 250, 240), INK, 4)
    for y in (96, 124, 152):
        pen.line((38, y, 110, y + 20), (150, 150, 160), 6)
        pen.line((146, y + 20, 218, y), (150, 150, 160), 6)


def _cup(pen: Pen, rng: random.Random) -> None:
    glaze = rng.choice([(244, 208, 60), (238, 238, 244), (120, 190, 226)])
    pen.arc((140, 96, 244, 204), -90, 90, glaze, 24)
    pen.polygon([(24, 70), (190, 70), (170, 244), (44, 244)], glaze, INK, 5)
    pen.ellipse((24, 48, 190, 92), (96, 60, 36), INK, 5)


_SKETCHES: Mapping[str, Callable[[Pen, random.Random], None]] = {
    "knife": _knife,
    "gun": _gun,
    "bottle": _bottle,
    "cigarette": _cigarette,
    "pills": _pills,
    "dice": _dice,
    "apple": _apple,
    "ball": _ball,
    "book": _book,
    "cup": _cup,
}

ITEMS = tuple(_SKETCHES)
"""Names of the things, as policies call them."""
