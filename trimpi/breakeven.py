"""`trimpi breakeven`: when the training of a run has paid for itself, at prices given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from trimpi.errors import UserError, did_you_mean
from trimpi.prices import PriceConfig
from trimpi.report.aggregate import summarize
from trimpi.report.breakeven import RIVALS, break_even
from trimpi.report.breakeven_words import section
from trimpi.report.load import load_run
from trimpi.terminal_text import aligned

OPTIONS: Mapping[str, str] = {
    "price": "--price",
    "cached_price": "--cached-price",
    "tuned_price": "--tuned-price",
    "gpu_hour": "--gpu-hour",
    "training_cost": "--training-cost",
    "requests_per_day": "--requests-per-day",
}

SHORT: Mapping[str, str] = {
    name: "cached" if rival == "cached_prefix" else "in the prompt"
    for rival, name in RIVALS.items()
}


def of_run(folder: Path, given: Mapping[str, Any], arm: str | None = None) -> dict[str, Any]:
    """The break-even of a run's arm (None: the one that the report leads with).

    Args:
        folder: a run folder.
        given: fields of `PriceConfig`; what is None or missing is the recipe's (`report.prices`).
        arm: a trained arm.

    Raises:
        UserError: no run folder, nothing measured, no such arm, or prices that make no sense.
    """
    if not (folder / "run.json").is_file():
        raise UserError(f"{folder}: no run.json, so not a run folder; give the --output of a run")
    run = load_run(folder)
    own = (run.recipe.get("report") or {}).get("prices") or {}
    prices = _prices({**own, **{k: v for k, v in given.items() if v is not None}})
    summary = summarize(run)
    if not summary["efficiency"]:
        raise UserError(
            f"{folder}: prompts are not measured; add 'efficiency' to evaluation.settings and run "
            "trimpi run again"
        )
    trained = [found.name for found in run.arms]
    name = arm or summary["headline_arm"]
    if name is None or name not in trained:
        raise UserError(
            f"--arm {name}: no such trained arm in {folder}; {did_you_mean(name, trained)}"
            if name and trained
            else f"{folder}: no arm is trained and measured yet; run trimpi run again"
        )
    even = break_even(
        summary["efficiency"], summary["costs"][name], prices, name, run.recipe.get("devices") or 1
    )
    assert even is not None
    if not even["money"] and not even["device"]:
        raise UserError(
            f"{folder}: requests are not timed (a run of an older version) and no price is given; "
            "give --price in USD per million input tokens"
        )
    return even


def print_break_even(even: Mapping[str, Any], console: Console) -> None:
    """Print sentences and tables; under break-even are requests."""
    shown = section(even)
    assert shown is not None
    tokens = even["tokens"]
    lines = [
        f"{even['arm']}: the policy is {tokens['policy']:.0f} tokens of the prompt, the rest"
        f" {tokens['request']:.0f} (means)",
        shown["training_line"],
        *([shown["price_line"]] if shown["money"] else []),
    ]
    for line in lines:
        console.print(line, markup=False)
    for title, unit in (("money", "input cost"), ("device", "device time")):
        if not shown[title]:
            continue
        sizes = title == "device"
        usd = "" if sizes else ", USD"
        top = [f"{unit}, a request", *(["batch"] if sizes else []), f"there{usd}", f"after{usd}"]
        rows = [[*top, "break-even", *(f"{rate:,}/day" for rate in shown["rates"])]]
        for row in shown[title]:
            size = [str(row["batch_size"])] if sizes else []
            each = [row[key].removesuffix(" USD") for key in ("before", "after")]
            rows.append([SHORT[row["name"]], *size, *each, row["requests"], *row["days"]])
        console.print()
        for line in aligned(rows):
            console.print(line, markup=False)
    if shown["never"]:
        console.print()
    for line in shown["never"]:
        console.print(line, markup=False)


def _prices(values: Mapping[str, Any]) -> PriceConfig:
    try:
        return PriceConfig.model_validate(dict(values))
    except ValidationError as error:
        lines = []
        for fault in error.errors():
            place = OPTIONS.get(str(fault["loc"][0]), "prices") if fault["loc"] else "prices"
            lines.append(f"{place}: {fault['msg'].removeprefix('Value error, ')}")
        raise UserError.join(lines) from None
