"""Papers with prices and amounts: bills, menus, labels, tickets."""

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


def receipt() -> Drawing:
    sheet = Sheet(300, 400)
    sheet.text(150, 24, "CORNER BAKERY", 24, anchor="ma")
    sheet.text(150, 58, "Receipt 0417", 16, GRAY, "ma")
    sheet.pen.line((24, 92, 276, 92), INK, 2)
    rows = [("Rye bread", "3.20"), ("Bread rolls", "2.40"), ("Apple pie", "7.50")]
    for number, cells in enumerate([*rows, ("Orange juice", "3.90")]):
        sheet.row(28, 272, 108 + 40 * number, *cells, size=20)
    sheet.pen.line((24, 276, 276, 276), INK, 2)
    sheet.row(28, 272, 292, "Total", "17.00", size=26)
    sheet.text(150, 352, "Thank you!", 18, GRAY, "ma")
    return sheet.drawing("A paper receipt of a bakery with four items and a total at the bottom.")


def cafe() -> Drawing:
    sheet = Sheet(320, 420, (58, 44, 38))
    sheet.pen.rounded_rectangle((14, 14, 306, 406), 14, (250, 242, 226), (170, 120, 70), 4)
    sheet.text(160, 34, "CAFE LINDEN", 30, (120, 60, 30), "ma")
    sheet.pen.line((50, 78, 270, 78), (170, 120, 70), 3)
    rows = [
        ("Espresso", "2.60"), ("Cappuccino", "3.80"), ("Hot chocolate", "4.20"),
        ("Cheesecake", "4.90"), ("Soup of the day", "6.50"), ("Toasted sandwich", "7.20"),
    ]  # fmt: skip
    for number, cells in enumerate(rows):
        sheet.row(40, 280, 100 + 46 * number, *cells, size=20)
    return sheet.drawing(
        "The menu of a cafe with hot drinks, cheesecake, soup and a sandwich, each with a price."
    )


def pizzeria() -> Drawing:
    sheet = Sheet(320, 420, (255, 252, 246))
    for x, color in ((0, GREEN), (306, RED)):
        sheet.pen.rectangle((x, 0, x + 13, 420), color)
    sheet.text(160, 26, "PIZZERIA SOLE", 28, RED, "ma")
    rows = [
        ("Margherita", "8.50"), ("Funghi", "9.80"), ("Vegetariana", "10.20"), ("Salami", "10.50"),
        ("Tiramisu", "5.40"), ("Mineral water", "2.90"),
    ]  # fmt: skip
    for number, cells in enumerate(rows):
        sheet.row(36, 284, 90 + 50 * number, *cells, size=22)
        sheet.pen.line((36, 124 + 50 * number, 284, 124 + 50 * number), (215, 210, 200))
    return sheet.drawing(
        "The menu of a pizzeria with four pizzas, a dessert and mineral water, with prices."
    )


def fruit_prices() -> Drawing:
    sheet = Sheet(320, 340, (40, 62, 50))
    sheet.pen.rectangle((0, 0, 319, 339), None, (150, 105, 60), 10)
    white = (240, 240, 230)
    sheet.text(160, 28, "FRUIT per kg", 28, YELLOW, "ma")
    rows = [
        ("Apples 2.80", RED), ("Pears 3.40", GREEN), ("Plums 4.10", (120, 70, 150)),
        ("Grapes 5.60", (150, 190, 80)), ("Cherries 8.90", (190, 30, 60)),
    ]  # fmt: skip
    for number, (line, color) in enumerate(rows):
        y = 86 + 48 * number
        sheet.pen.ellipse((36, y + 1, 58, y + 23), color)
        sheet.text(76, y, line, 24, white)
    return sheet.drawing("A chalkboard of a fruit stall with the prices of five kinds of fruit.")


def invoice() -> Drawing:
    sheet = Sheet(380, 400)
    sheet.pen.rectangle((0, 0, 380, 64), BLUE)
    sheet.text(24, 18, "INVOICE 2041", 28, (255, 255, 255))
    sheet.text(24, 82, "Green Corner Furniture", 18, GRAY)
    sheet.pen.line((24, 116, 356, 116), INK, 2)
    rows = [
        ("4 garden chairs", "140.00"), ("1 garden table", "120.00"), ("2 parasols", "90.00"),
        ("Delivery", "18.00"),
    ]  # fmt: skip
    for number, cells in enumerate(rows):
        sheet.row(28, 352, 132 + 40 * number, *cells, size=20)
    sheet.pen.line((24, 300, 356, 300), INK, 2)
    sheet.text(28, 316, "Prices without 20% tax", 18)
    sheet.text(28, 352, "Pay within 14 days", 18)
    return sheet.drawing("An invoice of a furniture shop for garden furniture and its delivery.")


def train_ticket() -> Drawing:
    sheet = Sheet(420, 220, (225, 238, 232))
    sheet.pen.rectangle((0, 0, 420, 44), GREEN)
    sheet.text(18, 9, "RAIL TICKET", 24, (255, 255, 255))
    sheet.text(18, 62, "Northgate to Elmsford", 24)
    sheet.text(18, 104, "Departs 09:48", 20)
    sheet.text(210, 104, "Arrives 12:13", 20)
    sheet.text(18, 140, "Coach 7", 20)
    sheet.text(210, 140, "Seat 34", 20)
    sheet.text(18, 178, "Price 28.60", 22)
    for x in range(330, 400, 6):
        sheet.pen.line((x, 140, x, 206), INK, 1 + x % 4)
    return sheet.drawing("A green rail ticket for one journey, with times, coach, seat and price.")


