"""Grading of GTAPolicy: half for the tool, half for its arguments (paper, metrics of GTAPolicy)."""

import json
import re
from functools import cached_property, lru_cache
from importlib import import_module
from typing import Any

from datasets_builders.gta.calls import Call, parse_call
from datasets_builders.gta.scoring import CallScore, Similarity, score_call
from trimpi.errors import UserError
from trimpi.graders.likeness import lexical_similarity
from trimpi.prompt import parse_response
from trimpi.sample import Completion, Sample, Score

UNASKED = "(unasked)"
"""Stands for the arguments that a tool does not have: models make up any number of names."""


class Grade:
    """Grader of tool calls that compares texts by words and letters."""

    identity = "datasets_builders.gta.grader:grade"
    about = "texts of arguments are compared by their words (F1) and letters (Indel)"

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """See `score`."""
        return score(sample, completion, lexical_similarity)


class GradeByBertscore:
    """Grader of tool calls that compares texts by BERTScore; the environment names the model."""

    @property
    def identity(self) -> str:
        """Names the model and its weights too: scores by others are other scores."""
        by = self.similarity
        return f"datasets_builders.gta.grader:bertscore, {by.about}, sha256 {by.weights[:16]}"

    @property
    def about(self) -> str:
        """For a report, in a few words."""
        return f"texts of arguments are compared by {self.similarity.about}"

    @cached_property
    def similarity(self) -> Any:
        """The `trimpi.bertscore.Bertscore` that the environment names when it is first needed."""
        return _from_environment()

    def check(self) -> None:
        """Whether there is such a model, without loading it.

        Raises:
            UserError: as `trimpi.bertscore.from_environment` does.
        """
        _from_environment()

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """See `score`."""
        return score(sample, completion, self.similarity)


def _from_environment() -> Any:
    # By name and when asked for: builders, which grade by words, load no torch.
    return import_module("trimpi.bertscore").from_environment()


grade = Grade()
bertscore = GradeByBertscore()


def score(sample: Sample, completion: Completion, similarity: Similarity) -> Score:
    """The overall score of the call in a completion.

    `parts` holds `tool`, `argument`, the score of each argument as `field/<name>`, and for each
    rule in `facts["rules"]` as `rule/<id>` whether the call follows it: a rule of versions by the
    versioned name, a rule about an argument (`facts["ruled_arguments"]`: `k`, the picture that is
    described or named) by that argument of the right tool, any other by the tool alone. A
    completion without a readable call scores 0: it is wrong, not ungradable.

    Raises:
        UserError: the sample's own answer is no call.
    """
    gold, said = _gold(sample.answer, sample.id), parse_call(completion.text)
    found = score_call(gold, said, sample.facts.get("defaults", {}), similarity)
    return Score(found.overall, _parts(sample, gold, said, found), _note(gold, said))


def diagnose(sample: Sample, completion: Completion) -> dict[str, Any]:
    """See `first_error`; texts are compared as `grade` does."""
    return first_error(sample, completion, lexical_similarity)


def diagnose_by_bertscore(sample: Sample, completion: Completion) -> dict[str, Any]:
    """See `first_error`; texts are compared as `bertscore` does.

    Raises:
        UserError: as `trimpi.bertscore.from_environment` does.
    """
    return first_error(sample, completion, bertscore.similarity)


