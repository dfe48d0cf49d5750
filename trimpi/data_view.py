"""`trimpi data show` and `check`: the builders' own tools, reached by name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimpi.errors import UserError
from trimpi.resolve import resolve_callable
from trimpi.sample import DataFolder

TOOLS = "datasets_builders"
"""The package of the tools, a name like that of a builder in a recipe, never imported here."""


def check_folder(folder: Path) -> list[str]:
    """All problems of a data folder, one line each.

    Raises:
        UserError: it is no data folder.
    """
    _ = DataFolder(folder).card
    problems = resolve_callable(f"{TOOLS}.check:check", "data check")(folder)
    return list(problems)


def folder_warnings(folder: Path) -> list[str]:
    """What is worth knowing of a data folder without faults, one line each."""
    return list(resolve_callable(f"{TOOLS}.check:warnings", "data check")(folder))


def show_folder(
    folder: Path, split: str | None, sheet: Path | None, model: str, console: Console
) -> None:
    """Print counts, balance, lengths and coverage of rules, and write the contact sheet.

    Raises:
        UserError: the folder or a row of it is faulty, or the model has no tokenizer.
    """
    data = DataFolder(folder)
    _ = data.card
    unit, count = _counter(model)
    view = resolve_callable(f"{TOOLS}.inspect:overview", "data show")(data, count)
    console.print(f"[bold]{folder}[/]: {view.builder}, digest {view.digest[:12]}")
    console.print(_counts(view, unit))
    console.print(_balance(view))
    if table := _coverage(view):
        console.print(table)
    file = sheet or folder.resolve().with_name(f"{folder.resolve().name}-sheet.png")
    draw = resolve_callable(f"{TOOLS}.inspect:contact_sheet", "data show")
    console.print(f"contact sheet: {draw(data, file, split)}")


def _counter(model: str) -> tuple[str, Callable[[str], int]]:
    """Name and function of the unit of lengths."""
    if model == "words":
        return "words", lambda text: len(text.split())
    from transformers import AutoTokenizer

    from trimpi.model_folder import locate

    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(model, "--model"), trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--model {model}: no tokenizer ({reason}); try --model words") from None
    return "tokens", lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def _counts(view: Any, unit: str) -> Table:
    parts = list(dict.fromkeys(part for found in view.lengths.values() for part in found))
    title = f"rows, and mean length in {unit} (longest)"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("split")
    for name in ("rows", "images", "rationales", *parts):
        table.add_column(name, justify="right")
    for split, counts in view.splits.items():
        lengths = view.lengths[split]
        cells = [
            f"{lengths[p].mean:.0f} ({lengths[p].longest})" if p in lengths else "" for p in parts
        ]
        table.add_row(split, *[str(counts[n]) for n in ("rows", "images", "rationales")], *cells)
    return table


def _balance(view: Any) -> Table:
    """Each policy's most frequent answer against the uniform share, by split."""
    table = Table(
        title="most frequent answer of each policy", title_justify="left", box=None, pad_edge=False
    )
    for name in ("split", "policies", "lowest share", "highest share", "times uniform"):
        table.add_column(name, justify="left" if name == "split" else "right")
    for split, policies in view.balance.items():
        shares = [found["majority_share"] for found in policies.values()]
        over = [found["ratio"] for found in policies.values()]
        if shares:
            table.add_row(
                split,
                str(len(shares)),
                f"{min(shares):.1%}",
                f"{max(shares):.1%}",
                f"{max(over):.2f}x",
            )
    return table


def _coverage(view: Any) -> Table | None:
    """Rules of each policy that rows exercise; None where no policy has rules and rows under it."""
    table = Table(title="rules that rows exercise", title_justify="left", box=None, pad_edge=False)
    table.add_column("policy")
    for name in ("rules", "training", "test"):
        table.add_column(name, justify="right")
    table.add_column("not exercised", overflow="fold")
    for policy, rules in view.coverage.items():
        sides = [side for side in ("training", "test") if any(side in n for n in rules.values())]
        if not sides:
            continue  # for overriding alone
        cells, missing = [], []
        for side in ("training", "test"):
            none = [rule for rule, rows in rules.items() if not rows.get(side)]
            cells.append(f"{len(rules) - len(none)} of {len(rules)}" if side in sides else "")
            if side in sides and none:
                more = f" and {len(none) - 8} more" if len(none) > 8 else ""
                missing.append(f"{side}: {', '.join(none[:8])}{more}")
        table.add_row(escape(policy), str(len(rules)), *cells, escape("; ".join(missing)))
    return table if table.row_count else None
