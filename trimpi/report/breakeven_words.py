"""The break-even in words, tables and a chart. Where a cost is not known there is a dash."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from trimpi.report import svg
from trimpi.report.breakeven import RIVALS
from trimpi.report.serving import brief

DAYS_A_YEAR = 365
FAR = 6
"""Crossings further apart than this are shown on logarithmic axes."""


def dollars(amount: float | None) -> str:
    """An amount with its unit; a dash where it is not known."""
    if amount is None:
        return "–"
    if amount and abs(amount) < 0.01:
        return f"{amount:.2g} USD".replace("e-0", "e-")
    return f"{amount:,.2f} USD"


def span(days: float | None) -> str:
    """A time from minutes to years."""
    if days is None:
        return "–"
    if days < 2 / 24:
        return f"{max(1, round(days * 1440))} min"
    if days < 2:
        return f"{days * 24:.0f} h"
    if days < 2 * DAYS_A_YEAR:
        return f"{days:.3g} days" if days < 100 else f"{days:.0f} days"
    years = days / DAYS_A_YEAR
    return f"{years:,.0f} years" if years < 1000 else "over 1,000 years"


def requests_of(row: Mapping[str, Any]) -> str:
    """Requests to break even."""
    if row["never"]:
        return "never"
    return "–" if row["requests"] is None else f"{row['requests']:,}"


def days_of(row: Mapping[str, Any]) -> list[str]:
    """Time to break even at each rate."""
    return ["never" if row["never"] else span(days) for days in row["days"].values()]


def section(even: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What a page or a terminal shows: sentences, rows as text, charts. None: nothing to show."""
    if even is None or not (even["money"] or even["device"]):
        return None
    return {
        "training_line": training_line(even),
        "price_line": price_line(even),
        "never": never_lines(even),
        "rates": even["prices"]["requests_per_day"],
        "charts": charts(even),
        "money": [_row(row, dollars) for row in even["money"]],
        "device": [{"batch_size": row["batch_size"], **_row(row, brief)} for row in even["device"]],
    }


def _row(row: Mapping[str, Any], as_text: Callable[[float], str]) -> dict[str, Any]:
    return {
        "name": RIVALS[row["rival"]],
        "before": as_text(row["before"]),
        "after": as_text(row["after"]),
        "requests": requests_of(row),
        "days": days_of(row),
    }


def training_line(even: Mapping[str, Any]) -> str:
    """What training took and cost, or what is missing to know it."""
    training, prices = even["training"], even["prices"]
    if training["given"]:
        return f"Training {even['arm']} cost {dollars(training['cost'])}, as given."
    if training["seconds"] is None:
        return (
            f"What training {even['arm']} took is not recorded in all of its stages; "
            "give training_cost."
        )
    hours = training["device_hours"]
    many = "1 device" if training["devices"] == 1 else f"{training['devices']} devices"
    took = f"Training {even['arm']} took {_hours(hours)} of device time on {many}"
    if training["resumed"]:
        took += " at least (a stage was interrupted, and only its last sitting is counted)"
    if training["cost"] is None:
        return f"{took}; its cost is not known: give gpu_hour or training_cost."
    return f"{took}: {dollars(training['cost'])} at {dollars(prices['gpu_hour'])} an hour."


def never_lines(even: Mapping[str, Any]) -> list[str]:
    """One line for each comparison in money or device time that training never wins."""
    lines = [
        f"Never breaks even against the {RIVALS[row['rival']]}: a request costs"
        f" {dollars(row['before'])} of input there and {dollars(row['after'])} after training."
        for row in even["money"]
        if row["never"]
    ]
    return lines + [
        f"Never saves device time against the {RIVALS[row['rival']]} at batch size"
        f" {row['batch_size']}: a request takes {brief(row['before'])} there and"
        f" {brief(row['after'])} after training."
        for row in even["device"]
        if row["never"]
    ]


def price_line(even: Mapping[str, Any]) -> str:
    """The prices that were reckoned with."""
    prices = even["prices"]
    line = f"Input at {dollars(prices['price'])} per million tokens"
    if prices["cached_price"] is not None:
        line += f", cached at {dollars(prices['cached_price'])}, every request a hit"
    if prices["tuned_price"] is not None:
        line += f", of the trained model at {dollars(prices['tuned_price'])}"
    return f"{line}; generated tokens cost the same each way and are left out."


def charts(even: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Cumulative cost over requests, of each way: in money and in device time if known."""
    found = []
    training = even["training"]
    if even["money"] and training["cost"] is not None:
        found.append(_chart("Cost", "USD", even["money"], training["cost"], 1.0))
    if even["device"] and training["device_hours"] is not None:
        largest = max(row["batch_size"] for row in even["device"])
        rows = [row for row in even["device"] if row["batch_size"] == largest]
        quantity = f"hours of the device, batch size {largest}"
        found.append(_chart("Device time", quantity, rows, training["device_hours"], 3600.0))
    return found


def _chart(
    title: str, quantity: str, rows: Sequence[Mapping[str, Any]], training: float, unit: float
) -> dict[str, Any]:
    """Cumulative cost over requests of each way; where two ways cost the same there is a mark.

    Straight lines, cut where they leave the picture, which ends after the last crossing. Where
    the crossings lie so far apart that one would vanish at the edge, both axes are logarithmic.
    """
    after = rows[0]["after"] / unit
    before = {row["rival"]: row["before"] / unit for row in rows}
    crossings = {row["rival"]: row["requests"] for row in rows if row["requests"]}
    log = bool(crossings) and max(crossings.values()) > FAR * min(crossings.values())
    end = (4.0 if log else 1.5) * max(crossings.values()) if crossings else 1e6
    start = min(crossings.values()) / 20 if log else 0.0
    sizes = ((1e9, "billion "), (1e6, "million "), (1e3, "thousand "))
    scale, x_name = next((pair for pair in sizes if end >= pair[0] and not log), (1.0, ""))
    shown = [("with_policy", "in the prompt", "c2"), ("cached_prefix", "cached", "c3")]
    slopes = {rival: before[rival] for rival, _, _ in shown if before.get(rival)}
    top = max(training + after * end, min(slope * end for slope in slopes.values())) * 1.05
    lines = []
    for rival, name, style in shown:
        if slope := slopes.get(rival):
            stop = end if log else min(end, top / slope)
            ends = _between(start, stop, log)
            lines.append(svg.Line(name, [(n / scale, slope * n) for n in ends], style))
    trained = [(n / scale, training + after * n) for n in _between(start, end, log, 40)]
    lines.append(svg.Line("internalized", trained, "c1"))
    marks = [
        svg.Mark(svg.compact(float(n)), (n / scale, before[rival] * n))
        for rival, n in crossings.items()
    ]
    told = "; ".join(f"{RIVALS[row['rival']]}: break-even {requests_of(row)}" for row in rows)
    chart = svg.line_chart(
        lines,
        label=f"{title} over requests, {quantity}. {told}",
        x_name=f"{x_name}requests",
        log=log,
        marks=marks,
    )
    axes = ", both axes logarithmic" if log else ""
    return {"title": title, "quantity": f"{quantity}, cumulative{axes}", "chart": Markup(chart)}


def _between(start: float, end: float, log: bool, count: int = 2) -> list[float]:
    """Places from start to end, which a curve needs on logarithmic axes."""
    if not log:
        return [start, end]
    return [start * (end / start) ** (k / (count - 1)) for k in range(count)]


def _hours(hours: float) -> str:
    if hours < 1 / 30:
        return f"{3600 * hours:.0f} s"
    return f"{60 * hours:.0f} min" if hours < 2 else f"{hours:,.1f} h"
