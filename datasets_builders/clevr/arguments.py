"""Arguments of the ClevrPolicy builder: typed, checked all at once, before anything is drawn."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from datasets_builders.clevr.camera import CLEVR, TINY, Profile, scaled
from datasets_builders.clevr.tree import MAX_DEPTH
from datasets_builders.generators import Spec, spec_problem
from datasets_builders.hints import hint
from datasets_builders.parallel import processors
from datasets_builders.policy_text.settings import settings_problems
from trimpi.errors import UserError

SPLITS = ("train", "train_cot", "test", "override")
PROFILES = {profile.name: profile for profile in (CLEVR, TINY)}
MAX_POLICIES = 1000
MAX_OBJECTS = 10


@dataclass(frozen=True)
class Arguments:
    """What `build` takes beside the folder and the seed."""

    depth: int = 2
    """Layers of decisions of every policy, 1 to 8 (N of the paper)."""
    variant: str = "T"
    """"T": conditions in words; "M": image crops stand for some attribute values."""
    policies: int = 10
    """Number of policies."""
    train: int | None = 2000
    """Rows per policy with answers alone; null leaves the split out. So for the next three."""
    train_cot: int | None = 250
    """Rows per policy with a rationale."""
    test: int | None = 200
    """Rows per policy to test on."""
    override: int | None = 200
    """Rows per policy whose policy has a new tree under the same name."""
    profile: str = "clevr"
    """Look of drawn pictures: "clevr", or "tiny" for a few large objects in very small pictures."""
    width: int | None = None
    """Picture width in pixels; null: the profile's own, or as found in `source`."""
    height: int | None = None
    """Picture height in pixels."""
    objects: tuple[int, int] | None = None
    """Fewest and most objects of a drawn picture; null: the profile's own."""
    crop_share: float = 0.5
    """Share of the conditions that show a crop in variant M (at least one a policy)."""
    renderer: str = "analytic"
    """Draws the pictures: "analytic", or "mitsuba" (path-traced, slow; extra `render`)."""
    samples: int = 64
    """Light paths a pixel of the path-traced renderer."""
    source: str | None = None
    """A real CLEVR directory (images/, scenes/*.json) to take pictures from instead."""
    generate: Spec | None = None
    """Forward CoT: a generator, "module:name" of a function that makes one, or a mapping of that
    `name` and the function's arguments. Null: gold walks."""
    cot_attempts: int = 4
    """Forward CoT: samples drawn for a row before it is dropped."""
    cot_tokens: int = 1024
    """Forward CoT: most new tokens of a rationale."""
    policy_text: Mapping[str, Any] | None = None
    """Texts about the policies for VM-CPT, `{per_rule: 8, oversample: 3, generate: null}`; null
    leaves the split `policy_text` out."""
    workers: int | None = None
    """Processes that draw; null: one a processor. Does not change the result."""

    @property
    def rows(self) -> dict[str, int]:
        """Rows per policy of the splits that are built."""
        return {split: count for split in SPLITS if (count := getattr(self, split)) is not None}

    @property
    def look(self) -> Profile:
        """The profile at the picture size asked for."""
        base = PROFILES[self.profile]
        return scaled(base, self.width or base.width, self.height or base.height)

    @property
    def object_range(self) -> tuple[int, int]:
        """Fewest and most objects of a drawn picture."""
        return self.objects or (self.look.min_objects, self.look.max_objects)

    @property
    def processes(self) -> int:
        """Number of processes that draw."""
        return self.workers or processors()

    def content(self, generate: Any = None) -> dict[str, Any]:
        """The arguments that the bytes of the data set depend on, for its card.

        Args:
            generate: what stands for the generator.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        del values["workers"]
        values["generate"] = generate
        if self.policy_text is None:  # so that folders of before are known again
            del values["policy_text"]
        values["objects"] = None if self.source else list(self.object_range)
        if self.source:
            values["source"] = str(self.source)
        else:
            values["width"], values["height"] = self.look.width, self.look.height
        return values


def parse(args: Mapping[str, Any]) -> Arguments:
    """Check names, types and ranges of all arguments.

    Raises:
        UserError: every problem, one a line.
    """
    problems = []
    known = [field.name for field in fields(Arguments)]
    for key in args:
        if key not in known:
            cure = hint(key, known)
            problems.append(f"{key}: unknown argument of the clevr builder; {cure}")
    values = {key: value for key, value in args.items() if key in known}
    for key, value in values.items():
        problem = _CHECKS[key](value) if key in _CHECKS else ""
        if problem:
            found = "" if isinstance(value, Mapping) else f", found {value!r}"
            problems.append(f"{key}: {problem}{found}")
    problems += settings_problems(values.get("policy_text"))
    if problems:
        raise UserError.join(problems)
    if values.get("objects") is not None:
        values["objects"] = tuple(values["objects"])
    if values.get("source") is not None:
        values["source"] = str(values["source"])
    arguments = Arguments(**values)
    if not arguments.rows:
        raise UserError(f"{', '.join(SPLITS)}: no split is left; ask for rows in at least one")
    if (arguments.width is None) != (arguments.height is None):
        raise UserError("width, height: give both or neither")
    _ = arguments.look  # raises for picture sizes out of range
    return arguments


def _integer(low: int, high: int, optional: bool = False) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if (optional and value is None) or (whole and low <= value <= high):
            return ""
        return f"must be a whole number from {low} to {high}" + (" or null" if optional else "")

    return check


def _rows(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool) and value == 0:
        return "0 rows would leave the split empty; give at least 1, or null to leave it out"
    return _integer(1, 10_000_000, optional=True)(value)


def _choice(*options: str) -> Callable[[Any], str]:
    return lambda value: "" if value in options else f"must be one of {', '.join(options)}"


def _objects(value: Any) -> str:
    if value is None:
        return ""
    pair = isinstance(value, list | tuple) and len(value) == 2
    if (
        pair
        and not any(_integer(1, MAX_OBJECTS)(count) for count in value)
        and value[0] <= value[1]
    ):
        return ""
    return f"must be [fewest, most] within 1 to {MAX_OBJECTS}"


def _renderer(value: Any) -> str:
    if value == "mitsuba" and importlib.util.find_spec("mitsuba") is None:
        return "needs Mitsuba 3 (pip install 'trimpi[render]')"
    return _choice("analytic", "mitsuba")(value)


def _share(value: Any) -> str:
    fine = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 1
    return "" if fine else "must be above 0 and at most 1"


def _source(value: Any) -> str:
    if value is None or (isinstance(value, str | Path) and Path(value).is_dir()):
        return ""
    return "must be the folder of a CLEVR data set, and no folder is there"


_CHECKS: dict[str, Callable[[Any], str]] = {
    "depth": _integer(1, MAX_DEPTH),
    "variant": _choice("T", "M"),
    "policies": _integer(1, MAX_POLICIES),
    "train": _rows,
    "train_cot": _rows,
    "test": _rows,
    "override": _rows,
    "profile": _choice(*PROFILES),
    "width": _integer(1, 10_000, optional=True),
    "height": _integer(1, 10_000, optional=True),
    "objects": _objects,
    "renderer": _renderer,
    "samples": _integer(1, 100_000),
    "crop_share": _share,
    "source": _source,
    "generate": spec_problem,
    "cot_attempts": _integer(1, 100),
    "cot_tokens": _integer(1, 100_000),
    "workers": _integer(1, 256, optional=True),
}
