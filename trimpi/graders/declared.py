"""Graders of declarations: one boxed answer, or a JSON object field by field."""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from trimpi.errors import UserError
from trimpi.graders.comparison import AnswerConfig, comparison_of, shown
from trimpi.graders.config import GraderConfig, JsonConfig
from trimpi.graders.json_text import DuplicateKey, read_answer
from trimpi.prompt import parse_response
from trimpi.sample import Completion, Sample, Score

UNASKED = "(unasked)"
"""Stands for all fields that neither the declaration nor the gold answer has."""


class AnswerGrader:
    """Compares what stands in the last `\\boxed{}`; without a box a completion scores 0."""

    def __init__(self, config: AnswerConfig) -> None:
        self.name, self.identity = config.type, identity_of(config)
        self._comparison = comparison_of(config)
        self.about = f"answers are compared as {self._comparison.about}"

    def check(self) -> None:
        """Nothing is lacking."""

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """
        Raises:
            UserError: the gold answer is none that the grader knows.
        """
        if fault := self._comparison.fault(sample.answer):
            raise UserError(f"answer {fault}")
        said = parse_response(completion.text).answer
        if said is None:
            return Score(0.0, note="no boxed answer")
        value = self._comparison.compare(sample.answer, said)
        return Score(value, note="" if value == 1 else f"answered {shown(said)}")


class JsonGrader:
    """The weighted mean over the fields that the gold answer or the completion has.

    A field that is missing scores 0, and so does one that the gold answer has not: all fields that
    neither it nor the declaration knows are one wrong field of weight 1, however many they are. A
    field that is null is not there. Parts: `field/<name>`.
    """

    def __init__(self, config: JsonConfig) -> None:
        self.name, self.identity = config.type, identity_of(config)
        self._fields = dict(config.fields)
        self._comparisons = {name: comparison_of(field) for name, field in config.fields.items()}
        rules = (f"{name} ({rule.about})" for name, rule in self._comparisons.items())
        self.about = f"answers are JSON, compared by field: {', '.join(rules)}"
        self._gold = lru_cache(maxsize=4096)(self._read_gold)

    def check(self) -> None:
        """Nothing is lacking."""

    def __call__(self, sample: Sample, completion: Completion) -> Score:
        """
        Raises:
            UserError: the gold answer is no object with the fields of the declaration.
        """
        gold = self._gold(sample.answer)
        note = ""
        try:
            found = read_answer(completion.text)
        except DuplicateKey as error:
            found, note = None, f"key {shown(error.args[0])} given twice"
        said = {} if found is None else {k: v for k, v in found.items() if v is not None}
        asked = [name for name in self._fields if name in gold or name in said]
        scores = {
            name: self._comparisons[name].compare(gold[name], said[name])
            if name in gold and name in said
            else 0.0
            for name in asked
        }
        weights = {name: self._fields[name].weight for name in asked}
        if said.keys() - self._fields.keys() - gold.keys():
            scores[UNASKED], weights[UNASKED] = 0.0, 1.0
        value = sum(weights[name] * scores[name] for name in scores) / sum(weights.values())
        if found is None:
            note = note or "no JSON object"
        elif wrong := [name for name, score in scores.items() if score < 1]:
            note = f"wrong: {', '.join(wrong)}"
        return Score(value, {f"field/{name}": score for name, score in scores.items()}, note)

    def _read_gold(self, answer: str) -> Mapping[str, Any]:
        try:
            content = json.loads(answer)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise UserError(f"answer {shown(answer)} is no JSON object; write it as one")
        try:
            read = read_answer(answer)
        except DuplicateKey as error:
            raise UserError(f"answer: key {shown(error.args[0])} given twice; keep one") from None
        if read is None:
            raise UserError("answer: too long or nested too deep to be compared; shorten it")
        gold = {name: value for name, value in read.items() if value is not None}
        problems = [
            f"answer: field {name!r} is missing; add it, or set required: false"
            for name, field in self._fields.items()
            if field.required and name not in gold
        ]
        for name, rule in self._comparisons.items():
            if name in gold and (fault := rule.fault(gold[name])):
                problems.append(f"answer: field {name!r}: {fault}")
        if not problems and not gold.keys() & self._fields.keys():
            problems.append(f"answer {shown(answer)} has none of the fields that are compared")
        if problems:
            raise UserError.join(problems)
        return gold


def identity_of(config: GraderConfig | AnswerConfig) -> str:
    """A declaration as one line that changes with everything that scores depend on."""
    content = config.model_dump(mode="json", exclude_defaults=True)
    return f"{config.type} {json.dumps(content, sort_keys=True, ensure_ascii=False)}"
