"""Things to count and to tell apart: mugs, pieces, cars, fruit, fish, balloons, covers, plaques."""

from datasets_builders.gta.embedded.drawings.sheet import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    RED,
    YELLOW,
    Color,
    Drawing,
    Sheet,
)

WHITE = (255, 255, 255)
COLORS: dict[str, Color] = {
    "red": RED, "blue": BLUE, "green": GREEN, "yellow": YELLOW, "orange": ORANGE,
    "white": (245, 245, 245),
}  # fmt: skip


def shelf() -> Drawing:
    sheet = Sheet(440, 320, (236, 226, 210))
    for y in (138, 276):
        sheet.pen.rectangle((16, y, 424, y + 14), (140, 95, 55))
    rows = [["red", "blue", "red", "red", "blue"], ["yellow", "yellow", "green", "yellow"]]
    for row, colors in enumerate(rows):
        for place, color in enumerate(colors):
            _mug(sheet, 36 + 80 * place, 78 + 138 * row, color)
    sheet.pen.polygon([(370, 276), (362, 220), (380, 176), (398, 220), (390, 276)], (120, 80, 160))
    sheet.thing((362, 176, 398, 276), "vase", color="purple", shape="tall and slim")
    return sheet.drawing("A wooden shelf with coloured mugs on two boards and a slim purple vase.")


def _mug(sheet: Sheet, x: int, y: int, color: str) -> None:
    sheet.pen.arc((x + 34, y + 12, x + 62, y + 46), -90, 90, COLORS[color], 7)
    sheet.pen.rounded_rectangle((x, y, x + 46, y + 60), 6, COLORS[color])
    sheet.pen.ellipse((x, y - 7, x + 46, y + 7), (90, 60, 40), COLORS[color], 3)
    sheet.thing((x, y - 7, x + 62, y + 60), "mug", f"{color} mug", color=color)


def draughts() -> Drawing:
    sheet = Sheet(352, 352, (110, 72, 40))
    for row in range(8):
        for column in range(8):
            color = (235, 210, 165) if (row + column) % 2 == 0 else (150, 100, 60)
            x, y = 16 + 40 * column, 16 + 40 * row
            sheet.pen.rectangle((x, y, x + 39, y + 39), color)
    black = [(0, 1), (0, 5), (1, 2), (2, 7), (3, 4)]
    white = [(4, 1), (5, 0), (5, 6), (6, 3), (6, 5), (7, 2), (7, 6)]
    for name, fill, rim, places in (
        ("black", (30, 30, 30), GRAY, black),
        ("white", (245, 245, 240), INK, white),
    ):
        for row, column in places:
            x, y = 16 + 40 * column, 16 + 40 * row
            sheet.pen.ellipse((x + 5, y + 5, x + 35, y + 35), fill, rim, 2)
            sheet.thing((x + 5, y + 5, x + 35, y + 35), "piece", f"{name} piece", color=name)
    return sheet.drawing("A draughts board seen from above during a game of black against white.")


def car_park() -> Drawing:
    sheet = Sheet(460, 320, (95, 100, 105))
    top = ["red", "white", "", "blue", "white", "red"]
    bottom = ["white", "blue", "white", "", "red", "white"]
    for number in range(7):
        x = 20 + 70 * number
        sheet.pen.line((x, 14, x, 118), WHITE, 3)
        sheet.pen.line((x, 202, x, 306), WHITE, 3)
    for y, colors in ((22, top), (210, bottom)):
        for place, color in enumerate(colors):
            if color:
                _car(sheet, 34 + 70 * place, y, color)
    sheet.pen.line((30, 160, 430, 160), YELLOW, 4)
    return sheet.drawing("A car park with two rows of bays, seen from above; two bays are empty.")


def _car(sheet: Sheet, x: int, y: int, color: str) -> None:
    sheet.pen.rounded_rectangle((x, y, x + 42, y + 88), 12, COLORS[color], INK, 2)
    for window in ((x + 6, y + 20, x + 36, y + 34), (x + 6, y + 62, x + 36, y + 72)):
        sheet.pen.rectangle(window, (60, 80, 100))
    sheet.thing((x, y, x + 42, y + 88), "car", f"{color} car", color=color)


