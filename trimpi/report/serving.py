"""Rows of the table of the three ways that a request is answered."""

from collections.abc import Mapping
from typing import Any

NAMES: Mapping[str, str] = {
    "with_policy": "in the prompt",
    "cached_prefix": "in the prompt, cached",
    "without_policy": "internalized",
}


def table(efficiency: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """A row for each batch size and way; `ratio` is its throughput over that of the whole prompt.

    Empty where requests were not timed, as in runs of older versions.
    """
    rows = []
    for size in ((efficiency or {}).get("serving") or {}).get("sizes", ()):
        whole = size["ways"]["with_policy"]
        for place, (way, name) in enumerate(NAMES.items()):
            found = size["ways"][way]
            rows.append(
                {
                    "batch_size": size["batch_size"],
                    "name": name,
                    "way": found,
                    "missing": size["missing"].get(way, ""),
                    "ratio": found["requests_per_second"] / whole["requests_per_second"]
                    if found and whole
                    else None,
                    "first": place == 0,
                    "last": place == len(NAMES) - 1,
                }
            )
    return rows


def memory(size: float) -> str:
    """Bytes in the unit that reads well."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def brief(seconds: float) -> str:
    """A time of a request in three digits."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"
