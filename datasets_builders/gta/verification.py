"""Answers derived again from what a data folder holds: `trimpi data check` of GTAPolicy."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets_builders.gta.grader import grade
from datasets_builders.gta.rules import VersionRules
from datasets_builders.gta.special import SpecialRule
from trimpi.policy import Policy
from trimpi.rules.rule_set import RuleSet
from trimpi.sample import Completion, Sample


def oracle_data(versions: VersionRules, special: Sequence[SpecialRule]) -> dict[str, Any]:
    """The rules as JSON, for a policy's metadata.

    `versions` holds the rules of each tool as `trimpi.rules.RuleSet.from_metadata` reads them,
    `special` those beyond versions: by id their kind and, where they have them, the other keys.
    """
    return {
        "versions": {tool: versions.rule_set(tool).to_metadata() for tool in versions.tools},
        "special": {
            rule.id: {
                key: value
                for key in ("kind", "tool", "first", "use", "when", "argument", "values")
                if (value := getattr(rule, key))
            }
            for rule in special
        },
    }


def verify(sample: Sample, policy: Policy) -> list[str]:
    """What of a row its policy's rules do not give; empty for a row that is right.

    The tool's version is derived again from the profile, and by the special rules the tool that
    takes another's place, the value of a ruled argument, and the picture to be described next. All
    other arguments come from the source and are looked at for their form alone.

    Raises:
        KeyError, TypeError, ValueError, UserError: the row or the policy has other facts or
            metadata than the builder writes.
    """
    answer = json.loads(sample.answer)
    called, tool = answer["name"], sample.facts["tool"]
    known, cited = policy.metadata["conditions"], sample.facts["rules"]
    problems = [f"rule {id!r} is none of the policy's" for id in cited if id not in known]
    if grade(sample, Completion(sample.id, f"\\boxed{{{sample.answer}}}")).value != 1.0:
        problems.append("the answer does not score 1 against itself")
    problems += _version_faults(tool, called, sample, policy)
    for id, rule in policy.metadata["special"].items():
        due = rule["kind"] in ("argument", "substitute") and tool == rule.get("use", rule["tool"])
        if due and id not in cited:
            problems.append(f"rule {id} decides the call and is not among the row's rules")
        if (due or id in cited) and (
            fault := _special_fault(rule, tool, answer["arguments"], sample)
        ):
            problems.append(f"rule {id}: {fault}")
    if policy.name not in sample.query:
        problems.append(f"query does not name policy {policy.name}")
    return problems


def _version_faults(tool: str, called: str, sample: Sample, policy: Policy) -> Iterator[str]:
    of_tool = policy.metadata["versions"].get(tool)
    cited = [id for id in sample.facts["rules"] if re.fullmatch(rf"{re.escape(tool)}\.\d+", id)]
    if of_tool is None:
        if called != tool:
            yield f"the answer calls {called}, the policy's {tool} has no versions"
        return
    deciding = RuleSet.from_metadata(of_tool).decide(sample.facts["profile"])
    if deciding is None or called != deciding.outcome:
        wanted = deciding and deciding.outcome
        yield f"the answer calls {called}, for its profile the rules ask for {wanted}"
    if deciding is not None and cited != [deciding.id]:
        yield f"the row names {', '.join(cited) or 'no rule'} for the version, not {deciding.id}"


def _special_fault(
    rule: Mapping[str, Any], tool: str, arguments: Mapping[str, Any], sample: Sample
) -> str:
    """What a call has against a rule that decides it, or ""."""
    kind = rule["kind"]
    if kind == "substitute" and tool != rule["use"]:
        return f"asks for {rule['use']}, the row is about {tool}"
    if kind == "needs" and tool != rule["first"]:
        return f"asks for {rule['first']}, the row is about {tool}"
    if kind in ("argument", "describe_first") and tool != rule["tool"]:
        return f"is about {rule['tool']}, the row about {tool}"
    if kind == "argument":
        name, question = rule["argument"], sample.facts["question"]
        if arguments.get(name) != (value := rule["values"][question]):
            found = arguments.get(name)
            return f"{name} must be {value} for a question that is {question}, found {found}"
    if kind == "describe_first":
        pictures, step = sample.facts["pictures"], sample.facts["step"]
        if step > len(pictures) or arguments.get("image") != pictures[step - 1]:
            return f"call {step} must describe picture {step} of {', '.join(pictures)}"
    return ""
