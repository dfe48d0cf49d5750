"""A data folder of general skills on fresh CLEVR pictures (tasks: `clevr.skills`).

One split, `test`: each row names its task in `facts["task"]` and the response format that it asks
for in `facts["target"]`; rows of in-context tasks carry a random policy of their own, which stands
in the prompt. Scored before and after internalization, it gives the forgetting number.
"""

import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from datasets_builders.clevr import skills
from datasets_builders.clevr.arguments import PROFILES
from datasets_builders.clevr.pictures import Order, Scene, Studio, draw_all
from datasets_builders.domain import Example, build_domain
from datasets_builders.parallel import processors, progress_bar
from trimpi.errors import UserError
from trimpi.grading import exact_answer
from trimpi.policy import Policy
from trimpi.sample import DataFolder, Sample

BUILDER = "datasets_builders.clevr.skills_builder:build"


@dataclass(frozen=True)
class Arguments:
    """What `build` takes beside the folder and the seed."""

    rows: int = 100
    """Rows of each task."""
    tasks: tuple[str, ...] = (*skills.PICTURE_TASKS, "policy_1", "policy_2", "policy_3", "recital")
    profile: str = "tiny"
    """Look of the pictures: "clevr" or "tiny"."""
    workers: int | None = None
    """Processes that draw; null: one a processor. Does not change the result."""


def plan(**args: Any) -> dict[str, Any]:
    """Check all arguments without building; returns what would be built.

    Raises:
        UserError: every wrong argument, one a line.
    """
    seed = args.pop("seed", 0)
    known = [field.name for field in fields(Arguments)]
    problems = [
        f"{key}: unknown argument; known: {', '.join(known)}" for key in args if key not in known
    ]
    rows, tasks = args.get("rows", 1), args.get("tasks", Arguments.tasks)
    if not isinstance(rows, int) or isinstance(rows, bool) or rows < 1:
        problems.append(f"rows: must be a whole number from 1 on, found {rows!r}")
    allowed = sorted({*Arguments.tasks, *(f"policy_{depth}" for depth in range(1, 9))})
    if not isinstance(tasks, list | tuple) or not tasks:
        problems.append(f"tasks: must be a list of task names, found {tasks!r}")
    else:
        names = ", ".join(allowed)
        problems += [
            f"tasks: unknown task {t!r}; known: {names}" for t in tasks if t not in allowed
        ]
    workers = args.get("workers")
    if workers is not None and (type(workers) is not int or not 1 <= workers <= 256):
        problems.append(f"workers: must be a whole number from 1 to 256, found {workers!r}")
    if args.get("profile", "tiny") not in list(PROFILES):
        problems.append(f"profile: must be one of {', '.join(PROFILES)}, found {args['profile']!r}")
    if problems:
        raise UserError.join(problems)
    return {"builder": BUILDER, "args": args, "seed": seed, "splits": {"test": rows * len(tasks)}}


def build(out: Path, *, seed: int, progress: bool = True, **args: Any) -> DataFolder:
    """Build the folder; equal arguments and seed give equal bytes.

    Raises:
        UserError: wrong arguments, or objects that do not fit.
    """
    plan(seed=seed, **args)
    arguments = Arguments(**args | {"tasks": tuple(args.get("tasks", Arguments.tasks))})
    content = {"rows": arguments.rows, "tasks": list(arguments.tasks), "profile": arguments.profile}
    return build_domain(
        Path(out),
        Skills(arguments, seed, progress),
        builder=BUILDER,
        args=content,
        seed=seed,
        code=__file__,
        about="General skills on CLEVR pictures, to be scored before and after internalization.",
    )


class Skills:
    """The domain: tasks that take turns, each on a picture of its own."""

    grader = staticmethod(exact_answer)

    def __init__(self, arguments: Arguments, seed: int, progress: bool) -> None:
        self.arguments, self.seed, self.progress = arguments, seed, progress
        self.drawn: list[tuple[str, Scene, skills.Task]] = []

    def policies(self, work: Path) -> Mapping[str, Policy]:
        """Draws all pictures; the random policies of tasks that have one, by the row's id."""
        arguments, profile = self.arguments, PROFILES[self.arguments.profile]
        studio = Studio(self.seed, profile, (profile.min_objects, profile.max_objects), work)
        total = arguments.rows * len(arguments.tasks)
        orders = [Order("skills", i, (), f"images/test/{i:06d}.png") for i in range(total)]
        with progress_bar("pictures") as bar:
            bar.disable = not self.progress
            job = bar.add_task("skills", total=total, rate="")
            for chunk in draw_all(studio, orders, arguments.workers or processors()):
                for scene in chunk:
                    index = len(self.drawn)
                    kind = arguments.tasks[index % len(arguments.tasks)]
                    task = skills.draw(random.Random(f"{self.seed}/skills/{index}"), kind, scene)
                    self.drawn.append((f"{kind}-{index:06d}", scene, task))
                bar.update(job, advance=len(chunk))
        return {name: task.policy for name, _, task in self.drawn if task.policy is not None}

    def examples(self, work: Path) -> Iterator[Example]:
        """A row for each task."""
        for index, (name, scene, task) in enumerate(self.drawn):
            kind = name.rpartition("-")[0]
            picture = work / "images" / "test" / f"{index:06d}.png"
            yield Example(
                id=name,
                images=(picture,) if task.needs_picture else (),
                query=task.query,
                policy=name if task.policy is not None else None,
                answer=task.answer,
                rationale=task.rationale,
                facts={
                    "task": kind,
                    "target": "cot" if task.rationale else "answer",
                    "scene": scene,
                },
                split="test",
            )

    def near_misses(self, sample: Sample) -> Iterable[str]:
        """An answer with a letter more."""
        return (sample.answer + "x",)
