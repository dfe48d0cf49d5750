"""Signs, a map, a street and a floor plan."""

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


def road_sign() -> Drawing:
    sheet = Sheet(420, 320, (190, 220, 240))
    for x in (110, 300):
        sheet.pen.rectangle((x, 200, x + 12, 320), GRAY)
    sheet.pen.rounded_rectangle((30, 30, 390, 230), 16, BLUE, WHITE, 5)
    for number, line in enumerate(("Altmoor 14 km", "Brexley 37 km", "Castle Hill 52 km")):
        y = 54 + 56 * number
        sheet.pen.polygon([(56, y + 30), (70, y), (84, y + 30)], WHITE)
        sheet.text(104, y, line, 30, WHITE)
    return sheet.drawing("A blue road sign with three places straight ahead and their distances.")


def park_sign() -> Drawing:
    sheet = Sheet(340, 400, (205, 225, 195))
    for x in (60, 262):
        sheet.pen.rectangle((x, 320, x + 18, 400), (110, 75, 45))
    sheet.pen.rounded_rectangle((24, 24, 316, 340), 14, GREEN, (35, 90, 50), 6)
    sheet.thing((24, 24, 316, 400), "sign", color="green with white letters")
    sheet.text(170, 46, "WILLOW PARK", 30, WHITE, "ma")
    lines = ["Open 7 am - 9 pm", "Dogs on a lead", "No open fires", "No cycling", "Fine 40.00"]
    for number, line in enumerate(lines):
        sheet.text(170, 106 + 44 * number, line, 24, WHITE, "ma")
    return sheet.drawing("The green sign of a park with opening hours and rules.")


def town_map() -> Drawing:
    sheet = Sheet(460, 380, (235, 230, 215))
    sheet.pen.rectangle((0, 330, 460, 380), (150, 200, 230))
    for street in ((0, 150, 460, 174), (210, 0, 234, 330)):
        sheet.pen.rectangle(street, WHITE, (200, 195, 180))
    sheet.text(20, 153, "Mill Street", 18, GRAY)
    sheet.text(240, 300, "Oak Avenue", 18, GRAY)
    sheet.text(20, 344, "Lake Vernon", 20, BLUE)
    places: list[tuple[str, tuple[int, int], Color]] = [
        ("School", (40, 50), YELLOW), ("Library", (300, 40), ORANGE),
        ("Hospital", (50, 220), RED), ("Station", (310, 205), GRAY),
    ]  # fmt: skip
    colors = {"School": "yellow", "Library": "orange", "Hospital": "red", "Station": "gray"}
    for name, (x, y), color in places:
        sheet.pen.rectangle((x, y, x + 110, y + 50), color, INK, 2)
        sheet.thing((x, y, x + 110, y + 50), name.lower(), "building", color=colors[name])
        sheet.text(x + 55, y + 56, name, 18, anchor="ma")
    for x, y in ((250, 200), (250, 240), (430, 60), (430, 100), (180, 40), (180, 90)):
        sheet.pen.ellipse((x - 12, y - 12, x + 12, y + 12), GREEN)
        sheet.thing((x - 12, y - 12, x + 12, y + 12), "tree")
    return sheet.drawing(
        "A map of a small town at a lake with two streets, a school, a library, a hospital and a"
        " station."
    )


def street() -> Drawing:
    sheet = Sheet(460, 300, (195, 225, 245))
    sheet.pen.rectangle((0, 250, 460, 300), (120, 120, 120))
    houses: list[tuple[str, Color, str, Color]] = [
        ("2", YELLOW, "red", RED), ("4", (235, 235, 230), "blue", BLUE),
        ("6", (225, 150, 140), "green", GREEN),
    ]  # fmt: skip
    walls = ("yellow", "white", "pink")
    for number, (sign, wall, door, paint) in enumerate(houses):
        x = 20 + 150 * number
        sheet.pen.polygon([(x - 8, 110), (x + 60, 50), (x + 128, 110)], (140, 70, 50))
        sheet.pen.rectangle((x, 110, x + 120, 250), wall, INK, 2)
        sheet.thing((x - 8, 50, x + 128, 250), "house", f"house {sign}", color=walls[number])
        sheet.pen.rectangle((x + 70, 178, x + 104, 249), paint, INK, 2)
        sheet.thing((x + 70, 178, x + 104, 249), "door", f"door of house {sign}", color=door)
        for dx, dy in ((14, 126), (14, 190), (76, 126)):
            sheet.pen.rectangle((x + dx, dy, x + dx + 30, dy + 32), (170, 215, 240), INK, 2)
            sheet.thing((x + dx, dy, x + dx + 30, dy + 32), "window")
        sheet.text(x + 57, 156, sign, 22, anchor="mm")
    return sheet.drawing("A street with three houses in a row: yellow, white and pink.")


def floor_plan() -> Drawing:
    sheet = Sheet(460, 360, WHITE)
    rooms = [
        ("Living room", "5 x 6 m", (20, 20, 260, 220)), ("Kitchen", "3 x 4 m", (260, 20, 440, 160)),
        ("Bath", "2 x 3 m", (260, 160, 440, 250)), ("Bedroom", "4 x 4 m", (20, 220, 260, 340)),
        ("Hall", "2 x 4 m", (260, 250, 440, 340)),
    ]  # fmt: skip
    for name, size, (left, top, right, bottom) in rooms:
        sheet.pen.rectangle((left, top, right, bottom), (246, 242, 232), INK, 5)
        sheet.thing((left, top, right, bottom), "room", name.lower())
        middle = (left + right) / 2, (top + bottom) / 2
        sheet.text(middle[0], middle[1] - 14, name, 22, anchor="mm")
        sheet.text(middle[0], middle[1] + 14, size, 20, BLUE, "mm")
    return sheet.drawing("The floor plan of a flat with five rooms and the size of each in metres.")


DRAWINGS = {
    "road_sign": road_sign, "park_sign": park_sign, "town_map": town_map, "street": street,
    "floor_plan": floor_plan,
}  # fmt: skip
