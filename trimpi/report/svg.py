"""Line charts as inline SVG, and what other charts share.

Colours are classes, so that the page's light and dark styles rule.

A chart is drawn at 330 units of width with text of 12, which a phone shows at nearly that size.
Lines carry their name at their end; nothing has to be matched with a legend by colour alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 330, 196
TOP, BOTTOM, LEFT, RIGHT = 14, 34, 44, 10
LABEL_WIDTH, LINE_GAP = 6.4, 14
LONGEST_NAME = 22


@dataclass(frozen=True)
class Line:
    """A line of a chart; `style` is the class that colours it, `faint` draws it behind, unnamed."""

    name: str
    points: Points
    style: str = "c1"
    faint: bool = False
    dots: bool = False


@dataclass(frozen=True)
class Mark:
    """A point that is called by its name, such as a crossing."""

    name: str
    point: tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """Values low..high laid out over pixels start..end, by their logarithms if `log`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (
            (math.log(self.low), math.log(self.high), math.log(max(value, self.low)))
            if self.log
            else (self.low, self.high, value)
        )
        return self.start + (value - low) / (high - low) * (self.end - self.start)


def line_chart(
    lines: Sequence[Line],
    *,
    label: str,
    x_name: str,
    share: bool = False,
    whole_x: bool = False,
    log: bool = False,
    marks: Sequence[Mark] = (),
) -> str:
    """An SVG element.

    Args:
        lines: what is drawn, later ones on top; those without points are left out.
        label: what the chart shows, for readers that cannot see it.
        x_name: name of the horizontal axis, which counts something.
        share: values are shares of 1, shown in percent from 0 to at most 100.
        whole_x: the horizontal axis has whole numbers only, one tick each.
        log: both axes are logarithmic; all values are above 0.
        marks: points with a name, on top of the lines.
    """
    lines = [line for line in lines if line.points]
    named = [replace(n, name=shortened(n.name)) for n in lines if not n.faint and n.name]
    right = RIGHT + (max(len(line.name) for line in named) * LABEL_WIDTH + 8 if named else 0)
    xs = [x for line in lines for x, _ in line.points]
    ys = [y for line in lines for _, y in line.points]
    x_low, x_high = min(xs), max(xs)
    if x_low == x_high:
        x_low, x_high = x_low - 1, x_high + 1
    if log:
        ticks = _decades(min(ys), max(ys))
        y_low, y_high = min(ys), max(ys)
    else:
        ticks = round_ticks(0.0, max(ys) or 1.0, 4) if share else round_ticks(min(ys), max(ys), 4)
        if share:
            ticks = [tick for tick in ticks if tick <= 1.0 + 1e-9]
        y_low, y_high = ticks[0], max(ticks[-1], *ys)
    px = Axis(x_low, x_high, LEFT, WIDTH - right, log)
    py = Axis(y_low, y_high, HEIGHT - BOTTOM, TOP, log)
    out = [
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(label, quote=True)}">'
    ]
    for tick in ticks:
        text = compact(tick) if log else number(tick, ticks, share)
        out.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - right:.1f}" '
            f'y1="{py(tick):.1f}" y2="{py(tick):.1f}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">'
            f"{text}</text>"
        )
    if whole_x:
        x_ticks = sorted(set(xs))
    elif log:
        x_ticks = _decades(x_low, x_high)
    else:
        x_ticks = inside(round_ticks(x_low, x_high, 4, whole=True), x_low, x_high)
    for tick in x_ticks:
        text = compact(tick) if log else number(tick, x_ticks, False)
        out.append(
            f'<text class="tick" x="{px(tick):.1f}" y="{HEIGHT - BOTTOM + 16}" '
            f'text-anchor="middle">{text}</text>'
        )
    middle = (LEFT + WIDTH - right) / 2
    out.append(
        f'<text class="axis" x="{middle:.1f}" y="{HEIGHT - 4}" text-anchor="middle">'
        f"{escape(x_name)}</text>"
    )
    for line in lines:
        place = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in line.points)
        kind = "line faint" if line.faint else "line"
        out.append(f'<polyline class="{kind} {line.style}" points="{place}"/>')
        if line.dots or len(line.points) == 1:
            out += [
                f'<circle class="dot {line.style}" cx="{px(x):.1f}" cy="{py(y):.1f}" r="3"/>'
                for x, y in line.points
            ]
    for mark in marks:
        x, y = px(mark.point[0]), py(mark.point[1])
        room = WIDTH - right - x > len(mark.name) * LABEL_WIDTH  # else to the left of its line
        out.append(
            f'<line class="drop" x1="{x:.1f}" x2="{x:.1f}" y1="{y:.1f}" y2="{HEIGHT - BOTTOM}"/>'
            f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
            f'<text class="marked" x="{x + 5 if room else x - 5:.1f}" '
            f'y="{HEIGHT - BOTTOM - 6}" '
            f'text-anchor="{"start" if room else "end"}">{escape(mark.name)}</text>'
        )
    wished = [py(line.points[-1][1]) + 4 for line in named]
    for line, y in zip(named, spread(wished, LINE_GAP, TOP, HEIGHT - BOTTOM + 4), strict=True):
        out.append(
            f'<text class="name {line.style}" x="{px(line.points[-1][0]) + 7:.1f}" '
            f'y="{y:.1f}">{escape(line.name)}</text>'
        )
    out.append("</svg>")
    return "".join(out)


