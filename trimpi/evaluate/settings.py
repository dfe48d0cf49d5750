"""Evaluation settings: which requests are put to the model, and which policy is in their prompt.

| setting | rows | policy in the prompt | graded by |
|---|---|---|---|
| `no_policy` | test split | none: the headline (paper, setting 1) | the recipe's grader |
| `in_context` | test split | the row's own (setting 2) | the recipe's grader |
| `retrieved` | test split | of the row's own the sections that share words with the query | same |
| `override` | override split | the row's own: old name, new content (setting 3) | same |
| `recital` | one per condition of each policy | none | `recital.grade` |
| `recital_in_context` | the same | the policy: what copying would reach | `recital.grade` |
| `skills` | all splits of the skills folder | the row's own, if it has one | exact answer |

Efficiency (setting 6) generates nothing; it has a module of its own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trimpi.errors import UserError
from trimpi.evaluate import recital
from trimpi.evaluate.retrieved import retrieve
from trimpi.grading import Grader, exact_answer
from trimpi.policy import Policy
from trimpi.prompt import Message, Target, build_messages
from trimpi.recipe import RetrievalConfig
from trimpi.sample import DataFolder, Sample

OWN_GRADERS: Mapping[str, Grader] = {
    "recital": recital.grade,
    "recital_in_context": recital.grade,
    "skills": exact_answer,
}
"""Settings that are not graded by the recipe's grader."""

REASONED = ("no_policy", "in_context", "retrieved", "override")
"""Settings whose chain of thought can be diagnosed."""


@dataclass(frozen=True)
class Request:
    """One prompt to be answered: a sample, the policy shown with it, and the format asked for."""

    sample: Sample
    shown: Policy | None
    target: Target

    @property
    def messages(self) -> list[Message]:
        """The prompt."""
        return build_messages(self.sample, self.shown, self.target)


def expand(settings: Sequence[str]) -> list[str]:
    """Setting names as run: the recital probe brings its in-context reference with it."""
    names: list[str] = []
    for name in settings:
        names += [name, "recital_in_context"] if name == "recital" else [name]
    return list(dict.fromkeys(names))


def build_requests(
    setting: str,
    data: DataFolder,
    skills: DataFolder | None,
    *,
    target: Target,
    split: str = "test",
    override_split: str = "override",
    limit: int | None = None,
    retrieval: RetrievalConfig | None = None,
) -> list[Request]:
    """All requests of a setting, in a fixed order; `limit` keeps the first ones.

    `retrieval` says what the setting `retrieved` shows.

    Raises:
        UserError: the split is absent, the skills folder is missing, or a policy has no
            conditions to recite.
    """
    if setting == "no_policy":
        requests = [Request(sample, None, target) for sample in data.read(split)]
    elif setting in ("in_context", "override"):
        rows = data.read(split if setting == "in_context" else override_split)
        requests = [Request(sample, data.policy_of(sample), target) for sample in rows]
    elif setting == "retrieved":
        rows = data.read(split)[:limit]
        found = retrieve(data, rows, retrieval or RetrievalConfig())
        requests = [
            Request(row, None if shown is None else shown.policy, target)
            for row, shown in zip(rows, found, strict=True)
        ]
    elif setting in ("recital", "recital_in_context"):
        show = setting == "recital_in_context"
        requests = [
            Request(sample, data.policy_of(sample) if show else None, "answer")
            for sample in recital.samples(data, split)
        ]
    elif setting == "skills":
        if skills is None:
            raise UserError("evaluation.settings: 'skills' needs a skills folder; add the key")
        requests = _skills(skills)
    else:
        raise UserError(f"evaluation.settings: unknown setting {setting!r}; correct it")
    return requests[:limit]


def _skills(folder: DataFolder) -> list[Request]:
    requests = []
    several = len(folder.splits) > 1
    for split in folder.splits:
        for sample in folder.read(split):
            if not isinstance(sample.facts.get("task"), str):
                where = f"{folder.root / split}.jsonl"
                raise UserError(f"{where}: row {sample.id!r} has no facts.task; name its task")
            reasoned = sample.facts.get("target", "cot" if sample.rationale else "answer")
            if several:  # ids are unique within a split only
                sample = replace(sample, id=f"{split}/{sample.id}")
            requests.append(
                Request(sample, folder.policy_of(sample), "cot" if reasoned == "cot" else "answer")
            )
    return requests
