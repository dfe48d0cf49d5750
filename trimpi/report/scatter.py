"""A scatter plot as inline SVG: points with error bars and names that keep off each other."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from markupsafe import Markup

from trimpi.evaluate.statistics import Interval
from trimpi.report.svg import Axis, inside, number, opening, round_ticks, shortened

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 16, 46
LETTER, LINE = 5.9, 14
RADIUS = 5

Box = tuple[float, float, float, float]
"""Left, top, right, bottom."""


@dataclass(frozen=True)
class Dot:
    """A point with its intervals. `style`: "arm", "leading" or "base"."""

    name: str
    x: Interval
    y: Interval
    style: str = "arm"


@dataclass(frozen=True)
class Path:
    """A line through the middles of dots; `style`: "front" or "series"."""

    points: Sequence[tuple[float, float]]
    style: str


def scatter(
    dots: Sequence[Dot],
    paths: Sequence[Path],
    *,
    title: str,
    x_name: str,
    y_name: str,
) -> Markup:
    """An SVG element; both axes are shares of 1, shown in percent, cut to what is there."""
    px = _axis([d.x for d in dots], LEFT, WIDTH - RIGHT)
    py = _axis([d.y for d in dots], HEIGHT - BOTTOM, TOP)
    words = "; ".join(f"{d.name}: {_said(d.x)} {x_name}, {_said(d.y)} {y_name}" for d in dots)
    out = [opening(WIDTH, HEIGHT, title, words)]
    ticks = inside(round_ticks(py.low, py.high, 5), py.low, py.high)
    for tick in ticks:
        out.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{py(tick):.1f}" '
            f'y2="{py(tick):.1f}"/><text class="tick" x="{LEFT - 7}" y="{py(tick) + 4:.1f}" '
            f'text-anchor="end">{_percent(tick, ticks)}</text>'
        )
    ticks = inside(round_ticks(px.low, px.high, 7), px.low, px.high)
    for tick in ticks:
        out.append(
            f'<line class="grid" x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{TOP}" '
            f'y2="{HEIGHT - BOTTOM}"/><text class="tick" x="{px(tick):.1f}" '
            f'y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{_percent(tick, ticks)}</text>'
        )
    out.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 8}" '
        f'text-anchor="middle">{escape(x_name)} →</text>'
        f'<text class="axis" text-anchor="middle" transform="translate(13 '
        f'{(TOP + HEIGHT - BOTTOM) / 2:.0f}) rotate(-90)">{escape(y_name)} →</text>'
    )
    for path in paths:
        place = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in path.points)
        out.append(f'<polyline class="path {path.style}" points="{place}"/>')
    for dot in dots:
        x, y = px(dot.x.value), py(dot.y.value)
        out.append(
            f'<line class="error" x1="{px(dot.x.low):.1f}" x2="{px(dot.x.high):.1f}" '
            f'y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<line class="error" x1="{x:.1f}" x2="{x:.1f}" y1="{py(dot.y.low):.1f}" '
            f'y2="{py(dot.y.high):.1f}"/>'
        )
    for dot in sorted(dots, key=lambda d: d.style == "leading"):
        x, y = px(dot.x.value), py(dot.y.value)
        told = f"<title>{escape(f'{dot.name}: {_said(dot.x)}, {_said(dot.y)}')}</title>"
        if dot.style == "base":
            out.append(
                f'<rect class="point base" x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" '
                f'height="9" transform="rotate(45 {x:.1f} {y:.1f})">{told}</rect>'
            )
        else:
            out.append(
                f'<circle class="point {dot.style}" cx="{x:.1f}" cy="{y:.1f}" r="{RADIUS}">'
                f"{told}</circle>"
            )
    centres = [(px(d.x.value), py(d.y.value)) for d in dots]
    lines = [
        ((px(a[0]), py(a[1])), (px(b[0]), py(b[1]))) for p in paths for a, b in pairwise(p.points)
    ]
    for dot, (x, y) in zip(dots, centres, strict=True):
        lines += [((px(dot.x.low), y), (px(dot.x.high), y))]
        lines += [((x, py(dot.y.low)), (x, py(dot.y.high)))]
    names = [shortened(dot.name, 30) for dot in dots]
    for dot, name, centre, box in zip(
        dots, names, centres, place_names(names, centres, lines), strict=True
    ):
        left, top, right, bottom = box
        x, y = centre
        near = (min(max(x, left), right), min(max(y, top + 2), bottom - 2))
        if math.dist(near, centre) > 2.5 * RADIUS:
            out.append(
                f'<line class="leader" x1="{x:.1f}" y1="{y:.1f}" '
                f'x2="{near[0]:.1f}" y2="{near[1]:.1f}"/>'
            )
        # fonts differ in width, so a name is held at the side that faces its point
        edge, anchor = (right, "end") if left + right < 2 * x else (left, "start")
        out.append(
            f'<text class="named {dot.style}" x="{edge:.1f}" y="{bottom - 3.5:.1f}" '
            f'text-anchor="{anchor}">{escape(name)}</text>'
        )
    out.append("</svg>")
    return Markup("".join(out))


def place_names(
    names: Sequence[str],
    centres: Sequence[tuple[float, float]],
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
) -> list[Box]:
    """A box for each name: near its point, off the other names and points, inside the plot.

    Those with the most neighbours choose first; what is far from its point gets a leader line.
    """
    crowd = [sum(math.dist(a, b) < 60 for b in centres) for a in centres]
    order = sorted(range(len(names)), key=lambda i: (-crowd[i], i))
    taken: dict[int, Box] = {}
    points = [(x - RADIUS - 1, y - RADIUS - 1, x + RADIUS + 1, y + RADIUS + 1) for x, y in centres]
    along = [
        (a[0] + t * (b[0] - a[0]), a[1] + t * (b[1] - a[1]))
        for a, b in lines
        for t in (k / 40 for k in range(41))
    ]
    for index in order:
        width = len(names[index]) * LETTER

        def cost(box: Box, centre: tuple[float, float] = centres[index]) -> float:
            left, top, right, bottom = box
            middle = ((left + right) / 2, (top + bottom) / 2)
            near = (min(max(centre[0], left), right), min(max(centre[1], top), bottom))
            found = math.dist(near, centre) / 10 + math.dist(middle, centre) / 200
            found += 100 * sum(_shared(box, other) for other in taken.values())
            found += 60 * sum(_shared(box, other) for other in points)
            found += 0.4 * sum(left < x < right and top < y < bottom for x, y in along)
            return found

        taken[index] = min(_places(centres[index], width), key=cost)
    return [taken[index] for index in range(len(names))]


def _places(centre: tuple[float, float], width: float) -> list[Box]:
    """Boxes around a point, from near to far, pushed into the plot."""
    found = []
    for reach in (10.0, 20.0, 34.0, 50.0, 70.0, 95.0, 125.0):
        for turn in range(16):
            angle = 2 * math.pi * turn / 16
            x, y = centre[0] + reach * math.cos(angle), centre[1] + reach * math.sin(angle)
            side = math.cos(angle)
            left = x if side > 0.3 else x - width if side < -0.3 else x - width / 2
            left = min(max(left, LEFT + 2), WIDTH - RIGHT - width)
            top = min(max(y - LINE / 2, TOP), HEIGHT - BOTTOM - LINE)
            found.append((left, top, left + width, top + LINE))
    return found


def _shared(a: Box, b: Box) -> float:
    """Area that two boxes share, over that of a letter."""
    wide = min(a[2], b[2]) - max(a[0], b[0])
    high = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, wide) * max(0.0, high) / (LETTER * LINE)


def _axis(values: Sequence[Interval], start: float, end: float) -> Axis:
    low, high = min(v.low for v in values), max(v.high for v in values)
    margin = 0.06 * (high - low) or 0.05
    return Axis(max(low - margin, -0.02), min(high + margin, 1.02), start, end)


def _percent(tick: float, ticks: Sequence[float]) -> str:
    whole = all(abs(100 * t - round(100 * t)) < 1e-6 for t in ticks)
    return number(tick, ticks, True) if whole else f"{100 * tick:.1f}%"


def _said(found: Interval) -> str:
    return f"{100 * found.value:.1f}% ({100 * found.low:.1f} to {100 * found.high:.1f})"