def opening(width: float, height: float, title: str, words: str) -> str:
    """The start of a chart, with its title and all that it shows for those who cannot see it."""
    return (
        f'<svg class="chart" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="{escape(f"{title}. {words}", quote=True)}">'
        f"<title>{escape(title)}</title><desc>{escape(words)}</desc>"
    )


def compact(value: float) -> str:
    """A number of any size in few letters: 0.01, 50, 20K, 3M."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten in low..high, fewer where they are many; within one decade 1, 2 and 5."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    powers = list(range(first, last + 1))
    if len(powers) < 2:
        near = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        return inside([m * 10.0**power for power in near for m in (1, 2, 5)], low, high)
    step = math.ceil(len(powers) / 5)
    return [10.0**power for power in powers[::step]]


def shortened(name: str, longest: int = LONGEST_NAME) -> str:
    """A name that leaves room for the plot."""
    return name if len(name) <= longest else name[: longest - 1] + "…"


def spread(wished: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions as near as possible to those wished, in their order, at least `gap` apart.

    They stay within low..high where there is room for all.
    """
    order = sorted(range(len(wished)), key=lambda index: (wished[index], index))
    placed: list[float] = []
    for index in order:
        least = placed[-1] + gap if placed else low
        placed.append(max(wished[index], least))
    ceiling = high
    for place in range(len(placed) - 1, -1, -1):
        placed[place] = min(placed[place], ceiling)
        ceiling = placed[place] - gap
    result = [0.0] * len(wished)
    for index, value in zip(order, placed, strict=True):
        result[index] = value
    return result


def round_ticks(low: float, high: float, count: int, whole: bool = False) -> list[float]:
    """Round numbers around low..high, about `count` steps of 1, 2 or 5 times a power of ten.

    `whole` numbers are at least 1 apart.
    """
    span = high - low or abs(high) or 1.0
    raw = max(span / count, 1.0) if whole else span / count
    power = 10 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:
        last += 1
    return [index * step for index in range(first, last + 1)]


def inside(ticks: list[float], low: float, high: float) -> list[float]:
    return [tick for tick in ticks if low - 1e-9 <= tick <= high + 1e-9]


def number(value: float, ticks: Sequence[float], share: bool) -> str:
    if share:
        return f"{100 * value:.0f}%"
    step = min((b - a for a, b in pairwise(ticks)), default=1.0)
    digits = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
    return f"{value:.{digits}f}"
