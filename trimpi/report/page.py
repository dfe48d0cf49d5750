"""report.html and report.md from the numbers: what is shown, in which order, in which words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from trimpi.report import (
    breakeven_words,
    cards,
    changed,
    forgetting,
    frontier,
    interference,
    referral,
    rules,
    serving,
    svg,
    tool_calls,
)
from trimpi.report.aggregate import percent
from trimpi.report.curves import Panel, Panels, panels
from trimpi.report.load import Run

TEMPLATES = Path(__file__).parent / "templates"

BASE = "base, policy in prompt"

ERRORS: Mapping[str, str] = {
    "none": "no error",
    "format": "format",
    "tool": "other tool",
    "version": "version",
    "argument": "argument",
    "rule": "rule cited",
    "recall": "recall",
    "perception": "perception",
    "branching": "branching",
    "final": "final answer",
}
"""Names of first errors, in the order of showing; others follow."""


def render_html(run: Run, summary: Mapping[str, Any]) -> str:
    """The whole page, self-contained."""
    charts = panels(run)
    count = (run.recipe.get("report") or {}).get("examples", 6)
    shown = cards.cards(run, summary["headline_arm"], count)
    template = _environment(True).get_template("report.html.j2")
    return template.render(
        **_common(summary),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        forest=_forest(summary),
        depth_charts=_depth_charts(summary),
        frontiers=frontier.charts(summary),
        learning=[_figure(panel) for panel in charts.learning],
        rollouts=_by_chain(charts),
        cards=shown,
        policy=cards.policy_parts(run, shown[0].policy) if shown else None,
        recipe_text=run.recipe_text,
    )


def render_markdown(run: Run, summary: Mapping[str, Any]) -> str:
    """The same numbers as tables, without charts and pictures."""
    template = _environment(False).get_template("report.md.j2")
    return template.render(**_common(summary), depths=_depths(summary))


def _environment(escape: bool) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["percent"] = percent
    environment.filters["points"] = points
    environment.filters["duration"] = duration
    environment.filters["literal"] = literal
    environment.filters["count"] = count
    environment.filters["tint"] = tool_calls.tint
    environment.filters["totals"] = changed.totals
    environment.filters["quantity"] = quantity
    environment.filters["memory"] = serving.memory
    environment.filters["brief"] = serving.brief
    environment.filters["referral_score"] = referral.shown
    return environment


def literal(text: str) -> str:
    """Text on one line of Markdown that makes neither a table cell nor HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def points(share: float | None, sign: bool = False) -> str:
    """A share in percent points without the sign %: "93.2", with `sign` "+1.0" or "−3.4"."""
    if share is None:
        return "–"
    text = f"{100 * share:+.1f}" if sign else f"{100 * share:.1f}"
    return ("±0.0" if text in ("+0.0", "-0.0") else text).replace("-", "−")


def count(number: float) -> str:
    """A number of rows, of which graded ones may count in part."""
    return f"{number:.0f}" if abs(number - round(number)) < 0.05 else f"{number:.1f}"


def quantity(number: float | None, name: str) -> str:
    """What training took: a time where `name` is seconds, else a count such as 48,000."""
    if number is None:
        return "–"
    return duration(number) if name == "seconds" else f"{number:,.0f}"


