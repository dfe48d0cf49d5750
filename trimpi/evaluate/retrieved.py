"""The setting `retrieved`: the sections of a policy that a lexical retriever finds for a query."""

from collections.abc import Mapping, Sequence
from typing import Any

from trimpi.policy import Policy
from trimpi.prompt import Target, build_messages
from trimpi.recipe import RetrievalConfig
from trimpi.retrieval import Retrieved, Retriever
from trimpi.sample import DataFolder, Sample


def retrieve(
    data: DataFolder, rows: Sequence[Sample], config: RetrievalConfig
) -> list[Retrieved | None]:
    """What is shown of each row's policy; None for rows without one."""
    retrievers: dict[str, Retriever] = {}
    found: list[Retrieved | None] = []
    for row in rows:
        policy = data.policy_of(row)
        if policy is None or row.policy is None:
            found.append(None)
            continue
        if row.policy not in retrievers:
            retrievers[row.policy] = Retriever(policy, config.sections, config.keep_head)
        found.append(retrievers[row.policy](row.query))
    return found


def record(data: DataFolder, rows: Sequence[Sample], config: RetrievalConfig) -> dict[str, Any]:
    """What retrieval shows: its settings, and over the rows with a policy the mean sections
    `shown`, the mean `of` how many, and the share `whole` of rows that are shown all of them."""
    found = [shown for shown in retrieve(data, rows, config) if shown is not None]
    count = max(len(found), 1)
    return {
        **config.model_dump(mode="json"),
        "shown": round(sum(shown.sections for shown in found) / count, 3),
        "of": round(sum(shown.of for shown in found) / count, 3),
        "whole": round(sum(shown.sections == shown.of for shown in found) / count, 4),
    }


def prompt_tokens(
    processor: Any,
    data: DataFolder,
    asked: Sequence[tuple[Sample, Policy | None]],
    target: Target,
) -> dict[str, float]:
    """Mean prompt tokens of requests as `retrieved`, `with_policy` and `without_policy`.

    Args:
        processor: of the model.
        data: the data folder.
        asked: rows with what is shown of their policies.
        target: the response format asked for.
    """
    from trimpi.batch import encode_text

    ways: Mapping[str, list[Policy | None]] = {
        "retrieved": [shown for _, shown in asked],
        "with_policy": [data.policy_of(sample) for sample, _ in asked],
        "without_policy": [None] * len(asked),
    }
    return {
        way: round(
            sum(
                len(encode_text(processor, build_messages(sample, policy, target)).input_ids)
                for (sample, _), policy in zip(asked, policies, strict=True)
            )
            / len(asked),
            1,
        )
        for way, policies in ways.items()
    }
