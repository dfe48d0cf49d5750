"""Charts and instruments: bars, shares, a curve, a gauge, a thermometer, the weather."""

import math

from datasets_builders.gta.embedded.drawings.sheet import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    RED,
    YELLOW,
    Drawing,
    Sheet,
)

WHITE = (255, 255, 255)


def library_bars() -> Drawing:
    sheet = Sheet(420, 320, WHITE)
    sheet.text(210, 14, "Books borrowed", 24, anchor="ma")
    sheet.pen.line((40, 280, 400, 280), INK, 2)
    values = {"Jan": 42, "Feb": 35, "Mar": 58, "Apr": 49, "May": 61}
    for number, (month, value) in enumerate(values.items()):
        x, top = 60 + 68 * number, 280 - round(3.2 * value)
        sheet.pen.rectangle((x, top, x + 44, 279), BLUE)
        sheet.thing((x, top, x + 44, 279), "bar", f"bar of {month}", color="blue")
        sheet.text(x + 22, top - 24, str(value), 18, anchor="ma")
        sheet.text(x + 22, 288, month, 18, anchor="ma")
    return sheet.drawing("A bar chart of the books borrowed in each month from January to May.")


def budget_pie() -> Drawing:
    sheet = Sheet(456, 320, WHITE)
    sheet.text(228, 14, "Monthly budget", 24, anchor="ma")
    shares = {
        "Rent": (45, BLUE, "blue"), "Food": (25, GREEN, "green"),
        "Transport": (12, ORANGE, "orange"), "Savings": (10, RED, "red"),
        "Other": (8, GRAY, "gray"),
    }  # fmt: skip
    start = -90.0
    for number, (name, (share, color, _)) in enumerate(shares.items()):
        sheet.pen.pieslice((24, 66, 254, 296), start, start + 3.6 * share, color, WHITE, 2)
        start += 3.6 * share
        y = 86 + 42 * number
        sheet.pen.rectangle((278, y, 298, y + 20), color)
        sheet.text(308, y - 1, f"{name} {share}%", 20)
    sheet.thing((24, 66, 254, 296), "pie chart", shape="round")
    return sheet.drawing("A pie chart of a monthly budget with five parts; the largest is rent.")


def river_line() -> Drawing:
    sheet = Sheet(440, 320, WHITE)
    sheet.text(220, 12, "Orla river, level in cm", 22, anchor="ma")
    sheet.pen.line((50, 60, 50, 270, 420, 270), INK, 2)
    levels = {"Mon": 120, "Tue": 134, "Wed": 151, "Thu": 147, "Fri": 138}
    points = [(85 + 76 * i, 250 - 4.2 * (v - 115)) for i, v in enumerate(levels.values())]
    sheet.pen.line(points, BLUE, 4)
    for (x, y), (day, level) in zip(points, levels.items(), strict=True):
        sheet.pen.ellipse((x - 6, y - 6, x + 6, y + 6), RED)
        sheet.text(x - 12, y - 30, str(level), 18, anchor="ma")
        sheet.text(x, 280, day, 18, anchor="ma")
    return sheet.drawing("A line chart of the water level of a river on five days.")


def gauge() -> Drawing:
    sheet = Sheet(320, 320, (215, 220, 225))
    sheet.pen.ellipse((14, 14, 306, 306), WHITE, INK, 6)
    sheet.thing((14, 14, 306, 306), "gauge", "dial", color="white with a black rim")
    for value in range(0, 11):
        angle = math.radians(225 - 27 * value)
        ends = [(160 + r * math.cos(angle), 160 - r * math.sin(angle)) for r in (118, 134)]
        sheet.pen.line(ends, INK, 4 if value % 2 == 0 else 2)
        if value % 2 == 0:
            x, y = 160 + 96 * math.cos(angle), 160 - 96 * math.sin(angle)
            sheet.text(x, y, str(value), 22, anchor="mm")
    angle = math.radians(225 - 27 * 7)
    tip = (160 + 108 * math.cos(angle), 160 - 108 * math.sin(angle))
    sheet.pen.line((160, 160, *tip), RED, 6)
    sheet.pen.ellipse((148, 148, 172, 172), INK)
    sheet.thing((160, tip[1] - 3, tip[0] + 3, 160), "needle", color="red", reading="7 bar")
    sheet.text(160, 218, "bar", 22, GRAY, "ma")
    return sheet.drawing("A round pressure gauge with a scale from 0 to 10 bar and a red needle.")