def duration(seconds: float | None) -> str:
    """A time in the unit that reads well."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _common(summary: Mapping[str, Any]) -> dict[str, Any]:
    models = {model["name"]: model for model in summary["models"]}
    rows = table_rows(summary)
    return {
        "summary": summary,
        "rows": rows,
        "part_columns": tool_calls.part_columns(rows),
        "calls": tool_calls.sections(summary, _as_used(summary)),
        "by_rule": rules.section(summary, _as_used(summary)),
        "changed": changed.section(summary, _as_used(summary)),
        "matrix": interference.section(summary, _as_used(summary)),
        "referral": referral.section(summary),
        "serving": serving.table(summary["efficiency"]),
        "even": breakeven_words.section(summary["break_even"]),
        "known_errors": ERRORS,
        "leading": models.get(summary["headline_arm"] or ""),
        "base": models["base"],
        "errors": _errors(summary),
        "error_names": _error_names(summary),
        "preflights": _preflights(summary),
        "forgotten": forgetting.section(summary),
        "verdicts": _verdicts(summary),
        "recitals": [m for m in summary["models"] if m["recital"]],
        "others": next(
            (p["other"] for m in summary["models"] for p in m["recital"].values() if "other" in p),
            None,
        ),
        "several": len(summary["seeds"]) > 1,
        "shortest": min((int(d) for by in _depths(summary).values() for d in by), default=None),
    }


def table_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows like those of the paper's Table 2: the base with and without the policy, then the arms.

    Where it was measured, the base with the sections of the policy that retrieval finds has a row.

    `end` is the accuracy as the model would be used: policy in the prompt in the first row, none
    in all others.
    """
    tokens = (summary["efficiency"] or {}).get("prompt_tokens") or {}
    chosen = summary["models"][0]["settings"].get("retrieved") or {}
    retrieval = chosen.get("retrieval") or {}
    tokens = {**retrieval.get("prompt_tokens", {}), **tokens}
    rows: list[dict[str, Any]] = []
    for model in summary["models"]:
        found = model["settings"]
        row = {
            "stages": model["stages"],
            "last_base": False,
            "override": found.get("override"),
            "gold_path": (model["diagnosis"].get("no_policy") or {}).get("gold_path"),
            "tokens": tokens.get("without_policy"),
        }
        if model["name"] != "base":
            back = found.get("in_context")
            row |= {"name": model["name"], "end": found.get("no_policy"), "in_context": back}
            rows.append(row)
            continue
        path = (model["diagnosis"].get("in_context") or {}).get("gold_path")
        shown = {"tokens": tokens.get("with_policy"), "gold_path": path, "in_context": None}
        end = found.get("in_context")
        if end:
            rows.append({**row, **shown, "name": BASE, "end": end})
        if chosen:
            path = (model["diagnosis"].get("retrieved") or {}).get("gold_path")
            name = f"base, {retrieval.get('shown', 0):.3g} of {retrieval.get('of', 0):.3g} sections"
            shown = {"tokens": tokens.get("retrieved"), "gold_path": path, "in_context": None}
            rows.append({**row, **shown, "name": name, "end": chosen, "override": None})
        if "no_policy" in found:
            bare = {"end": found["no_policy"], "in_context": None, "override": None}
            rows.append({**row, **bare, "name": "base, no policy", "last_base": True})
    return rows


