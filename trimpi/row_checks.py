"""All rows that a recipe will use, looked at before anything is trained."""

from collections.abc import Iterator, Sequence

from PIL import Image

from trimpi.errors import UserError
from trimpi.graders import check_labels
from trimpi.grading import Grader
from trimpi.picture_file import PICTURE_ERRORS
from trimpi.prompt import form_fault, text_fault
from trimpi.recipe import (
    CptConfig,
    DistillConfig,
    Recipe,
    RlConfig,
    RolloutConfig,
    SftConfig,
    TrainingConfig,
)
from trimpi.replay import check_general, refuse_measured
from trimpi.resolve import resolve_callable
from trimpi.sample import DataFolder, Sample

SPLIT_OF = {
    "split": {"no_policy", "in_context", "retrieved", "efficiency"},
    "override_split": {"override"},
}
"""Settings of an evaluation by the key that names their split."""


def check_rows(
    recipe: Recipe, data: DataFolder, pictures: bool = False, grader: Grader | None = None
) -> None:
    """Read all rows that stages and evaluation will use: fields, policies, answers.

    Args:
        recipe: its stages and evaluation say which rows are read.
        data: the data folder.
        pictures: also open every picture.
        grader: what must know every answer, and score it 1; None leaves that out.

    Raises:
        UserError: all faults (of a split the first 20), each with its file and row.
    """
    evaluation = recipe.evaluation
    users: list[tuple[str, str, int | None, TrainingConfig | None]] = [
        (name, stage.split, stage.limit, stage) for name, stage in recipe.trained.items()
    ]
    users += [
        (f"{name}.validation", stage.validation.split, None, None)
        for name, stage in recipe.trained.items()
        if isinstance(stage, RlConfig) and stage.validation is not None
    ]
    texts = {s.texts for s in recipe.stages.values() if isinstance(s, CptConfig) and s.texts}
    users += [("", split, None, None) for split in sorted(texts)]
    users += [
        ("evaluation", getattr(evaluation, key), evaluation.limit, None)
        for key, settings in SPLIT_OF.items()
        if settings & set(evaluation.settings)
    ]
    problems: list[str] = []
    opened: dict[str, str] = {}
    used: dict[str, str] = {}
    graded: dict[str, int] = {}
    for name, split, limit, stage in users:
        file = data.root / f"{split}.jsonl"
        if not file.is_file() or not file.stat().st_size:
            continue  # told by the key that names the split
        try:
            samples = data.read(split)[:limit]
        except UserError as error:
            problems += str(error).splitlines()
            continue
        faults = []
        for number, sample in enumerate(samples, 1):
            if name:
                row = [*_unfit(sample, name, stage), *_answer_faults(data, sample)]
                row += [fault] if (fault := form_fault(sample)) else []
            else:  # a text about a policy
                row = [fault] if (fault := text_fault(sample)) else []
            if pictures:
                row += _picture_faults(sample.images, opened)
            faults += [f"{file}:{number}: {fault}" for fault in row]
            if sample.policy is not None:
                used[sample.policy] = f"{data.root}/policies/{sample.policy}.json"
        if name and grader is not None and graded.get(split, 0) < len(samples):
            graded[split] = len(samples)
            faults += check_labels(grader, samples, str(file))
        problems += faults[:20]
        if len(faults) > 20:
            problems.append(f"{file}: {len(faults) - 20} more problems")
    if pictures:
        for policy, place in used.items():
            faults = list(_picture_faults(data.policies[policy].images, opened))
            problems += [f"{place}: {fault}" for fault in faults]
    if not problems:  # else some rows cannot be read
        check = resolve_callable("trimpi.evaluate.referral.setting:referral_problems", "evaluation")
        problems = check(recipe, data)
    if problems:
        raise UserError.join(list(dict.fromkeys(problems)))


def check_replay(
    recipe: Recipe, replay: DataFolder, data: DataFolder | None, skills: DataFolder | None
) -> None:
    """Read all general examples: answers, and that the evaluation does not ask them.

    Args:
        recipe: its evaluation says which splits are asked.
        replay: folder of the general examples.
        data: the data folder, None where it is not built yet.
        skills: the skills folder, None where there is none or it is not built yet.

    Raises:
        UserError: rows that cannot be trained on, or that are measured on.
    """
    check_general(replay)
    measured: dict[str, tuple[DataFolder, list[Sample]]] = {}
    if skills is not None:
        rows = [sample for split in skills.splits for sample in skills.read(split)]
        measured["evaluation.skills"] = (skills, rows)
    for key in ("split", "override_split") if data is not None else ():
        split = getattr(recipe.evaluation, key)
        if data is not None and split in data.splits:
            measured[f"evaluation.{key}"] = (data, data.read(split))
    refuse_measured(replay, measured)


def _unfit(sample: Sample, name: str, stage: TrainingConfig | None) -> Iterator[str]:
    """What a stage needs and a row lacks."""
    reasons = isinstance(stage, CptConfig) or (
        isinstance(stage, SftConfig) and stage.target == "cot"
    )
    obeys = isinstance(stage, CptConfig | DistillConfig) or (
        isinstance(stage, RolloutConfig) and stage.shows_policy
    )
    if reasons and sample.rationale is None:
        yield (
            f"stage {name} needs a rationale in every row; choose a split that has them, or "
            "target: answer"
        )
    if obeys and sample.policy is None:
        yield f"stage {name} needs a policy in every row; add one"


def _answer_faults(data: DataFolder, sample: Sample) -> Iterator[str]:
    """An answer outside of the policy's cases."""
    policy = data.policy_of(sample)
    cases = policy.metadata.get("cases") if policy else None
    if cases is not None and sample.answer not in cases:
        yield (
            f"answer {sample.answer!r} is not among the {len(cases)} cases of policy "
            f"{sample.policy}; correct it"
        )


def _picture_faults(images: Sequence[str], opened: dict[str, str]) -> Iterator[str]:
    """Pictures that do not open; `opened` remembers."""
    for image in images:
        if image not in opened:
            opened[image] = _image_fault(image)
        if opened[image]:
            yield f"image {image} is not a whole picture ({opened[image]}); restore it"


def _image_fault(image: str) -> str:
    try:
        with Image.open(image) as picture:
            picture.load()  # verify() does not see a JPEG that is cut off
    except PICTURE_ERRORS as error:
        return " ".join(str(error).split())
    return ""