def thermometer() -> Drawing:
    sheet = Sheet(220, 420, (225, 240, 250))
    sheet.pen.rounded_rectangle((80, 20, 120, 360), 20, WHITE, INK, 3)
    sheet.pen.ellipse((68, 336, 132, 400), RED, INK, 3)

    def height(degrees: int) -> int:
        return 320 - 6 * (degrees + 10)

    sheet.pen.rectangle((92, height(24), 108, 350), RED)
    sheet.thing((92, height(24), 108, 350), "red column", color="red", reading="24 degrees")
    for degrees in range(-10, 41, 10):
        y = height(degrees)
        sheet.pen.line((122, y, 138, y), INK, 3)
        sheet.text(146, y, str(degrees), 20, anchor="lm")
    for degrees in range(-10, 41, 2):
        sheet.pen.line((122, height(degrees), 130, height(degrees)), INK, 1)
    sheet.thing((68, 20, 132, 400), "thermometer", color="white with a red column")
    return sheet.drawing("A thermometer with a red column and a scale from -10 to 40 degrees.")


def weather() -> Drawing:
    sheet = Sheet(440, 300, (200, 225, 245))
    sheet.text(220, 12, "WEATHER IN ALTMOOR", 24, anchor="ma")
    days = [("Mon", 21, "sun"), ("Tue", 17, "cloud"), ("Wed", 14, "rain"), ("Thu", 19, "sun")]
    for number, (day, high, kind) in enumerate(days):
        x = 14 + 105 * number
        sheet.pen.rounded_rectangle((x, 60, x + 95, 280), 10, WHITE)
        sheet.text(x + 48, 74, day, 22, anchor="ma")
        _sky(sheet, x + 48, 160, kind)
        sheet.text(x + 48, 238, f"{high} °C", 22, anchor="ma")
    return sheet.drawing("A weather forecast for four days, from sunny to cloudy and rainy.")


def _sky(sheet: Sheet, x: float, y: float, kind: str) -> None:
    if kind == "sun":
        for ray in range(8):
            angle = math.radians(45 * ray)
            ends = [(x + r * math.cos(angle), y + r * math.sin(angle)) for r in (28, 38)]
            sheet.pen.line(ends, ORANGE, 4)
        sheet.pen.ellipse((x - 22, y - 22, x + 22, y + 22), YELLOW, ORANGE, 2)
        sheet.thing((x - 38, y - 38, x + 38, y + 38), "sun", color="yellow")
        return
    for dx, radius in ((-18, 16), (2, 22), (20, 14)):
        sheet.pen.ellipse((x + dx - radius, y - radius, x + dx + radius, y + radius), GRAY)
    sheet.thing((x - 34, y - 22, x + 34, y + 22), "cloud", color="gray")
    if kind == "rain":
        for dx in (-18, -4, 10, 24):
            sheet.pen.line((x + dx, y + 26, x + dx - 6, y + 44), BLUE, 3)


def timetable() -> Drawing:
    sheet = Sheet(420, 330, WHITE)
    sheet.pen.rectangle((0, 0, 420, 56), YELLOW)
    sheet.text(210, 14, "BUS 12 TO HARBOUR", 26, anchor="ma")
    rows = [
        ("Market", "7:05", "7:45", "8:30"), ("School", "7:19", "7:59", "8:44"),
        ("Bridge", "7:31", "8:11", "8:56"), ("Harbour", "7:48", "8:28", "9:13"),
    ]  # fmt: skip
    for number, cells in enumerate(rows):
        y = 74 + 62 * number
        if number % 2:
            sheet.pen.rectangle((0, y - 8, 420, y + 42), (240, 240, 240))
        sheet.row(24, 394, y + 2, *cells, size=24)
    return sheet.drawing("The timetable of a bus line with four stops and three departures.")


def scoreboard() -> Drawing:
    sheet = Sheet(420, 240, (25, 28, 32))
    sheet.pen.rectangle((6, 6, 413, 233), None, GRAY, 4)
    sheet.text(110, 28, "LIONS", 34, YELLOW, "ma")
    sheet.text(310, 28, "HAWKS", 34, (120, 180, 255), "ma")
    for x, score in ((110, "78"), (310, "81")):
        sheet.pen.rectangle((x - 70, 82, x + 70, 172), (10, 10, 10), GRAY, 2)
        sheet.text(x, 126, score, 68, RED, "mm")
    sheet.text(210, 192, "4th quarter", 24, WHITE, "ma")
    return sheet.drawing("The scoreboard of a basketball game between two teams.")


DRAWINGS = {
    "library_bars": library_bars, "budget_pie": budget_pie, "river_line": river_line,
    "gauge": gauge, "thermometer": thermometer, "weather": weather, "timetable": timetable,
    "scoreboard": scoreboard,
}  # fmt: skip
