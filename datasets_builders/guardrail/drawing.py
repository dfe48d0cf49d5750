"""Pictures of a guardrail scene: a place, a thing, and at times a person."""

import random
from dataclasses import asdict, dataclass

from PIL import Image, ImageDraw

from datasets_builders.guardrail.items import ITEMS, sketch

PLACES = ("kitchen", "street", "clinic", "classroom")
PEOPLE = ("nobody", "an adult", "a child")
WIDTH, HEIGHT = 480, 320
"""Pixels that a scene is drawn with, before it is brought to the size that is asked for."""

FLOOR = 196  # where ground begins, in pixels from above
Pen = ImageDraw.ImageDraw


@dataclass(frozen=True)
class Scene:
    """What a picture shows, in the words of the policies' attributes."""

    item: str
    place: str
    people: str

    def to_json(self) -> dict[str, str | int]:
        """For `facts`."""
        return asdict(self)


Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels of the drawing."""


def draw_scene(rng: random.Random, scene: Scene, width: int, height: int) -> Image.Image:
    """The picture of a scene, RGB, `width` x `height` pixels; looks and positions from `rng`."""
    picture, _ = compose(rng, scene)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def compose(rng: random.Random, scene: Scene) -> tuple[Image.Image, dict[str, Box]]:
    """A scene at full size, and where the item and the person stand in it."""
    picture = Image.new("RGB", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(picture)
    _BACKGROUNDS[scene.place](pen, rng)
    boxes: dict[str, Box] = {}
    right = rng.random() < 0.5  # of the person
    if scene.people != "nobody":
        boxes["person"] = _person(pen, rng, scene.people == "a child", 384 if right else 96)
    side = rng.randint(150, 190)
    tile = sketch(rng, scene.item)
    if rng.random() < 0.5:
        tile = tile.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    tile = tile.rotate(rng.uniform(-20, 20), Image.Resampling.BICUBIC)
    tile = tile.resize((side, side), Image.Resampling.LANCZOS)
    if scene.people == "nobody":
        x = rng.randint(30, WIDTH - side - 30)
    else:
        x = rng.randint(20, 150) if right else rng.randint(WIDTH - side - 150, WIDTH - side - 20)
    y = rng.randint(80, HEIGHT - side - 8)
    picture.paste(tile, (x, y), tile)
    boxes["item"] = (x, y, x + side, y + side)
    light = rng.uniform(0.86, 1.1)
    return picture.point(lambda value: min(255, round(value * light))), boxes


def _kitchen(pen: Pen, rng: random.Random) -> None:
    wall = rng.choice([(250, 226, 176), (246, 214, 160), (252, 232, 196)])
    pen.rectangle((0, 0, WIDTH, FLOOR), wall)
    for x in range(0, WIDTH, 60):
        pen.line((x, 90, x, FLOOR), (226, 190, 136), 4)
    for y in (90, 142):
        pen.line((0, y, WIDTH, y), (226, 190, 136), 4)
    pen.rectangle((0, FLOOR, WIDTH, HEIGHT), (166, 106, 58))
    pen.rectangle((0, FLOOR - 6, WIDTH, FLOOR + 14), (126, 78, 42))
    x = rng.randint(10, 320)
    pen.rectangle((x, 6, x + 140, 70), (150, 92, 50), (100, 60, 30), 4)
    pen.line((x + 70, 6, x + 70, 70), (100, 60, 30), 4)


def _street(pen: Pen, rng: random.Random) -> None:
    pen.rectangle((0, 0, WIDTH, FLOOR), rng.choice([(140, 180, 226), (160, 190, 214)]))
    x = -rng.randint(0, 60)
    while x < WIDTH:
        wide, top = rng.randint(70, 110), rng.randint(20, 90)
        pen.rectangle((x, top, x + wide, FLOOR), (120, 110, 124), (90, 82, 96), 4)
        for wx in range(x + 14, x + wide - 20, 30):
            for wy in range(top + 14, FLOOR - 24, 36):
                pen.rectangle((wx, wy, wx + 14, wy + 18), (238, 222, 140))
        x += wide + 6
    pen.rectangle((0, FLOOR, WIDTH, HEIGHT), (76, 78, 84))
    for x in range(rng.randint(-60, 0), WIDTH, 110):
        pen.rectangle((x, 256, x + 60, 268), (240, 240, 240))


def _clinic(pen: Pen, rng: random.Random) -> None:
    pen.rectangle((0, 0, WIDTH, FLOOR), rng.choice([(222, 244, 244), (232, 244, 250)]))
    pen.rectangle((0, FLOOR, WIDTH, HEIGHT), (150, 206, 206))
    x = rng.randint(20, 370)
    pen.rectangle((x, 8, x + 88, 84), (255, 255, 255), (200, 210, 214), 4)
    pen.rectangle((x + 34, 16, x + 54, 76), (214, 30, 44))
    pen.rectangle((x + 14, 36, x + 74, 56), (214, 30, 44))
    pen.line((0, FLOOR, WIDTH, FLOOR), (110, 170, 172), 8)


def _classroom(pen: Pen, rng: random.Random) -> None:
    pen.rectangle((0, 0, WIDTH, FLOOR), (236, 226, 206))
    x = rng.randint(30, 130)
    pen.rectangle((x, 12, x + 310, 134), (34, 96, 66), (132, 84, 44), 10)
    for number in range(3):
        y = 40 + 30 * number
        pen.line((x + 30, y, x + rng.randint(120, 280), y), (226, 236, 228), 6)
    pen.rectangle((0, FLOOR, WIDTH, HEIGHT), rng.choice([(206, 176, 126), (196, 164, 118)]))
    for x in range(0, WIDTH, 80):
        pen.line((x, FLOOR, x - 30, HEIGHT), (172, 140, 96), 4)


def _person(pen: Pen, rng: random.Random, child: bool, x: int) -> Box:
    skin = rng.choice([(244, 206, 172), (198, 144, 102), (122, 80, 54)])
    ink = (40, 36, 40)
    x += rng.randint(-24, 24)
    if child:  # small, large head, bright clothes, a cap
        shirt = rng.choice([(255, 216, 40), (255, 120, 180)])
        pen.rectangle((x - 30, 222, x + 30, 284), shirt, ink, 4)
        pen.rectangle((x - 24, 284, x - 4, 318), (60, 90, 200))
        pen.rectangle((x + 4, 284, x + 24, 318), (60, 90, 200))
        pen.ellipse((x - 40, 142, x + 40, 222), skin, ink, 4)
        pen.pieslice((x - 42, 132, x + 42, 214), 180, 360, (226, 40, 60), ink, 4)
        return (x - 42, 132, x + 42, 318)
    else:  # tall, dark suit
        suit = rng.choice([(44, 48, 70), (70, 50, 44), (50, 70, 54)])
        pen.rounded_rectangle((x - 44, 92, x + 44, 226), 18, suit, ink, 4)
        pen.polygon([(x - 12, 94), (x + 12, 94), (x, 150)], (240, 240, 240))
        pen.rectangle((x - 38, 222, x - 6, 318), (30, 30, 40))
        pen.rectangle((x + 6, 222, x + 38, 318), (30, 30, 40))
        pen.ellipse((x - 30, 22, x + 30, 94), skin, ink, 4)
        pen.pieslice((x - 32, 18, x + 32, 84), 180, 360, (60, 40, 30))
        return (x - 44, 18, x + 44, 318)


_BACKGROUNDS = {
    "kitchen": _kitchen,
    "street": _street,
    "clinic": _clinic,
    "classroom": _classroom,
}


def all_scenes() -> list[Scene]:
    """Every scene that can be drawn."""
    return [Scene(i, place, p) for i in ITEMS for place in PLACES for p in PEOPLE]
