"""Reports: a run folder in; report.html, report.md and summary.json out. Runs no model."""

from pathlib import Path

from trimpi.report.aggregate import summarize
from trimpi.report.load import load_run
from trimpi.report.page import render_html, render_markdown
from trimpi.report.terminal import print_table
from trimpi.runs import write_json, write_text

__all__ = ["print_table", "write_report"]


def write_report(run: Path) -> Path:
    """Write `run/report/{report.html, report.md, summary.json}` from what the run has so far.

    Args:
        run: a run folder (see docs/run_folder.md).

    Returns:
        The path of report.html.

    Raises:
        UserError: not a run folder, or a file in it is broken.
    """
    loaded = load_run(run)
    summary = summarize(loaded)
    folder = Path(run) / "report"
    write_json(folder / "summary.json", summary)
    write_text(folder / "report.md", render_markdown(loaded, summary))
    write_text(folder / "report.html", render_html(loaded, summary))
    return folder / "report.html"