def _forest(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows of the interval chart: positions in percent of the width, values as text."""
    rows: list[dict[str, Any]] = []
    reference = None
    for row in table_rows(summary):
        end = row["end"]
        if not end or end["mean"] is None:
            continue
        if row["name"] == BASE:
            reference = 100 * end["mean"]
        rows.append(
            {
                "reference": reference,
                "name": row["name"],
                "style": "ref" if row["name"].startswith("base") else "arm",
                "leading": row["name"] == summary["headline_arm"],
                "low": 100 * end["low"],
                "width": 100 * (end["high"] - end["low"]),
                "mean": 100 * end["mean"],
                "seeds": [100 * v for v in end["by_seed"].values()] if end["sd"] else [],
            }
        )
    return rows


def _errors(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Error analysis by model: the base with the policy in its prompt, arms without."""
    return [
        {"name": name, **diagnosis}
        for name, model, setting in _as_used(summary)
        if (diagnosis := model["diagnosis"].get(setting))
    ]


def _verdicts(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Verdict lines by arm, the leading one first."""
    found: dict[str, list[str]] = {}
    for one in summary["verdicts"]:
        found.setdefault(one["arm"], []).append(one["line"])
    return dict(sorted(found.items(), key=lambda item: item[0] != summary["headline_arm"]))


def _error_names(summary: Mapping[str, Any]) -> dict[str, str]:
    names = {name for row in _errors(summary) for name in row["first_errors"]}
    return {n: ERRORS.get(n, n) for n in [*ERRORS, *sorted(names - ERRORS.keys())] if n in names}


def _preflights(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the first rollouts of each RL stage gave, the mean over seeds."""
    rows = []
    for name, training in summary["training"].items():
        found = list(training["preflight"].values())
        if not found:
            continue
        row: dict[str, Any] = {"name": name.replace("+", " → "), "prompts": found[0]["prompts"]}
        for group, key in (
            ("free", "accuracy"),
            ("aware", "accuracy"),
            ("no_signal", "free"),
            ("no_signal", "pooled"),
        ):
            values = [f[group][key] for f in found if key in f.get(group, {})]
            row[f"{group}_{key}"] = sum(values) / len(values) if values else None
        row["warnings"] = list(dict.fromkeys(w for f in found for w in f.get("warnings", ())))
        rows.append(row)
    return rows


def _depths(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Accuracy by length of the gold path: the base with the policy, arms without."""
    return {
        name: cell["by_depth"]
        for name, model, setting in _as_used(summary)
        if "by_depth" in (cell := model["settings"].get(setting, {}))
    }


def _reached(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Share of rows whose first k decisions are right, by k."""
    return {
        name: cell["reached"]
        for name, model, setting in _as_used(summary)
        if (cell := model["diagnosis"].get(setting, {})).get("reached")
    }


def _as_used(summary: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any], str]]:
    """(name, model, setting): the base with the policy in its prompt, arms without."""
    return [
        (BASE, model, "in_context")
        if model["name"] == "base"
        else (model["name"], model, "no_policy")
        for model in summary["models"]
    ]


def _depth_charts(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    by_depth, found = _depths(summary), []
    if len({depth for cells in by_depth.values() for depth in cells}) > 1:
        found.append(
            {
                "title": "Accuracy",
                "quantity": "by number of decisions on the gold path",
                "chart": _by_number(summary, by_depth, "decisions on the gold path"),
            }
        )
    if reached := _reached(summary):
        found.append(
            {
                "title": "Right so far",
                "quantity": "share of rows with their first decisions right",
                "chart": _by_number(summary, reached, "decisions"),
            }
        )
    return found


def _by_number(
    summary: Mapping[str, Any], cells: Mapping[str, Mapping[str, Any]], x_name: str
) -> Markup:
    lines = []
    for name, by_number in cells.items():
        values = [(float(n), c["mean"]) for n, c in by_number.items() if c["mean"] is not None]
        style = "c1" if name == summary["headline_arm"] else "c2" if name == BASE else "c3"
        shown = "base in context" if name == BASE else name
        lines.append(svg.Line(shown, sorted(values), style, dots=True))
    lines.sort(key=lambda line: line.style, reverse=True)  # the leading arm on top
    text = "; ".join(
        f"{line.name}: " + ", ".join(f"{percent(y)} at {x:.0f}" for x, y in line.points)
        for line in lines
    )
    return Markup(svg.line_chart(lines, label=text, x_name=x_name, share=True, whole_x=True))


def _by_chain(charts: Panels) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for panel in charts.rollouts:
        found.setdefault(panel.title, []).append(_figure(panel))
    return found


def _figure(panel: Panel) -> dict[str, Any]:
    """Title, caption and chart of a panel: seeds faint, their mean strong."""
    lines = []
    for index, curve in enumerate(panel.curves):
        style = f"c{index + 1}"
        name = curve.name if len(panel.curves) > 1 else ""
        for points in curve.by_seed.values():
            if len(curve.by_seed) > 1 or curve.smooth != points:
                lines.append(svg.Line("", points, style, faint=True))
        lines.append(svg.Line(name, curve.smooth, style))
    lines.sort(key=lambda line: not line.faint)
    ends = "; ".join(
        f"{curve.name}: from {curve.ends[0]:.3g} to {curve.ends[1]:.3g}" for curve in panel.curves
    )
    chart = svg.line_chart(
        lines, label=f"{panel.title}, {panel.quantity}. {ends}", x_name="step", share=panel.share
    )
    return {"title": panel.title, "quantity": panel.quantity, "chart": Markup(chart)}
