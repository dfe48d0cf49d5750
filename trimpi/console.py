"""What commands print: the findings of a dry run, versions."""

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimpi.findings import Findings
from trimpi.memory import size_text


def print_findings(console: Console, findings: Findings) -> None:
    """Sizes, batch arithmetic, tokens and memory of a dry run."""
    for key, splits in findings.rows.items():
        rows = ", ".join(f"{split} {count}" for split, count in splits.items())
        console.print(f"[bold]{key}[/]: {rows}")
    if findings.lengths:
        console.print(_lengths_table(findings))
    for plan in findings.stages:
        console.print(f"[bold]{plan.name}[/]: {plan.schedule.arithmetic}")
        if plan.training_tokens:
            generated = (
                f", {plan.generation_tokens} in generation" if plan.generation_tokens else ""
            )
            memory = dict(plan.memory)
            total = memory.pop("total")
            parts = ", ".join(f"{name} {size_text(value)}" for name, value in memory.items())
            console.print(
                f"  longest row {plan.training_tokens} tokens in training{generated}; about "
                f"{size_text(total)} per device ({parts})",
                highlight=False,
            )
    for line in findings.notes:
        console.print(f"[yellow]note[/]: {escape(line)}", highlight=False)
    for line in findings.unchecked:
        console.print(f"[yellow]not checked[/]: {escape(line)}", highlight=False)


def _lengths_table(findings: Findings) -> Table:
    title = "tokens of the longest row looked at, and the share of its prompt that is saved"
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, collapse_padding=True
    )
    table.add_column("split", no_wrap=True)
    names = ("policy", "query", "images", "rationale", "answer", "template")
    for name in (*names, "in all", "no policy", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for split, lengths in findings.lengths.items():
        parts = [str(getattr(lengths.full, name)) for name in names]
        totals = [str(lengths.full.total), str(lengths.free.total), f"{lengths.saved:.1%}"]
        table.add_row(split, *parts, *totals)
    return table


def print_versions(console: Console, versions: Mapping[str, str | None]) -> None:
    """One line per package."""
    table = Table(show_header=False, box=None)
    for name, version in versions.items():
        table.add_row(name, version or "[dim]not installed[/]")
    console.print(table)
