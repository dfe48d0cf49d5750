"""The exact judge: cited rules against the policy's own, by id and word. No model.

    score = 10 x (0.2 ids + 0.5 content + 0.3 coverage)

`ids`: share of the cited ids that the policy has. `content`: share of the cited ids whose content
is given and right. `coverage`: share of the rules that decide the row (`facts.rules`, or the
conditions of `facts.path`) that are cited with the right content. Where a row does not tell what
decides it, the first two count alone, 2 to 5. Reasoning that cites nothing scores 0; None where
the row says that no rule decides it (`facts.rules` is empty), since there is nothing to cite.
"""

from collections.abc import Mapping
from typing import Any

from trimpi.evaluate.referral.citations import Rules
from trimpi.evaluate.referral.judgement import TOP, Judgement, at_once, reasoning_of
from trimpi.policy import Policy
from trimpi.sample import Completion, Sample

WEIGHTS = {"ids": 0.2, "content": 0.5, "coverage": 0.3}
NOTHING_TO_CITE = "no rule decides the row, and none is cited"
UNCHECKABLE = "the policy has no rules by id (metadata.conditions)"


class ExactJudge:
    """Judges policies whose rules have ids; says None of others, with the reason."""

    def identity(self) -> Mapping[str, Any]:
        """Its name and weights."""
        return {"judge": "exact", "weights": WEIGHTS}

    def judge(self, sample: Sample, policy: Policy, completion: Completion) -> Judgement:
        """Parts `ids`, `content`, `coverage` (where known); `note` names the first faults."""
        if (plain := at_once(policy, completion)) is not None:
            return plain
        rules = Rules.of(policy)
        if rules is None:
            return Judgement(None, UNCHECKABLE)
        cited = rules.citations(reasoning_of(completion))
        deciding = deciding_rules(sample)
        if not cited and sample.facts.get("rules") == []:
            return Judgement(None, NOTHING_TO_CITE)
        if not cited:
            parts = {"ids": 0.0, "content": 0.0} | ({"coverage": 0.0} if deciding else {})
            return Judgement(0.0, "cites no rule", parts)
        right = {citation.id for citation in cited if citation.right}
        parts = {
            "ids": sum(citation.known for citation in cited) / len(cited),
            "content": len(right) / len(cited),
        }
        if deciding:
            parts["coverage"] = sum(id in right for id in deciding) / len(deciding)
        whole = sum(WEIGHTS[name] for name in parts)
        score = TOP * sum(WEIGHTS[name] * share for name, share in parts.items()) / whole
        faults = [f"{c.id} {c.fault}" for c in cited if c.fault]
        faults += [f"{id} decides and is not cited" for id in deciding if not _in(id, cited)]
        return Judgement(round(score, 6), "; ".join(faults)[:300], parts)


def deciding_rules(sample: Sample) -> list[str]:
    """Ids of the rules that decide a row, where its facts tell."""
    rules = sample.facts.get("rules")
    if not isinstance(rules, list):
        path = sample.facts.get("path")
        steps = path if isinstance(path, list) else []
        rules = [s["condition"] for s in steps if isinstance(s, Mapping) and "condition" in s]
    return list(dict.fromkeys(map(str, rules)))


def _in(id: str, cited: Any) -> bool:
    return any(citation.id == id for citation in cited)
