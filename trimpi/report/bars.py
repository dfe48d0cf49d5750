"""Pairs of bars as inline SVG: before and after by category, with intervals and the change."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from trimpi.evaluate.statistics import Interval
from trimpi.report.svg import WIDTH, opening, shortened

NAMES, CHANGES = 116, 56
"""Width of the column of names, and of that of changes."""
ROW, BAR, TOP, BOTTOM = 30, 9, 8, 22


@dataclass(frozen=True)
class Row:
    """A category: both shares with their intervals, the change in words, and what a test says.

    `mark` is "worse", "better" or "": a significant change has a star.
    """

    name: str
    before: Interval
    after: Interval
    change: str
    mark: str = ""


def bar_chart(rows: Sequence[Row], *, title: str, names: tuple[str, str]) -> Markup:
    """An SVG element; the scale goes from 0 to 100%.

    Args:
        rows: from top to bottom.
        title: what the chart shows.
        names: of before and after, for readers that cannot see it.
    """
    bottom = TOP + ROW * len(rows)
    left, right = NAMES, WIDTH - CHANGES

    def px(share: float) -> float:
        return left + min(share, 1.0) * (right - left)

    words = "; ".join(
        f"{row.name}: {names[0]} {100 * row.before.value:.1f}%, {names[1]}"
        f" {100 * row.after.value:.1f}%, {row.change} points"
        + (f" (significantly {row.mark})" if row.mark else "")
        for row in rows
    )
    out = [opening(WIDTH, bottom + BOTTOM, title, words)]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        out.append(
            f'<line class="grid" x1="{px(tick):.1f}" x2="{px(tick):.1f}" y1="{TOP}" y2="{bottom}"/>'
            f'<text class="tick" x="{px(tick):.1f}" y="{bottom + 15}" text-anchor="middle">'
            f"{100 * tick:.0f}{'%' if tick == 1.0 else ''}</text>"
        )
    for place, row in enumerate(rows):
        top = TOP + ROW * place + (ROW - 2 * BAR - 2) / 2
        middle = TOP + ROW * place + ROW / 2 + 4
        style = "label strong" if place == 0 else "label"
        out.append(
            f'<text class="{style}" x="{left - 8}" y="{middle:.1f}" text-anchor="end">'
            f"{escape(shortened(row.name, 17))}<title>{escape(row.name)}</title></text>"
        )
        for kind, found, y in (("before", row.before, top), ("after", row.after, top + BAR + 2)):
            width = max(px(found.value) - left, 0.5)
            line = y + BAR / 2
            out.append(
                f'<rect class="bar {kind}" x="{left}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{BAR}"/>'
                f'<line class="whisker" x1="{px(found.low):.1f}" x2="{px(found.high):.1f}" '
                f'y1="{line:.1f}" y2="{line:.1f}"/>'
            )
        out.append(
            f'<text class="change {row.mark}" x="{WIDTH}" y="{middle:.1f}" text-anchor="end">'
            f"{escape(row.change.replace('-', '−'))}{'*' if row.mark else ''}</text>"
        )
    out.append("</svg>")
    return Markup("".join(out))
