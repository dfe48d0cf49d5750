"""The argument `policy_text` of builders: `{per_rule: 8, oversample: 3, generate: null}`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datasets_builders.generators import Resolved, resolve_generate, spec_problem
from datasets_builders.hints import hint
from datasets_builders.policy_text.texts import SPLIT, texts
from trimpi.errors import UserError
from trimpi.policy import Policy
from trimpi.sample import Sample

TRAINED = "train_cot"
KEYS = ("per_rule", "oversample", "generate")


@dataclass(frozen=True)
class PolicyText:
    """What `policy_text` asks for; `generator` writes further texts from those of the toolkit."""

    per_rule: int = 8
    oversample: int = 3
    generator: Resolved | None = None

    @property
    def small(self) -> dict[str, Any]:
        """The argument for a preview, which asks no model."""
        return {**self.args, "generate": None}

    @property
    def args(self) -> dict[str, Any]:
        """For a card: without what texts do not depend on."""
        generate = self.generator and self.generator.args
        return {"per_rule": self.per_rule, "oversample": self.oversample, "generate": generate}

    def write(self, id: str, policy: Policy, seed: int) -> list[Sample]:
        """The texts of a policy.

        Raises:
            UserError: the policy states nothing, or what the generator says.
        """
        return texts(
            policy,
            id=id,
            seed=seed,
            per_rule=self.per_rule,
            oversample=self.oversample,
            generate=None if self.generator is None else self.generator.generate,
        )


def settings_problems(value: Any) -> list[str]:
    """What is wrong with the argument, one line a fault, each beginning with its key."""
    if value is None:
        return []
    if not isinstance(value, Mapping):
        return [f"policy_text: must be {{per_rule: 8, oversample: 3}} or null, found {value!r}"]
    problems = [
        f"policy_text.{k}: unknown key; {hint(str(k), KEYS)}" for k in value if k not in KEYS
    ]
    for key in ("per_rule", "oversample"):
        number = value.get(key, 1)
        if type(number) is not int or number < 1:
            problems.append(
                f"policy_text.{key}: must be a whole number from 1 on, found {number!r}"
            )
    if problem := spec_problem(value.get("generate")):
        problems.append(f"policy_text.generate: {problem}")
    return problems


def read_policy_text(
    value: Mapping[str, Any] | None, *, progress: bool = True
) -> PolicyText | None:
    """The argument, checked, its generator made; None for null.

    Raises:
        UserError: all problems, one a line.
    """
    if problems := settings_problems(value):
        raise UserError.join(problems)
    if value is None:
        return None
    spec = value.get("generate")
    try:
        generator = None if spec is None else resolve_generate(spec, progress=progress)
    except UserError as error:
        lines = [f"policy_text.{line}" for line in str(error).splitlines()]
        raise UserError.join(lines) from None
    numbers = {key: value[key] for key in ("per_rule", "oversample") if key in value}
    return PolicyText(**numbers, generator=generator)


def count_texts(settings: PolicyText, policies: Mapping[str, Policy], seed: int) -> int:
    """Rows that the toolkit writes for some policies; a generator may add to them.

    Raises:
        UserError: a policy states nothing.
    """
    alone = PolicyText(settings.per_rule, settings.oversample)
    return sum(len(alone.write(id, policy, seed)) for id, policy in policies.items())


def texts_by_split(
    rows: Mapping[str, Sequence[Sample]],
    policies: Mapping[str, Policy],
    settings: PolicyText | None,
    seed: int,
) -> dict[str, list[Sample]]:
    """The splits of texts: `policy_text` is about the policies that rows of `train_cot` are under,
    `policy_text_new` about those of `train_cot_new`. Without `train_cot`, all policies count that
    rows are under, but for those that override others.

    Raises:
        UserError: a policy states nothing, or none is left.
    """
    if settings is None:
        return {}
    used = {
        f"{SPLIT}{split.removeprefix(TRAINED)}": samples
        for split, samples in rows.items()
        if split == TRAINED or split.startswith(f"{TRAINED}_")
    }
    if not used:
        used = {SPLIT: [sample for samples in rows.values() for sample in samples]}
    found = {}
    for split, samples in used.items():
        ids = dict.fromkeys(s.policy for s in samples if s.policy is not None)
        own = [id for id in ids if not id.startswith("override/")]
        if not own:
            raise UserError("policy_text: no row is under a policy to write about; set it to null")
        found[split] = [row for id in own for row in settings.write(id, policies[id], seed)]
    return found


def text_counts(written: Mapping[str, Sequence[Sample]]) -> dict[str, Any]:
    """Rows by split, kind and form, and those that a model wrote, for a card."""
    return {
        split: {
            "rows": len(rows),
            "kinds": dict(sorted(Counter(row.facts["kind"] for row in rows).items())),
            "forms": dict(sorted(Counter(row.facts["form"] for row in rows).items())),
            "by_model": sum("written" in row.facts for row in rows),
        }
        for split, rows in written.items()
    }
