"""How GTAPolicy reads: the policy's text, requests with profile and history, and rationales."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasets_builders.gta.oracle import RuledStep
from datasets_builders.gta.rules import Profile, VersionRule, VersionRules, in_words
from datasets_builders.gta.source import Task
from datasets_builders.gta.special import SpecialRule
from datasets_builders.gta.tools import Input, Tool
from trimpi.policy import Policy, TextPart

INTRODUCTION = (
    "Policy {name}. Requests are answered by calling tools, one call at a time. Many tools have"
    " versions; which one to call depends on the profile of the user. Call a tool by its name with"
    " the version, such as {example}."
)


def write_policy(
    name: str,
    tools: Mapping[str, Tool],
    versions: VersionRules,
    special: Sequence[SpecialRule],
) -> Policy:
    """The policy: descriptions of all tools, the rules of versions, and the other rules.

    `metadata["conditions"]` holds every rule's text by its id, for the recital probe, `versions`
    the rules of each tool as data.
    """
    texts = rule_texts(versions, special)
    first = next(iter(versions.tools.values()))[0]
    example = f"{first.tool}_{first.version}"
    blocks = [INTRODUCTION.format(name=name, example=example), "Tools"]
    blocks += [f"- {_describe(tool, versions)}" for tool in tools.values()]
    blocks += ["Rules for versions"]
    blocks += [f"Rule {r.id}: {texts[r.id]}" for rules in versions.tools.values() for r in rules]
    blocks += ["General rules", *(f"Rule {rule.id}: {rule.text}" for rule in special)]
    rules = {tool: versions.rule_set(tool).to_metadata() for tool in versions.tools}
    metadata = {"conditions": texts, "unit": "Rule", "versions": rules}
    return Policy(name, (TextPart("\n".join(blocks)),), metadata)


def rule_texts(versions: VersionRules, special: Sequence[SpecialRule]) -> dict[str, str]:
    """Every rule as the policy words it, by id."""
    texts = {
        rule.id: f"{_condition(rule)}, call {rule.tool}_{rule.version}."
        for rules in versions.tools.values()
        for rule in rules
    }
    return texts | {rule.id: rule.text for rule in special}


def request(name: str, task: Task, profile: Profile, history: Sequence[RuledStep]) -> str:
    """The query of one step: pictures by name, profile, request, the calls before, the question."""
    lines = [f"Pictures: {', '.join(task.images) or 'none'}"]
    lines += [f"User profile: {_profile(profile)}", f"Request: {task.query}"]
    if history:
        lines.append("Calls so far:")
        lines += [
            f"{number}. {step.call.to_json()} -> {step.result or '(done)'}"
            for number, step in enumerate(history, 1)
        ]
    lines.append(
        f"Which call comes next under policy {name}? Give it as one JSON object with 'name' and"
        " 'arguments'."
    )
    return "\n".join(lines)


def rationale(
    base: str, profile: Profile, step: RuledStep, versions: VersionRules, texts: Mapping[str, str]
) -> str:
    """The reasoning from the rules to a call, in words; offline stand-in for a model's.

    Args:
        base: name of the tool without its version.
        profile: of the user.
        step: the call and the ids of the rules that decided it.
        versions: says which ids are rules of versions.
        texts: of all rules, by id.
    """
    lines = [" ".join(step.thought.split()), f"The next call is to {base}."]
    tried = walk(base, profile, versions)
    own = {rule.id for rule in tried}
    lines += [f"Rule {id}: {texts[id]}" for id in step.rules if id not in own]
    lines += [check(rule, profile, texts[rule.id]) for rule in tried]
    if not tried:
        lines.append(f"{base} has no versions.")
    lines.append(f"So the call is {step.call.name}.")
    return "\n".join(line for line in lines if line)


def check(rule: VersionRule, profile: Profile, text: str) -> str:
    """A rule as the policy words it, and for each of its conditions whether a profile meets it."""
    verdicts = ", ".join(
        f"{name} {profile[name]}: {'yes' if extent.holds(profile[name]) else 'no'}"
        for name, extent in rule.conditions.items()
    )
    return f"Rule {rule.id}: {text} The profile has {verdicts or 'nothing to meet: yes'}."


def walk(base: str, profile: Profile, versions: VersionRules) -> list[VersionRule]:
    """The rules of a tool that a reader tries, in their order, up to the one that holds."""
    tried = []
    for rule in versions.tools.get(base, ()):
        tried.append(rule)
        if rule.holds(profile):
            break
    return tried


def override_versions(versions: VersionRules) -> VersionRules:
    """The same rules with each tool's versions moved on, so that every profile gets another one.

    Raises:
        ValueError: a tool's versions are all the same, so that none can move.
    """
    moved = {}
    for tool, rules in versions.tools.items():
        names = sorted({rule.version for rule in rules})
        if len(names) < 2:
            raise ValueError(f"{tool} has one version alone")
        following = {n: names[(i + 1) % len(names)] for i, n in enumerate(names)}
        moved[tool] = tuple(replace(rule, version=following[rule.version]) for rule in rules)
    return VersionRules(versions.attributes, moved)


def _condition(rule: VersionRule) -> str:
    if not rule.conditions:
        return "always"
    return "if " + " and ".join(in_words(name, e) for name, e in rule.conditions.items())


def _profile(profile: Profile) -> str:
    return ", ".join(f"{name} {value}" for name, value in profile.items())


def _describe(tool: Tool, versions: VersionRules) -> str:
    rules = versions.tools.get(tool.name, ())
    names = sorted({rule.version for rule in rules})
    called = f"{tool.name} (versions {', '.join(names)})" if names else tool.name
    arguments = "; ".join(_argument(entry) for entry in tool.inputs) or "none"
    description = tool.description.strip()
    end = "" if description.endswith((".", "`")) else "."
    return f"{called}: {description}{end} Arguments: {arguments}."


def _argument(entry: Input) -> str:
    optional = ""
    if entry.optional:
        default = "" if entry.default is None else f", default {json.dumps(entry.default)}"
        optional = f", optional{default}"
    about = f": {entry.description.rstrip('.')}" if entry.description else ""
    return f"{entry.name} ({entry.type}{optional}){about}"
