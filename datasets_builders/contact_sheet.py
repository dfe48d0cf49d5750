"""The contact sheet: pictures with request, gold path and answer, as one PNG."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from trimpi.errors import UserError
from trimpi.picture_file import PICTURE_ERRORS
from trimpi.policy import Policy
from trimpi.sample import Sample

PAPER, INK, FAINT, ACCENT = (255, 255, 255), (28, 30, 33), (105, 110, 118), (0, 92, 175)
CELL, PICTURE, MARGIN, SIZE = 320, (320, 214), 14, 13

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Line = tuple[str, tuple[int, int, int]]


def draw_sheet(rows: Sequence[tuple[Sample, Policy | None]], file: Path, columns: int = 4) -> Path:
    """Draw samples in cells of a grid: all their images side by side, then the text below.

    Raises:
        UserError: an image cannot be opened, or the sheet cannot be written.
    """
    font = ImageFont.load_default(SIZE)
    texts = [_lines(sample, policy, font) for sample, policy in rows]
    columns = min(columns, len(rows))
    leading = SIZE + 5
    heights = [
        PICTURE[1] + leading * max(len(text) for text in texts[start : start + columns]) + MARGIN
        for start in range(0, len(rows), columns)
    ]
    width = columns * (CELL + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, sum(heights) + MARGIN * (len(heights) + 1)), PAPER)
    pen = ImageDraw.Draw(sheet)
    top = MARGIN
    for line, height in enumerate(heights):
        for column in range(columns):
            place = line * columns + column
            if place >= len(rows):
                break
            left = MARGIN + column * (CELL + MARGIN)
            _paste(sheet, rows[place][0].images, left, top)
            y = top + PICTURE[1] + 6
            for text, colour in texts[place]:
                pen.text((left, y), text, fill=colour, font=font)
                y += leading
        top += height + MARGIN
    file = Path(file)
    temporary = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(temporary, format="PNG")
        temporary.replace(file)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"{file}: cannot be written ({error}); choose another --sheet") from None
    return file


def _paste(sheet: Image.Image, images: Sequence[str], left: int, top: int) -> None:
    share = PICTURE[0] // max(len(images), 1)
    for number, path in enumerate(images):
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except PICTURE_ERRORS as error:
            raise UserError(f"{path}: not a whole picture ({error}); restore it") from None
        scale = min(share / image.width, PICTURE[1] / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        # Pixels of very small pictures are kept sharp: what the model gets is to be seen.
        kernel = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
        sheet.paste(image.resize(size, kernel), (left + number * share, top))


def _lines(sample: Sample, policy: Policy | None, font: Font) -> list[Line]:
    blocks: list[Line] = [(f"{sample.id}", FAINT)]
    if policy is not None and sample.policy != policy.name.lower():
        blocks[0] = (f"{sample.id} (policy {sample.policy})", FAINT)
    blocks.append((sample.query, INK))
    for step in sample.facts.get("path", []):
        verdict = "yes" if step["outcome"] else "no"
        text = f"{step['condition']}  {step['attribute']} = {step['value']}?  {verdict}"
        blocks.append((text, FAINT))
    blocks.append((f"Answer: {sample.answer}", ACCENT))
    return [(line, colour) for text, colour in blocks for line in _wrap(text, font)]


def _wrap(text: str, font: Font) -> list[str]:
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        current = ""
        for word in paragraph.split(" "):
            longer = f"{current} {word}".strip() if current else word
            if current and font.getlength(longer) > CELL:
                lines.append(current)
                current = word
            else:
                current = longer
        lines.append(current)
    return lines
