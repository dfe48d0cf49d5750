"""All that a GTAPolicy data set is made of, read and checked together: rules, tools and tasks."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from datasets_builders.gta.faults import Fault
from datasets_builders.gta.fitting import misfits
from datasets_builders.gta.grader import grade
from datasets_builders.gta.oracle import apply_rules
from datasets_builders.gta.rules import Profile, VersionRules, read_rule_file, version_rules
from datasets_builders.gta.source import Source, Task, read_gta
from datasets_builders.gta.special import SpecialRule, special_rules
from datasets_builders.gta.tools import read_tools
from datasets_builders.gta.wording import override_versions
from trimpi.errors import UserError
from trimpi.rules.extents import first
from trimpi.sample import Completion, Sample


@dataclass(frozen=True)
class Material:
    """Rules of versions, as they are and under override, the other rules, tools and tasks."""

    versions: VersionRules
    override: VersionRules
    special: tuple[SpecialRule, ...]
    source: Source


def read_material(
    rules: Path, folder: Path, skip_missing: bool = False, skip_faulty: bool = False
) -> Material:
    """Read a rule file and a GTA folder.

    Args:
        rules: the rule file.
        folder: the GTA folder.
        skip_missing: leave tasks out whose pictures are not there.
        skip_faulty: leave tasks out that have any fault of their own: one that `read_gta` finds,
            a rule that cannot be kept, a call that does not score 1 against itself.

    Raises:
        UserError: the faults of all parts at once.
    """
    problems: list[str] = []
    versions: VersionRules | None = None
    override: VersionRules | None = None
    special: tuple[SpecialRule, ...] | None = None
    try:
        content = read_rule_file(rules)
    except UserError as error:
        problems += str(error).splitlines()
        content = None
    if content is not None:
        try:
            versions = version_rules(content, str(rules))
        except UserError as error:
            problems += str(error).splitlines()
        try:
            override = versions and override_versions(versions)
        except UserError as error:
            problems.append(f"{rules}: {error}")
        try:
            tools = read_tools(folder / "toolmeta.json")
        except UserError:  # told below, with what else is wrong with the folder
            tools = None
        try:
            special = None if tools is None else special_rules(content, str(rules), tools)
        except UserError as error:
            problems += str(error).splitlines()
        if versions is not None and special is not None and tools is not None:
            problems += [f"{rules}: {line}" for line in misfits(versions, special, tools)]

    def check(task: Task) -> Iterable[Fault]:
        if problems or versions is None or special is None:
            return ()
        return ruled_faults(task, versions, special)

    try:
        source = read_gta(folder, skip_missing, skip_faulty, check)
    except UserError as error:
        raise UserError.join([*problems, *str(error).splitlines()]) from None
    if problems or versions is None or override is None or special is None:
        raise UserError.join(problems)
    return Material(versions, override, special, source)


def ruled_faults(
    task: Task, versions: VersionRules, special: tuple[SpecialRule, ...]
) -> Iterator[Fault]:
    """What is wrong with a task under the rules, whatever the profile."""
    profile: Profile = {name: first(whole) for name, whole in versions.attributes.items()}
    try:
        steps = apply_rules(task, profile, versions, special)
    except UserError as error:
        yield Fault(str(error).removeprefix(f"task {task.id!r}: "))
        return
    for number, step in enumerate(steps, 1):
        answer = step.call.to_json()
        score = grade(
            Sample(task.id, (), task.query, None, answer),
            Completion(task.id, f"\\boxed{{{answer}}}"),
        )
        if score.value != 1.0:
            yield Fault(
                f"call {number} ({step.call.name}) scores {score.value} against itself "
                f"({score.note or 'no note'}); write its arguments in another way"
            )


def left_out_note(source: Source) -> str:
    """How many tasks are left out and why, in one line; "" where none is."""
    if not source.left_out:
        return ""
    left, total = len(source.left_out), len(source.tasks) + len(source.left_out)
    key, why = next(iter(source.left_out.items()))
    return (
        f"{left} of {total} tasks are left out, such as {key!r} ({why}); card.json lists them all "
        "under left_out"
    )
