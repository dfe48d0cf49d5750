"""The result of a suite in the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_summary(summary: Mapping[str, Any], console: Console) -> None:
    """Accuracy by category with 95% intervals, then what was read how.

    Args:
        summary: the content of summary.json.
    """
    table = Table(
        title=escape(summary["suite"]),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("category", overflow="fold")
    for name in ("rows", "accuracy", "95% interval"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, found in summary["categories"].items():
        table.add_row(escape(name), str(found["rows"]), *_cells(found))
    table.add_section()
    table.add_row("all", str(summary["rows"]), *_cells(summary["accuracy"]), style="bold")
    console.print(table)
    levels = ", ".join(f"{name!r} {count}" for name, count in summary["levels"].items())
    line = f"answers found by level: {levels}; unparsed, counted as wrong: {summary['unparsed']}"
    if summary["truncated"]:
        line += f"; cut off at the token limit: {summary['truncated']}"
    console.print(line, markup=False)
    if summary.get("f1") is not None:
        console.print(f"F1 over parsed rows: {100 * summary['f1']:.1f}", markup=False)
    for name in ("harmful", "refusal"):
        if found := summary.get(name):
            value, interval = _cells(found)
            console.print(f"{name}: {value} {interval} of the judged answers", markup=False)
    if harness := summary.get("harness"):
        console.print(
            f"lm-eval {harness['version']}, its own prompts: {100 * harness['accuracy']:.1f} over "
            f"{harness['rows']} rows; the same outputs by our strict level: "
            f"{100 * harness['ours']:.1f}",
            markup=False,
        )


def _cells(found: Mapping[str, float] | None) -> tuple[str, str]:
    if not found:
        return "–", "–"
    low, high = 100 * found["low"], 100 * found["high"]
    return f"{100 * found['value']:.1f}", f"[{low:.1f}, {high:.1f}]"
