"""A scripted model and small data folders for tests of evaluation and report."""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets_builders.clevr import builder, skills_builder
from trimpi.evaluate.serving import Prefix, Prepared, Timing
from trimpi.evaluate.settings import Request
from trimpi.generate import Generated
from trimpi.prompt import Message, build_messages, render_target
from trimpi.sample import DataFolder, Sample

GRADER = "datasets_builders.clevr.grader:grade"
DIAGNOSE = "datasets_builders.clevr.grader:diagnose"


def clevr_folder(out: Path, **args: Any) -> DataFolder:
    """A ClevrPolicy folder of two policies of depth 2 and a few rows."""
    sizes = {"policies": 2, "depth": 2, "train": 2, "train_cot": 2, "test": 8, "override": 6}
    return builder.build(out, seed=0, progress=False, workers=1, profile="tiny", **(sizes | args))


def skills_folder(out: Path, rows: int = 2) -> DataFolder:
    """A folder of general skills, `rows` of each task."""
    return skills_builder.build(out, seed=1, progress=False, workers=1, rows=rows)


def prompt_text(messages: list[Message]) -> str:
    """All text of a prompt."""
    return "".join(part.get("text", "") for m in messages for part in m["content"])


@dataclass
class Scripted:
    """A generator that answers by rule; `asked` counts the prompts of each call.

    `die_after` raises KeyboardInterrupt instead of answering once so many calls were made.
    """

    answer: Callable[[list[Message]], str]
    die_after: int | None = None
    asked: list[int] = field(default_factory=list)

    def __call__(
        self,
        prompts: list[list[Message]],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Generated]:
        assert temperature == 0.0
        if self.die_after is not None and len(self.asked) >= self.die_after:
            raise KeyboardInterrupt
        self.asked.append(len(prompts))
        texts = [self.answer(prompt) for prompt in prompts]
        return [Generated(t, min(len(t.split()), max_new_tokens), False) for t in texts]


class FakePrefill:
    """Counts words as tokens and takes a microsecond for each."""

    device = "fake"

    def encode(self, messages: list[Message]) -> str:
        return prompt_text(messages)

    def tokens(self, encoded: str) -> int:
        return len(encoded.split())

    def seconds(self, encoded: str) -> float:
        return 1e-6 * len(encoded.split())


class FakeServer:
    """Takes a microsecond for each word of a batch's prompts and for each new one.

    `timed` lists the ways in the order of timing; `fails` have no memory; `fault` is the prefix's.
    """

    device = "fake"

    def __init__(self, fails: Sequence[str] = (), fault: str = "") -> None:
        self.timed: list[str] = []
        self._fails, self._fault = fails, fault

    def prepare(self, requests: Sequence[Request]) -> Prepared:
        def words(policy: bool) -> int:
            return sum(
                len(prompt_text(build_messages(r.sample, r.shown if policy else None)).split())
                for r in requests
            )

        size = len(requests)
        shown, bare = words(True) / size, words(False) / size
        tokens = {"with_policy": shown, "cached_prefix": bare + 1, "without_policy": bare}
        prefix = Prefix(int(shown - bare), 1000, 0.5, 0.0, 1.0, self._fault)
        return Prepared(tokens, prefix, size)

    def time(self, prepared: Prepared, way: str, new_tokens: int) -> Timing | None:
        self.timed.append(way)
        if way in self._fails:
            return None
        prefill = 1e-6 * prepared.prompt_tokens[way] * prepared.inputs
        return Timing(prefill, prefill + 1e-6, prefill + 1e-6 * new_tokens)


@dataclass(frozen=True)
class Skill:
    """How good a pretended model is: chances of doing right, by what is asked."""

    walk: float
    """Deciding one condition right."""
    unaided: float | None = None
    """The same without the policy in the prompt; None: internalized, no difference."""
    wrong_turn: float = 0.0
    """Citing a condition that does not follow, after a right decision."""
    recite: float = 0.0
    general: float = 0.9
    reasons: bool = True


def pretend(
    skill: Skill, data: DataFolder, skills: DataFolder | None, seed: int
) -> Callable[[list[Message]], str]:
    """Answers of a model of this skill, a function of the prompt and the seed alone."""
    by_picture: dict[tuple[str, bool], Sample] = {}
    for split in ("test", "override"):
        for sample in data.read(split):
            by_picture[sample.images[0], split == "override"] = sample
    general: dict[str, Sample] = {}
    for sample in skills.read("test") if skills else ():
        general["".join(sample.images) + sample.query] = sample
    policies: Mapping[str, Any] = {p.name: p for n, p in data.policies.items() if "/" not in n}

    def answer(messages: list[Message]) -> str:
        content = messages[0]["content"]
        text, pictures = prompt_text(messages), [p["image"] for p in content if "image" in p]
        query = content[-1]["text"].rsplit("\n", 1)[0]
        shown = [Path(p).parts[-2:] for p in pictures[-1:]]  # not the folder of this test run
        rng = random.Random(f"{seed}/{shown}/{text}")
        if (sample := general.get("".join(pictures[-1:]) + query)) is not None:
            right = rng.random() < skill.general
            return render_target(sample, "answer") if right else "\\boxed{nothing}"
        if found := re.match(r"What does Condition (\S+) of policy (\w+) say", query):
            conditions = policies[found[2]].metadata["conditions"]
            named = found[1] if rng.random() < skill.recite else rng.choice(sorted(conditions))
            return f"\\boxed{{{conditions[named]}}}"
        for override in (False, True):
            if (sample := by_picture.get((pictures[-1], override))) is not None:
                known = "Section 1" in text or skill.unaided is None
                return _walk(rng, skill, skill.walk if known else skill.unaided or 0.0, sample)
        raise AssertionError(f"unexpected prompt: {text[-200:]}")

    return answer


def _walk(rng: random.Random, skill: Skill, chance: float, sample: Sample) -> str:
    """The gold walk, or one that leaves it where chance says so."""
    steps = sample.facts["path"]
    lines = (sample.rationale or "").splitlines()
    wrong = f"\\boxed{{Case {rng.randint(90, 99)}}}"
    for index in range(len(steps)):
        fault = rng.random() > chance
        if not skill.reasons:
            if fault:
                return wrong
            continue
        if fault:
            verdict = ("No", "Yes") if not steps[index]["outcome"] else ("Yes", "No")
            line = lines[index].replace(f"{verdict[0]}:", f"{verdict[1]}:", 1)
            line = re.sub(r"(go to|the response is) .*", "the response is Case 91.", line)
            return f"<think> {chr(10).join([*lines[:index], line])} </think> {wrong}"
        if index and rng.random() < skill.wrong_turn:
            line = lines[index].replace(f"Condition {steps[index]['condition']}:", "Condition 9.9:")
            return f"<think> {chr(10).join([*lines[:index], line])} </think> {wrong}"
    return render_target(sample, "cot" if skill.reasons else "answer")
