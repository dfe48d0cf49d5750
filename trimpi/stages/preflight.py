"""Before RL: does the model solve enough, and not everything, to learn from its own rollouts?"""

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch

from trimpi.generate import Generator
from trimpi.prompt import build_messages
from trimpi.recipe import RlConfig
from trimpi.sample import Completion, DataFolder, Sample
from trimpi.stages.rewards import Graded
from trimpi.stages.rollout_metrics import RolloutTable, as_table

MOSTLY = 0.8
"""Share of prompts, or of completions, from which on something is called out."""


def preflight(
    generate: Generator,
    samples: Sequence[Sample],
    data: DataFolder,
    grade: Callable[[Sample, Completion], Graded],
    config: RlConfig,
    seed: int,
) -> dict[str, Any]:
    """Sample `preflight_rollouts` completions of each half on `preflight_prompts` prompts.

    Args:
        generate: answers prompts with the model that enters the stage.
        samples: the rows that RL will train on; the prompts are drawn from them.
        data: their data folder.
        grade: the reward.
        config: the stage.
        seed: of the draw of prompts and of the sampling.

    Returns:
        `{"prompts", "rollouts", "group_size", "free", "aware", "no_signal", "warnings"}`,
        the halves with mean reward, accuracy (pass rate), format, length and truncated share.
        "aware" is there when the stage generates with the policy in context.

    Raises:
        UserError: a prompt leaves no room for an answer, or the grader failed.
    """
    count = min(config.preflight_prompts, len(samples))
    chosen = [samples[i] for i in sorted(random.Random(seed).sample(range(len(samples)), count))]
    halves = [False, True] if config.policy_fraction else [False]
    graded: dict[tuple[int, bool], list[Graded]] = {}
    for aware in halves:
        rows = [pair for pair in enumerate(chosen) for _ in range(config.preflight_rollouts)]
        written = generate(
            [build_messages(s, data.policy_of(s) if aware else None) for _, s in rows],
            max_new_tokens=config.max_new_tokens,
            temperature=config.temperature,
            seed=seed + aware,
        )
        for (index, sample), answer in zip(rows, written, strict=True):
            completion = Completion(sample.id, answer.text, answer.tokens, answer.truncated)
            graded.setdefault((index, aware), []).append(grade(sample, completion))
    pooled = [g for i in range(count) for aware in halves for g in graded[i, aware]]
    marks = [aware for aware in halves for _ in range(config.preflight_rollouts)]
    table = RolloutTable(torch.tensor(marks * count), as_table(pooled), len(marks))
    found: dict[str, Any] = {"prompts": count, "rollouts": config.preflight_rollouts}
    found["group_size"] = config.group_size
    for key, value in table.summary().items():
        _, group, *name = key.split("/")
        if name:
            found.setdefault(group, {})[name[0]] = round(value, 4)
        else:
            found[group] = round(value, 4)
    return {**found, "warnings": warnings(found)}


def warnings(found: dict[str, Any]) -> list[str]:
    """What is likely to go wrong, and what to change."""
    free, aware, silent = found["free"], found.get("aware"), found["no_signal"]
    both = [free] if aware is None else [free, aware]
    lines = []
    solved = [half.get("accuracy", 0.0) for half in both]
    if found["unscorable"] > 0:
        lines.append(
            f"{found['unscorable']:.0%} of the completions could not be graded; they train nothing"
        )
    if max(solved) == 0:
        lines.append(
            "no completion was right, so RL would learn form alone; train the stages before it "
            "longer, or take shallower policies"
        )
    elif silent["pooled"] >= MOSTLY and min(solved) >= MOSTLY:
        lines.append(
            f"{silent['pooled']:.0%} of the groups have no signal because nearly all completions "
            "are right; RL is hardly needed: take harder policies or fewer steps"
        )
    elif silent["pooled"] >= MOSTLY:
        lines.append(
            f"{silent['pooled']:.0%} of the groups have no signal (all rewards equal); raise "
            "group_size or temperature, or train the stages before it differently"
        )
    if aware is not None and max(solved) > 0 and solved[1] <= solved[0]:
        lines.append(
            f"the policy in context does not help ({solved[1]:.0%} right with it, {solved[0]:.0%} "
            "without), so policy-aware rows add little; lower policy_fraction"
        )
    if any(half["truncated"] >= 1 - MOSTLY for half in both):
        longest = max(half["truncated"] for half in both)
        lines.append(f"{longest:.0%} of a half's completions are cut off; raise max_new_tokens")
    if free["format"] < 1 - MOSTLY:
        lines.append(
            f"only {free['format']:.0%} of the policy-free completions have the form "
            "<think>...</think> \\boxed{}; do CoT SFT before RL"
        )
    return lines


def shown_lines(found: dict[str, Any]) -> list[str]:
    """A pre-flight in words."""
    lines = []
    for half, title in (("free", "without the policy"), ("aware", "with the policy")):
        if half in found:
            values = found[half]
            lines.append(
                f"{title}: {values.get('accuracy', 0):.0%} right, {values['format']:.0%} well "
                f"formed, {values['length']:.0f} tokens, {values['truncated']:.0%} cut off"
            )
    silent, pooled = found["no_signal"], found["rollouts"] * (1 + ("aware" in found))
    line = (
        f"groups without signal: {silent['free']:.0%} of the policy-free rows alone, "
        f"{silent['pooled']:.0%} of the pooled groups"
    )
    if pooled < found["group_size"]:
        line += f" of {pooled}; fewer in the stage's groups of {found['group_size']}"
    lines.append(line)
    return lines
