"""Labels against the responses that a policy's rules have."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings
from datasets_builders.document.rulings import agree
from datasets_builders.hints import hint
from trimpi.policy import Policy


def check_responses(
    examples: Sequence[Labelled], policies: Mapping[str, Policy], trust: str, found: Findings
) -> dict[str, Policy]:
    """Note labels that are no response of the policy, where others are.

    Returns:
        The policies; `metadata["cases"]`, all answers that rows may have, is dropped where labels
        are worded otherwise than the outcomes of the rules.
    """
    checked = {}
    for id, policy in policies.items():
        own = [example for example in examples if example.policy == id]
        cases = policy.metadata.get("cases")
        if cases is not None:
            odd = [e for e in own if not any(agree(e.answer, case) for case in cases)]
            if len(odd) < len(own):
                say = found.warn if trust == "labels" else found.add
                for example in odd:
                    if example.where in found.places:
                        continue
                    say(
                        example.where,
                        f"answer {example.answer!r} is no response of policy {policy.name}; "
                        f"{hint(example.answer, cases)}",
                    )
            if not {example.answer for example in own} <= set(cases):
                kept = {key: value for key, value in policy.metadata.items() if key != "cases"}
                policy = replace(policy, metadata=kept)
        checked[id] = policy
    return checked