def first_error(sample: Sample, completion: Completion, similarity: Similarity) -> dict[str, Any]:
    """The first thing that is wrong with a call, the rules cited for it, and the version called.

    Returns:
        `first_error`: "format" (no readable call), "tool" (another tool), "version" (the right
        tool, another version), "argument" (the right tool and version, an argument below 1),
        "rule" (the right call, but the reasoning cites another rule of versions of this tool) or
        "none";
        `cited` and `gold`: ids of the rules that the reasoning cites, once each, and of those that
        decide the call with those that are tried before them (`facts["walk"]`);
        `gold_path`: whether all rules that decide the call are cited, and none beyond `gold`;
        `confusion`: for a tool with versions, `group` (the tool), `gold` (the versioned name) and
        `said` (the name called; "other tool" or "no call"); None for one without.
    """
    gold, said = _gold(sample.answer, sample.id), parse_call(completion.text)
    tool, rules = str(sample.facts["tool"]), [str(rule) for rule in sample.facts["rules"]]
    deciding, tried = set(rules), [str(rule) for rule in sample.facts.get("walk", ())]
    known = [*(rule for rule in rules if rule not in tried), *tried]
    cited = _cited(completion.text, known)
    error = "none"
    if said is None:
        error = "format"
    elif not _is(said, tool):
        error = "tool"
    elif said.name != gold.name:
        error = "version"
    elif score(sample, completion, similarity).parts["argument"] < 1:
        error = "argument"
    elif of_tool := {rule for rule in cited if _of_versions(rule, tool)}:
        fit = of_tool <= set(known) and bool(of_tool & deciding)
        error = "none" if fit else "rule"
    confusion = None
    if gold.name != tool:
        called = "no call" if said is None else said.name[:40] if _is(said, tool) else "other tool"
        confusion = {"group": tool, "gold": gold.name, "said": called}
    return {
        "first_error": error,
        "cited": cited,
        "gold": known,
        "gold_path": deciding <= set(cited) <= set(known),
        "confusion": confusion,
    }


def _is(call: Call, tool: str) -> bool:
    """Whether a call is to any version of a tool."""
    return call.name == tool or call.name.startswith(f"{tool}_")


def _of_versions(rule: str, tool: str) -> bool:
    return re.fullmatch(rf"{re.escape(tool)}\.\d+", rule) is not None


def _cited(text: str, known: list[str]) -> list[str]:
    """Ids of the rules that the reasoning names, such as "Rule OCR.3" or "rules S1 and OCR.3"."""
    reasoning = parse_response(text).rationale
    if reasoning is None:
        reasoning = text.split("\\boxed")[0]
    names = "|".join([*map(re.escape, sorted(known, key=len, reverse=True)), _ID])
    one = rf"(?:{names})(?!\.?\d)"
    several = rf"\b(?i:rules?) ({one}(?:(?:, and |, | and | or ){one})*)"
    found = (id for match in re.finditer(several, reasoning) for id in re.findall(one, match[1]))
    return list(dict.fromkeys(found))


_ID = r"[A-Za-z]\w{0,40}?\.?\d{1,3}"


def _parts(sample: Sample, gold: Call, said: Call | None, found: CallScore) -> dict[str, float]:
    defaults = sample.facts.get("defaults", {})
    parts = {"tool": found.tool, "argument": found.argument}
    for name, value in found.fields.items():
        if name:  # without one the call was to have no arguments
            asked = name in gold.arguments or name in defaults
            parts[f"field/{name if asked else UNASKED}"] = value
    tool = str(sample.facts.get("tool", ""))
    followed = said is not None and _is(said, tool)
    for rule in map(str, sample.facts.get("rules", ())):
        if _of_versions(rule, tool):
            parts[f"rule/{rule}"] = found.tool
        elif argument := sample.facts.get("ruled_arguments", {}).get(rule):
            parts[f"rule/{rule}"] = float(followed and found.fields.get(argument) == 1)
        else:
            parts[f"rule/{rule}"] = float(followed)
    return parts


def _note(gold: Call, said: Call | None) -> str:
    if said is None:
        return "no call"
    if said.name != gold.name:
        return f"called {said.name!r}"
    differing = [name for name in gold.arguments if name not in said.arguments]
    return f"left out {', '.join(differing)}" if differing else ""


@lru_cache(maxsize=4096)
def _gold(answer: str, sample_id: str) -> Call:
    try:
        content = json.loads(answer)
        if not isinstance(content["name"], str):
            raise TypeError
        return Call(content["name"], dict(content["arguments"]))
    except (ValueError, TypeError, KeyError):
        raise UserError(
            f"row {sample_id!r}: answer is no call; write it as "
            '{"name": "...", "arguments": {...}}'
        ) from None