def fruit_crate() -> Drawing:
    sheet = Sheet(400, 300, (225, 205, 170))
    sheet.pen.rectangle((14, 14, 386, 286), (165, 120, 70), (110, 75, 40), 6)
    sheet.pen.rectangle((28, 28, 372, 272), (205, 165, 110))
    kinds = ["apple", "orange", "apple", "orange", "orange"]
    kinds += ["orange", "apple", "orange", "lemon", "apple"]
    kinds += ["orange", "orange", "lemon", "apple", "orange"]
    for number, kind in enumerate(kinds):
        x, y = 64 + 68 * (number % 5), 70 + 80 * (number // 5)
        color = {"apple": GREEN, "orange": ORANGE, "lemon": YELLOW}[kind]
        wide = 30 if kind == "lemon" else 26
        sheet.pen.ellipse((x - wide, y - 26, x + wide, y + 26), color, INK, 1)
        if kind == "apple":
            sheet.pen.line((x, y - 20, x + 5, y - 34), (90, 60, 30), 4)
        sheet.thing((x - wide, y - 34, x + wide, y + 26), kind, "fruit")
    return sheet.drawing("A wooden crate with green apples, oranges and lemons in three rows.")


def aquarium() -> Drawing:
    sheet = Sheet(460, 300, (120, 190, 225))
    sheet.pen.rectangle((0, 250, 460, 300), (225, 200, 140))
    for x in (50, 230, 420):
        for lean in (-12, 0, 12):
            sheet.pen.line((x, 262, x + lean, 180), GREEN, 6)
    places = [
        (60, 40, "orange"), (190, 90, "orange"), (330, 50, "orange"), (260, 150, "orange"),
        (90, 150, "blue"), (380, 130, "blue"), (170, 215, "orange"),
    ]  # fmt: skip
    for x, y, color in places:
        sheet.pen.polygon([(x + 44, y + 14), (x + 64, y), (x + 64, y + 28)], COLORS[color])
        sheet.pen.ellipse((x, y, x + 50, y + 28), COLORS[color])
        sheet.pen.ellipse((x + 9, y + 8, x + 15, y + 14), INK)
        sheet.thing((x, y, x + 64, y + 28), "fish", f"{color} fish", color=color)
    sheet.pen.regular_polygon((320, 268, 22), 5, 0, RED)
    sheet.thing((298, 246, 342, 288), "stone", color="red")
    return sheet.drawing("An aquarium with orange and blue fish, water plants and a red stone.")


def balloons() -> Drawing:
    sheet = Sheet(360, 400, (225, 240, 252))
    places = [
        (60, 60, "red"), (140, 50, "yellow"), (220, 56, "blue"), (300, 70, "red"),
        (90, 140, "green"), (175, 130, "red"), (260, 145, "yellow"), (130, 220, "blue"),
        (225, 225, "yellow"),
    ]  # fmt: skip
    for x, y, _ in places:
        sheet.pen.line((x, y + 40, 180, 380), GRAY, 2)
    for x, y, color in places:
        sheet.pen.ellipse((x - 32, y - 40, x + 32, y + 40), COLORS[color], INK, 1)
        sheet.pen.ellipse((x - 18, y - 26, x - 8, y - 10), WHITE)
        sheet.thing((x - 32, y - 40, x + 32, y + 40), "balloon", f"{color} balloon", color=color)
    return sheet.drawing("A bunch of red, yellow, blue and green balloons on strings.")


def book_cover() -> Drawing:
    sheet = Sheet(300, 420, (30, 85, 80))
    sheet.pen.rectangle((16, 16, 284, 404), None, (225, 195, 110), 4)
    gold = (240, 215, 140)
    for y, line in ((70, "PRIDE"), (116, "AND"), (162, "PREJUDICE")):
        sheet.text(150, y, line, 40 if line != "AND" else 28, gold, "ma")
    sheet.pen.ellipse((110, 236, 190, 316), None, gold, 3)
    sheet.pen.polygon([(150, 246), (178, 276), (150, 306), (122, 276)], gold)
    sheet.text(150, 346, "Jane Austen", 28, WHITE, "ma")
    return sheet.drawing("The dark green cover of a novel with golden letters and an ornament.")


def element() -> Drawing:
    sheet = Sheet(280, 320, (240, 220, 200))
    sheet.pen.rectangle((14, 14, 266, 306), (250, 240, 225), (150, 80, 40), 6)
    sheet.text(34, 32, "26", 36)
    sheet.text(140, 80, "Fe", 110, (150, 80, 40), "ma")
    sheet.text(140, 218, "Iron", 36, anchor="ma")
    sheet.text(140, 264, "55.845", 24, GRAY, "ma")
    return sheet.drawing("A tile of the periodic table of elements for the metal iron.")


def plaque() -> Drawing:
    sheet = Sheet(440, 240, (190, 150, 70))
    sheet.pen.rectangle((10, 10, 430, 230), None, (110, 80, 30), 4)
    for x, y in ((26, 26), (414, 26), (26, 214), (414, 214)):
        sheet.pen.ellipse((x - 7, y - 7, x + 7, y + 7), (110, 80, 30))
    dark = (60, 40, 10)
    sheet.text(220, 44, "THE STARRY NIGHT", 34, dark, "ma")
    sheet.text(220, 104, "Vincent van Gogh", 28, dark, "ma")
    sheet.text(220, 152, "Oil on canvas, 1889", 24, dark, "ma")
    return sheet.drawing("A brass plaque that names a painting, its painter, technique and year.")


def quiz_card() -> Drawing:
    sheet = Sheet(380, 260, (250, 240, 205))
    sheet.pen.rounded_rectangle((10, 10, 370, 250), 18, None, ORANGE, 6)
    sheet.text(190, 30, "QUIZ 17", 26, ORANGE, "ma")
    sheet.text(190, 90, "Which planet of the", 26, anchor="ma")
    sheet.text(190, 128, "solar system has", 26, anchor="ma")
    sheet.text(190, 166, "the shortest year?", 26, anchor="ma")
    return sheet.drawing("A quiz card with an orange frame and a question about the solar system.")


DRAWINGS = {
    "shelf": shelf, "draughts": draughts, "car_park": car_park, "fruit_crate": fruit_crate,
    "aquarium": aquarium, "balloons": balloons, "book_cover": book_cover, "element": element,
    "plaque": plaque, "quiz_card": quiz_card,
}  # fmt: skip
