"""The page of `trimpi policy show --html`: the prompt with its pictures in place, and the rules."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from trimpi.pictures import open_picture
from trimpi.policy import Policy
from trimpi.policy_view.length import Length
from trimpi.policy_view.lint import many
from trimpi.policy_view.show import Segment, length_line
from trimpi.rules.conditions import all_in_words
from trimpi.rules.rule_set import Rule, RuleSet

WIDEST = 960
"""Pixels of the longer side of a picture on the page; larger ones are reduced."""


def render_page(
    title: str, policy: Policy, segments: list[Segment], length: Length, model: str
) -> str:
    """The whole page, self-contained: style and pictures are in it."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rules = RuleSet.from_metadata(policy.metadata)
    return environment.get_template("page.html.j2").render(
        title=title,
        task=policy.metadata.get("task", ""),
        model=model,
        segments=[_shown(segment) for segment in segments],
        length=length_line(length),
        rules=[_row(rule) for rule in rules.rules],
        order=rules.order,
    )


def _shown(segment: Segment) -> dict[str, Any]:
    if segment.kind != "picture":
        return {"kind": segment.kind.split()[0], "text": segment.text}
    image = open_picture(segment.path)
    (width, height), name = image.size, Path(segment.path).name
    return {
        "kind": "picture",
        "source": _embedded(image),
        "width": width,
        "caption": f"{name}, {width} x {height}, {many(segment.tokens, 'token')}",
    }


def _embedded(image: Image.Image) -> str:
    """A picture as a data address, PNG."""
    small = image.convert("RGB")
    small.thumbnail((WIDEST, WIDEST))
    target = io.BytesIO()
    small.save(target, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(target.getvalue()).decode()


def _row(rule: Rule) -> dict[str, str]:
    read = "otherwise" if rule.when == {} else all_in_words(rule.when or {})
    return {"id": rule.id, "text": rule.text, "read": read, "outcome": rule.outcome or ""}
