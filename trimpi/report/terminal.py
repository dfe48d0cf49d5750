"""The end of a run in the terminal: the main table, then prompt, forgetting and headline."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimpi.report.aggregate import percent
from trimpi.report.page import duration, points, table_rows
from trimpi.report.tool_calls import part_columns


def print_table(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Print what report/summary.json holds as a table.

    Args:
        summary: the content of summary.json.
        console: where to; None is standard output.
    """
    console = console or Console()
    table = Table(
        title=escape(summary["title"]),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("model", min_width=12, overflow="fold")
    rows = table_rows(summary)
    words = part_columns(rows)
    columns = {
        "end": "overall" if words else "end task",
        "in_context": "policy back\nin context",
        "override": "override",
        "gold_path": "gold path",
    }
    shown = {key: name for key, name in columns.items() if any(row[key] for row in rows)}
    for name in shown.values():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("prompt\ntokens", justify="right", no_wrap=True)
    for row in rows:
        name = f"[bold]{escape(row['name'])}[/]" if _leads(row, summary) else escape(row["name"])
        tokens = "–" if row["tokens"] is None else f"{row['tokens']:.0f}"
        table.add_row(name, *(_cell(row[key], key == "end") for key in shown), tokens)
    if rows:
        console.print(table)
    if any(row["end"] for row in rows):
        spread = " ± deviation over seeds" if len(summary["seeds"]) > 1 else ""
        measure = "overall score in percent" if words else "percent right"
        console.print(f"{measure}{spread}; in brackets the 95% Wilson interval", style="dim")
    for row in rows if words else ():
        found = (row["end"] or {}).get("parts", {})
        shares = [
            f"{words[name]} {percent(found[name]['mean'])}" for name in words if name in found
        ]
        if shares:
            console.print(f"{row['name']}: {', '.join(shares)}", markup=False, highlight=False)
    if saved := summary["efficiency"]:
        tokens, time = saved["prompt_tokens"], saved["prefill_seconds"]
        console.print(
            f"prompt tokens {tokens['with_policy']:.0f} -> {tokens['without_policy']:.0f}"
            f" ({percent(-tokens['saved'])}), prefill {duration(time['with_policy'])} ->"
            f" {duration(time['without_policy'])} ({percent(-time['saved'])})"
        )
    for one in summary["verdicts"]:
        # of other arms the report has the task; what they forgot belongs beside the leading one's
        if one["arm"] == summary["headline_arm"] or one["what"].startswith("forgetting"):
            console.print(f"{one['arm']}, {one['line']}", markup=False, highlight=False)
    if not any(model["forgetting"] for model in summary["models"]):
        skills = summary["models"][0]["settings"].get("skills") or {}
        for task, found in skills.get("by_task", {}).items():
            low, high = points(found["low"]), points(found["high"])
            console.print(
                f"{task}: {percent(found['mean'])} of {found['rows']} rows [{low}, {high}]",
                markup=False,
                highlight=False,
            )
    console.print(summary["headline"], highlight=False)


def _leads(row: Mapping[str, Any], summary: Mapping[str, Any]) -> bool:
    return bool(row["name"] == summary["headline_arm"])


def _cell(cell: Mapping[str, Any] | None, interval: bool) -> str:
    if not cell or cell["mean"] is None:
        return "–"
    text = points(cell["mean"]) + (f" ± {points(cell['sd'])}" if cell["sd"] is not None else "")
    if interval:
        text += f"\n\\[{points(cell['low'])}, {points(cell['high'])}]"
    return text + (f"\n{cell['unscored']} unscored" if cell["unscored"] else "")