def museum() -> Drawing:
    sheet = Sheet(360, 340, (238, 232, 220))
    sheet.pen.rectangle((10, 10, 350, 330), None, (140, 40, 50), 5)
    sheet.text(180, 34, "CITY MUSEUM", 32, (140, 40, 50), "ma")
    rows = [("Adults", "12.00"), ("Students", "7.50"), ("Children", "5.00")]
    for number, cells in enumerate(rows):
        sheet.row(50, 310, 100 + 46 * number, *cells, size=24)
    sheet.text(180, 250, "Open 10 am - 6 pm", 20, anchor="ma")
    sheet.text(180, 284, "Closed on Mondays", 20, RED, "ma")
    return sheet.drawing("The board at a museum's entrance with admission prices and hours.")


def recipe() -> Drawing:
    sheet = Sheet(320, 380, (255, 249, 230))
    for y in range(96, 380, 42):
        sheet.pen.line((0, y, 320, y), (200, 215, 230))
    sheet.pen.line((36, 0, 36, 380), (230, 150, 150), 2)
    sheet.text(52, 22, "PANCAKES", 30, ORANGE)
    sheet.text(52, 64, "for 4 people", 18, GRAY)
    lines = ["250 g flour", "3 eggs", "500 ml milk", "40 g butter", "1 pinch of salt"]
    for number, line in enumerate(lines):
        sheet.text(52, 110 + 42 * number, line, 22)
    return sheet.drawing("A recipe card for pancakes that lists five ingredients.")


def nutrition() -> Drawing:
    sheet = Sheet(300, 380, (255, 255, 255))
    sheet.pen.rectangle((8, 8, 292, 372), None, INK, 3)
    sheet.text(22, 20, "Oat Crunch", 28)
    sheet.text(22, 58, "per 100 g", 18, GRAY)
    sheet.pen.rectangle((20, 88, 280, 94), INK)
    rows = [
        ("Energy", "420 kcal"), ("Fat", "14 g"), ("Carbohydrates", "58 g"), ("Sugar", "16 g"),
        ("Protein", "11 g"), ("Salt", "0.4 g"),
    ]  # fmt: skip
    for number, cells in enumerate(rows):
        sheet.row(24, 276, 108 + 42 * number, *cells, size=20)
        sheet.pen.line((20, 140 + 42 * number, 280, 140 + 42 * number), GRAY)
    return sheet.drawing("The nutrition label of a cereal with energy, fat, sugar and protein.")


def syrup() -> Drawing:
    sheet = Sheet(260, 420, (232, 240, 245))
    sheet.pen.rectangle((98, 16, 162, 74), (245, 245, 245), GRAY, 2)
    sheet.pen.rounded_rectangle((40, 70, 220, 404), 26, (120, 66, 30))
    sheet.thing((40, 16, 220, 404), "bottle", color="brown with a white cap")
    sheet.pen.rectangle((48, 140, 212, 356), (250, 250, 240))
    for y, line, size in ((156, "HERBAL", 24), (188, "COUGH SYRUP", 20), (226, "120 ml", 22)):
        sheet.text(130, y, line, size, GREEN if y < 220 else INK, "ma")
    sheet.text(130, 274, "Take 5 ml", 18, anchor="ma")
    sheet.text(130, 302, "3 times a day", 18, anchor="ma")
    return sheet.drawing("A brown bottle of cough syrup with a white cap and a label.")


def planner() -> Drawing:
    sheet = Sheet(400, 400)
    sheet.pen.rectangle((0, 0, 400, 58), RED)
    sheet.text(200, 12, "WEEK 24", 32, (255, 255, 255), "ma")
    rows = [
        ("Mon", "Dentist 10:30"), ("Tue", "Piano lesson 17:00"), ("Wed", "Team lunch 12:15"),
        ("Thu", "Free"), ("Fri", "Train to Elmsford 9:48"), ("Sat", "Birthday of Nora"),
    ]  # fmt: skip
    for number, (day, entry) in enumerate(rows):
        y = 72 + 54 * number
        sheet.text(20, y + 8, day, 22, RED)
        sheet.text(92, y + 9, entry, 20)
        sheet.pen.line((12, y + 46, 388, y + 46), (205, 205, 205))
    return sheet.drawing("A page of a weekly planner with an entry for each day but Sunday.")


def poster() -> Drawing:
    sheet = Sheet(340, 440, (28, 36, 92))
    for x, y in ((40, 60), (300, 40), (270, 130), (60, 150), (170, 30), (120, 110), (220, 90)):
        sheet.pen.regular_polygon((x, y, 7), 4, 45, YELLOW)
    sheet.pen.ellipse((130, 130, 210, 210), (245, 235, 200))
    sheet.text(170, 232, "SUMMER CONCERT", 32, YELLOW, "ma")
    white = (255, 255, 255)
    lines = ["Town Hall Square", "12 July, 8 pm", "Tickets 15.00", "Children under 12 free"]
    for number, line in enumerate(lines):
        sheet.text(170, 286 + 36 * number, line, 22, white, "ma")
    return sheet.drawing(
        "A dark blue poster for an open-air concert, with a full moon and yellow stars."
    )


DRAWINGS = {
    "receipt": receipt, "cafe": cafe, "pizzeria": pizzeria, "fruit_prices": fruit_prices,
    "invoice": invoice, "train_ticket": train_ticket, "museum": museum, "recipe": recipe,
    "nutrition": nutrition, "syrup": syrup, "planner": planner, "poster": poster,
}  # fmt: skip
