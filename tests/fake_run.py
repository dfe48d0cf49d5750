"""A run folder as `trimpi run` leaves it, from pretended models: for tests of the report.

Data, evaluations and scores are made by the real code; logged steps and stage records are made up
in the form that the stages write.
"""

import math
import random
from pathlib import Path

from datasets_builders.clevr.grader import grade
from tests.evaluation_fakes import (
    DIAGNOSE,
    GRADER,
    FakePrefill,
    FakeServer,
    Scripted,
    Skill,
    clevr_folder,
    pretend,
    skills_folder,
)
from trimpi.evaluate import evaluate_model
from trimpi.evaluate.store import write_rows
from trimpi.recipe import Recipe
from trimpi.recipe_file import dump_recipe
from trimpi.runs import chain_name, eval_folder, stage_folder, versions, write_json, write_text

SKILLS = {
    "base": Skill(0.72, 0.4, wrong_turn=0.05, recite=0.9, general=0.93),
    "direct_sft": Skill(0.62, general=0.45, reasons=False),
    "cot_sft": Skill(0.78, wrong_turn=0.12, recite=0.05, general=0.86),
    "cpt_cot_sft": Skill(0.84, wrong_turn=0.06, recite=0.5, general=0.84),
    "grpo": Skill(0.9, wrong_turn=0.05, recite=0.05, general=0.85),
    "trimpi_no_poro": Skill(0.93, wrong_turn=0.03, recite=0.45, general=0.83),
    "trimpi": Skill(0.975, wrong_turn=0.01, recite=0.5, general=0.88),
}
CHAINS = {
    "direct_sft": ["direct"],
    "cot_sft": ["sft"],
    "cpt_cot_sft": ["cpt", "sft"],
    "grpo": ["sft", "grpo"],
    "trimpi_no_poro": ["cpt", "sft", "grpo"],
    "trimpi": ["cpt", "sft", "poro"],
}


def fake_run(
    run: Path, *, seeds: tuple[int, ...] = (0, 1, 2), rows: int = 60, arms: tuple[str, ...] = ()
) -> Path:
    """Write a run folder at `run` and return it. `arms` are those of `CHAINS`; none means all."""
    data = clevr_folder(run / "data", depth=5, policies=2, test=rows, override=rows // 2)
    skills = skills_folder(run / "skills", rows=max(2, rows // 6))
    chains = {name: CHAINS[name] for name in arms or CHAINS}
    used = {stage for chain in chains.values() for stage in chain}
    stages = {
        "cpt": {"kind": "cpt"},
        "direct": {"kind": "sft", "target": "answer", "split": "train"},
        "sft": {"kind": "sft"},
        "grpo": {"kind": "rl", "policy_fraction": 0.0},
        "poro": {"kind": "rl"},
    }
    recipe = Recipe.model_validate(
        {
            "name": "ablation",
            "description": "All rows of the ablation on a pretended model: ClevrPolicy-T, depth 5.",
            "seeds": list(seeds),
            "model": {"path": "package://trimpi/models/tiny-vlm"},
            "data": {"builder": "datasets_builders.clevr.builder:build", "args": {"depth": 5}},
            "grader": GRADER,
            "stages": {name: stage for name, stage in stages.items() if name in used},
            "arms": chains,
            "evaluation": {
                "settings": [
                    "no_policy",
                    "in_context",
                    "override",
                    "recital",
                    "efficiency",
                    "skills",
                ],
                "targets": {"direct_sft": "answer"} if "direct_sft" in chains else {},
                "skills": {"folder": str(skills.root)},
                "diagnose": DIAGNOSE,
            },
        }
    )
    write_text(run / "recipe.yaml", dump_recipe(recipe))
    record = {"name": recipe.name, "versions": versions(), "command": ["trimpi", "run"]}
    write_json(run / "run.json", record | {"seconds": 7261.0, "peak_memory_gib": 3.21})
    for seed in seeds:
        done: set[str] = set()
        for chain in chains.values():
            for end in range(1, len(chain) + 1):
                if (name := chain_name(chain[:end])) not in done:
                    done.add(name)
                    kind = str(stages[chain[end - 1]]["kind"])
                    aware = chain[end - 1] == "poro"
                    write_stage(stage_folder(run, seed, chain[:end]), kind, aware, seed)
        evaluated = {"base": []} if seed == seeds[0] else {}
        for arm, chain in {**evaluated, **chains}.items():
            model = run / "models" / f"{arm}-{seed}"
            write_json(model / "config.json", {"arm": arm, "seed": seed})
            evaluate_model(
                model,
                recipe,
                data,
                skills,
                eval_folder(run, seed, chain),
                grade,
                seed,
                target=recipe.target_of(arm),
                generator=Scripted(pretend(SKILLS[arm], data, skills, seed)),
                prefill=FakePrefill(),
                server=FakeServer(),
            )
    return run


def write_stage(folder: Path, kind: str, aware: bool, seed: int) -> None:
    """A stage's metrics and marker: falling loss, or rising reward of both halves."""
    rng = random.Random(f"{folder.name}/{seed}")
    steps = 80 if kind == "rl" else 150
    rows: list[dict[str, float | int | None]] = []
    for step in range(1, steps + 1):
        part = step / steps
        row: dict[str, float | int | None] = {"step": step, "epoch": round(5 * part, 3)}
        if kind != "rl":
            row["loss"] = 0.05 + 2.4 * math.exp(-6 * part) + abs(rng.gauss(0, 0.03))
        else:
            free = 1.38 - 0.7 * math.exp(-3 * part) + rng.gauss(0, 0.03)
            with_policy = 1.3 - 0.4 * math.exp(-2 * part) + rng.gauss(0, 0.03)
            row |= {
                "reward": (free + with_policy) / 2 if aware else free,
                "loss": 0.001,
                "kl": None,
            }
            row |= {"rollout/free/reward": free, "rollout/free/accuracy": min(1.0, free - 0.45)}
            row |= {"rollout/free/length": 60 - 9 * part}
            row |= {"rollout/no_signal/free": 0.3 + 0.4 * part + rng.gauss(0, 0.02)}
            row |= {"rollout/no_signal/pooled": 0.18 + 0.4 * part + rng.gauss(0, 0.02)}
            if aware:
                row |= {"rollout/aware/reward": with_policy, "rollout/aware/length": 63 - 5 * part}
                row |= {"rollout/aware/accuracy": min(1.0, with_policy - 0.45)}
                row |= {"rollout/aware/logp_without_policy": -0.6 + 0.45 * part}
                row |= {"rollout/free/logp_without_policy": -0.3 + 0.2 * part}
        rows.append(row)
    write_rows(folder / "metrics.jsonl", rows)
    if kind == "rl":
        free, pooled = {"accuracy": 0.25, "format": 0.97}, {"free": 0.44, "pooled": 0.19}
        found = {"prompts": 16, "rollouts": 4, "free": free, "no_signal": pooled, "warnings": []}
        write_json(
            folder / "preflight.json",
            found | ({"aware": {"accuracy": 0.5, "format": 0.98}} if aware else {}),
        )
    record = {
        "stage": kind,
        "steps": steps,
        "sequences": 32 * steps,
        "tokens_trained": 32 * steps * 107,
        "seconds": 412.5 + seed,
        "verified": {"kind": "merge", "max_abs": 2e-6},
    }
    write_json(folder / "stage.json", record)
