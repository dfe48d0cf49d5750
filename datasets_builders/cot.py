"""Rationales by a model: forward CoT, filtered by the grader, and reverse CoT from gold answers.

The model comes in as a `generate` callable, so that nothing here needs one (paper, CoT data).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from trimpi.errors import UserError
from trimpi.grading import Grader, checked_score
from trimpi.policy import Policy
from trimpi.prompt import Message, build_messages, parse_response
from trimpi.sample import Completion, Sample


class Generated(Protocol):
    """What a generator gives for one prompt."""

    @property
    def text(self) -> str:
        """The completion."""
        ...

    @property
    def truncated(self) -> bool:
        """Stopped by the length limit."""
        ...


class Generate(Protocol):
    """A model behind a function."""

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Sequence[Generated]:
        """One completion a prompt, in order."""
        ...


@dataclass(frozen=True)
class CotReport:
    """What became of the rows: `asked` = `kept` + `dropped`; `completions` were written in all.

    `truncated` counts the completions that the length limit ended, which are never kept.
    """

    asked: int
    kept: int
    completions: int
    truncated: int = 0

    @property
    def dropped(self) -> int:
        """Rows without an accepted rationale."""
        return self.asked - self.kept

    def to_json(self) -> dict[str, int]:
        """For a card."""
        return {
            "asked": self.asked,
            "kept": self.kept,
            "dropped": self.dropped,
            "completions": self.completions,
            "truncated": self.truncated,
        }


def forward_cot(
    samples: Sequence[Sample],
    policies: Mapping[str, Policy],
    generate: Generate,
    grader: Grader,
    *,
    max_new_tokens: int,
    attempts: int = 4,
    seed: int = 0,
) -> tuple[list[Sample], CotReport]:
    """Let the model solve each row with the policy in context; keep what the grader scores 1.

    The first attempt is greedy, the others sample at temperature 1. Kept are whole, well-formed
    completions with a right answer and a rationale that is not empty.

    Raises:
        UserError: nothing was kept.
    """
    kept: dict[str, Sample] = {}
    written = cut = 0
    for attempt in range(attempts):
        open_rows = [sample for sample in samples if sample.id not in kept]
        if not open_rows:
            break
        prompts = [build_messages(row, policies[row.policy or ""]) for row in open_rows]
        answers = generate(
            prompts,
            max_new_tokens=max_new_tokens,
            temperature=1.0 if attempt else 0.0,
            seed=seed + attempt,
        )
        for row, answer in zip(open_rows, answers, strict=True):
            written += 1
            cut += answer.truncated
            response = parse_response(answer.text)
            right = checked_score(grader, row, Completion(row.id, answer.text)).value == 1.0
            if right and response.well_formed and response.rationale and not answer.truncated:
                kept[row.id] = replace(row, rationale=response.rationale)
    if not kept:
        raise UserError(
            f"generate: none of {len(samples)} rows got a right, well-formed rationale in"
            f" {attempts} attempts; {_cut_off(cut, written)}use a stronger model, or gold walks"
        )
    rows = [kept[sample.id] for sample in samples if sample.id in kept]
    return rows, CotReport(len(samples), len(rows), written, cut)


def _cut_off(cut: int, written: int) -> str:
    return (
        f"the length limit ended {cut} of {written} completions: raise cot_tokens; " if cut else ""
    )


REVERSE = (
    "The right answer is {answer}. Write the reasoning that leads from the policy and the request"
    " to this answer, step by step, citing the rules that apply. Write the reasoning alone, and"
    " write it as if you had not been told the answer."
)


def reverse_messages(sample: Sample, policy: Policy) -> list[Message]:
    """The reverse CoT prompt: shows policy, request and gold answer, asks for the reasoning."""
    messages = build_messages(sample, policy)
    content = [*messages[0]["content"][:-1]]
    content.append(
        {"type": "text", "text": f"{sample.query}\n{REVERSE.format(answer=sample.answer)}"}
    )
    return [{"role": "user", "content": content}]


def reverse_cot(
    samples: Sequence[Sample],
    policies: Mapping[str, Policy],
    generate: Generate,
    *,
    max_new_tokens: int,
    seed: int = 0,
) -> tuple[list[Sample], CotReport]:
    """Let the model write rationales to gold answers; unfiltered but for empty or cut-off ones.

    Of a completion with a `<think>` block the block is the rationale; marks that have no
    counterpart are taken out, since each target has exactly one block of its own.

    Raises:
        UserError: nothing was kept.
    """
    prompts = [reverse_messages(row, policies[row.policy or ""]) for row in samples]
    answers = generate(prompts, max_new_tokens=max_new_tokens, temperature=0.0, seed=seed)
    rows = []
    for row, answer in zip(samples, answers, strict=True):
        rationale = _rationale(answer.text)
        if rationale and not answer.truncated:
            rows.append(replace(row, rationale=rationale))
    cut = sum(answer.truncated for answer in answers)
    if not rows:
        raise UserError(
            f"generate: none of {len(samples)} rows got a rationale; "
            f"{_cut_off(cut, len(samples))}use another model"
        )
    return rows, CotReport(len(samples), len(rows), len(samples), cut)


def _rationale(text: str) -> str:
    within = parse_response(text).rationale
    reasoning = (text if within is None else within).split("\\boxed")[0]
    return " ".join(part.strip() for part in re.split("</?think>", reasoning)).strip()
