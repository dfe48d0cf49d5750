"""Whether rules and tools fit together: names that clash, arguments that a tool does not have."""

from collections.abc import Iterator, Mapping, Sequence

from datasets_builders.gta.rules import VersionRules
from datasets_builders.gta.special import SpecialRule
from datasets_builders.gta.tools import Tool, fits
from datasets_builders.gta.wording import rule_texts
from datasets_builders.hints import hint, shown


def misfits(
    versions: VersionRules, special: Sequence[SpecialRule], tools: Mapping[str, Tool]
) -> Iterator[str]:
    """What is wrong between the parts of a rule file and the tools, a line each with its key."""
    for tool, rules in versions.tools.items():
        if tool not in tools:
            yield f"versions.{tool}: no such tool in toolmeta.json; {hint(tool, tools)}"
        for name in dict.fromkeys(f"{tool}_{rule.version}" for rule in rules):
            if name in tools:
                yield f"versions.{tool}: toolmeta.json has a tool {name!r} too; rename the version"
    taken = {rule.id for rules in versions.tools.values() for rule in rules}
    for number, rule in enumerate(special, 1):
        key = f"special.{number}"
        if rule.id in taken:
            yield f"{key}: id {rule.id!r} is that of a rule of versions; rename it"
        wanted = {"describe_first": "image", "argument": rule.argument}.get(rule.kind)
        known = {entry.name: entry for entry in tools[rule.tool].inputs} if rule.tool else {}
        if wanted is not None and wanted not in known:
            cure = hint(wanted, known, f"it has {', '.join(known) or 'none'}")
            yield f"{key}: {rule.tool} has no argument {wanted!r}; {cure}"
            continue
        for name, value in rule.values.items():
            kind = known[rule.argument].type
            if not fits(value, kind):
                yield (
                    f"{key}: values.{name}: {rule.tool}.{rule.argument} must be of type {kind}, "
                    f"found {shown(value)}"
                )
    try:
        "".join([*versions.attributes, *rule_texts(versions, special).values()]).encode()
    except UnicodeEncodeError as error:
        yield f"holds {error.object[error.start]!r}, which is no character of UTF-8; correct it"
