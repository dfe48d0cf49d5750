"""What the rules make of a task: from base calls, as GTA has them, to what the policy asks for.

The special rules are applied in their order, then each call gets the version of its tool that the
profile calls for. Every call keeps the ids of the rules that decided it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from datasets_builders.gta.calls import Call
from datasets_builders.gta.rules import Profile, VersionRules
from datasets_builders.gta.source import Step, Task
from datasets_builders.gta.special import SpecialRule
from trimpi.errors import UserError


@dataclass(frozen=True)
class RuledStep:
    """A call as the policy asks for it, its result, and the ids of the rules that made it so.

    `thought` is the source's reason for the call, where it gives one.
    """

    call: Call
    result: str
    rules: tuple[str, ...]
    thought: str = ""


def apply_rules(
    task: Task, profile: Profile, versions: VersionRules, special: Sequence[SpecialRule]
) -> tuple[RuledStep, ...]:
    """The calls of a task under all rules.

    Raises:
        UserError: the task breaks a rule that cannot be mended, such as a region that is described
            without its box.
    """
    steps: list[Marked] = [(step, ()) for step in task.steps]
    for rule in special:
        steps = _APPLY[rule.kind](task, steps, rule)
    found = []
    for step, ids in steps:
        deciding = versions.rule_for(step.call.name, profile)
        name = versions.versioned(step.call.name, profile)
        decided = (*ids, *([deciding.id] if deciding else []))
        call = replace(step.call, name=name)
        found.append(RuledStep(call, step.result, decided, step.thought))
    return tuple(found)


Marked = tuple[Step, tuple[str, ...]]

DESCRIBED = "The request comes with several pictures, so I describe {name} before anything else."
"""The thought of a call that a source does not have; without one its rationale would begin unlike
all others, which a model takes for a sign."""


def _describe_first(task: Task, steps: list[Marked], rule: SpecialRule) -> list[Marked]:
    if len(task.images) < 2:
        return steps
    described = {
        step.call.arguments.get("image"): step for step, _ in steps if step.call.name == rule.tool
    }
    front: list[Marked] = []
    for name in task.images:
        step = described.get(name)
        if step is None:
            result = task.descriptions.get(name, "")
            step = Step(Call(rule.tool, {"image": name}), result, DESCRIBED.format(name=name))
        front.append((step, (rule.id,)))
    taken = {id(step) for step, _ in front}
    return [*front, *(marked for marked in steps if id(marked[0]) not in taken)]


def _needs(task: Task, steps: list[Marked], rule: SpecialRule) -> list[Marked]:
    """The rule decides the call of `first`: where `tool` is due, it holds already."""
    asked: set[int] = set()
    for number, (step, _) in enumerate(steps):
        if step.call.name != rule.tool:
            continue
        image = step.call.arguments.get("image")
        boxed = [
            n
            for n, (other, _) in enumerate(steps[:number])
            if other.call.name == rule.first and other.call.arguments.get("image") == image
        ]
        if not boxed:
            raise UserError(
                f"task {task.id!r}: {rule.tool} on {image!r} without {rule.first} before it, "
                f"against rule {rule.id}; add the call or drop the task"
            )
        asked.add(_quoted(step, steps, boxed))
    return [
        (step, (*ids, rule.id) if number in asked else ids)
        for number, (step, ids) in enumerate(steps)
    ]


def _quoted(step: Step, steps: Sequence[Marked], earlier: Sequence[int]) -> int:
    """Of earlier steps the last that returned an argument of this one, else the last."""
    values = [value for value in step.call.arguments.values() if isinstance(value, str) and value]
    told = [n for n in earlier if any(value in steps[n][0].result for value in values)]
    return (told or earlier)[-1]


def _substitute(task: Task, steps: list[Marked], rule: SpecialRule) -> list[Marked]:
    """GTA has calls to `use` where the rule asks for them; others are marked."""

    def ruled(step: Step, ids: tuple[str, ...]) -> Marked:
        if step.call.name == rule.use:
            return step, (*ids, rule.id)
        if step.call.name == rule.tool and rule.when in step.marks:
            return replace(step, call=replace(step.call, name=rule.use)), (*ids, rule.id)
        return step, ids

    return [ruled(*marked) for marked in steps]


def _argument(task: Task, steps: list[Marked], rule: SpecialRule) -> list[Marked]:
    value = rule.values["closed" if task.closed else "open"]

    def ruled(step: Step, ids: tuple[str, ...]) -> Marked:
        if step.call.name != rule.tool:
            return step, ids
        arguments: Mapping[str, object] = {**step.call.arguments, rule.argument: value}
        return replace(step, call=replace(step.call, arguments=arguments)), (*ids, rule.id)

    return [ruled(*marked) for marked in steps]


def _exact_names(task: Task, steps: list[Marked], rule: SpecialRule) -> list[Marked]:
    # Calls in a source name pictures rightly; the rule is about every call that names one.
    return [
        (step, (*ids, rule.id) if "image" in step.call.arguments else ids) for step, ids in steps
    ]


_APPLY = {
    "describe_first": _describe_first,
    "needs": _needs,
    "substitute": _substitute,
    "argument": _argument,
    "exact_names": _exact_names,
}
