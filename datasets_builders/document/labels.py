"""Labels of all rows: put to the grader, and compared with those of the same input."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from datasets_builders.document.examples import Labelled
from datasets_builders.document.findings import Findings, some
from datasets_builders.document.pictures import Look, Picture, look
from datasets_builders.parallel import processors
from trimpi.errors import UserError
from trimpi.graders.labels import FUNCTION_ROWS
from trimpi.grading import Grader, checked_score, grader_name
from trimpi.policy import Policy
from trimpi.sample import Completion, Sample, Score

_COMPARED = 12
"""Labels that are put to the grader against each other."""


def check_pictures(examples: Sequence[Labelled], found: Findings) -> list[tuple[str, ...]]:
    """Decode every picture once; returns the digests of each example's pictures."""
    files: dict[object, Picture] = {}
    for example in examples:
        for picture in example.pictures:
            files.setdefault(picture.file or id(picture), picture)
    with ThreadPoolExecutor(processors()) as pool:
        looks = pool.map(look, files.values())
        seen: dict[object, Look] = dict(zip(files, looks, strict=True))
    digests = []
    for example in examples:
        own = [seen[picture.file or id(picture)] for picture in example.pictures]
        for one in own:
            if one.fault:
                found.add(example.where, f"images: {one.fault}")
        digests.append(tuple(one.digest for one in own))
    return digests


def as_sample(example: Labelled) -> Sample:
    """The example as a grader sees it; pictures that are no files are left out."""
    images = tuple(str(p.file.resolve()) for p in example.pictures if p.file is not None)
    facts = dict(example.facts)
    return Sample(
        example.id, images, example.query, example.policy, example.answer, example.rationale, facts
    )


def check_grades(examples: Sequence[Labelled], grader: Grader, found: Findings) -> None:
    """Every label must score 1 with the grader, and the grader must tell labels apart.

    Of a reward function, which may ask a model, the first rows alone are asked.
    """
    if hasattr(grader, "batch"):
        examples = examples[:FUNCTION_ROWS]
    by_label: dict[str, Labelled] = {}
    right = True
    for example in examples:
        sample = as_sample(example)
        try:
            score = graded(grader, sample, sample.answer, example.where)
        except UserError as error:
            found.add_error(error, example.where)
            right = False
            continue
        if score.value != 1:
            right = False
            note = f" ({score.note})" if score.note else ""
            found.add(
                example.where,
                f"answer {example.answer!r} scores {score.value} with grader "
                f"{grader_name(grader)}{note}, not 1; correct the answer, or the grader",
            )
        by_label.setdefault(example.answer, example)
    labels = list(by_label)[:_COMPARED]
    if right and len(labels) > 1:
        _tell_apart(labels, by_label, grader, found)


def graded(grader: Grader, sample: Sample, answer: str, where: str) -> Score:
    """The score of an answer alone.

    Raises:
        UserError: the grader raised, or gave no score in [0, 1].
    """
    return checked_score(grader, sample, Completion(sample.id, f"\\boxed{{{answer}}}"), where)


def _tell_apart(
    labels: Sequence[str], by_label: Mapping[str, Labelled], grader: Grader, found: Findings
) -> None:
    alike = []
    pairs = 0
    for gold in labels:
        sample = as_sample(by_label[gold])
        for other in labels:
            if other != gold:
                pairs += 1
                score = graded(grader, sample, other, by_label[gold].where)
                if score.value == 1:
                    alike.append(f"{other!r} for {gold!r}")
    if alike and len(alike) == pairs:
        found.add("grader", f"gives 1 to any label ({some(alike, 2)}); make it stricter")
    elif alike:
        found.warn("grader", f"gives 1 to other labels too: {some(alike)}; is that meant?")


def check_contradictions(
    examples: Sequence[Labelled],
    digests: Sequence[tuple[str, ...]],
    policies: Mapping[str, Policy],
    found: Findings,
) -> None:
    """Rows of one input with different labels, and inputs that do not tell their policy."""
    same: dict[tuple[str, ...], dict[str, list[Labelled]]] = {}
    for example, digest in zip(examples, digests, strict=True):
        key = (example.query, *digest)
        same.setdefault(key, {}).setdefault(example.policy, []).append(example)
    across: list[str] = []
    for by_policy in same.values():
        for rows in by_policy.values():
            _warn_of_differing(rows, found)
        answers = {rows[0].answer for rows in by_policy.values()}
        if len(by_policy) > 1 and len(answers) > 1:
            across += [rows[0].where for rows in by_policy.values()]
    if across:
        found.warn(
            "query",
            f"{len(across)} rows have the request and pictures of a row of another policy and "
            f"another label ({some(across, 3)}); name the policy in the request, or a model "
            "without policies in its prompt cannot know which is meant",
        )


def _warn_of_differing(rows: Sequence[Labelled], found: Findings) -> None:
    labels: dict[str, list[str]] = {}
    for row in rows:
        labels.setdefault(" ".join(row.answer.split()).casefold(), []).append(row.where)
    if len(labels) > 1:
        told = "; ".join(f"{label!r} in {some(where, 3)}" for label, where in labels.items())
        found.warn(rows[0].where, f"contradictory labels for the same request and pictures: {told}")
