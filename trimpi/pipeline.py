"""Running a recipe: data, then per seed and arm the chain of stages, evaluation, report.

Every step writes its own folder and is skipped when that folder is finished with the same
content: same data, same base model, same settings of this stage and of those before it, same seed.
Arms share the folders of the stages that they have in common.
"""

import contextlib
import resource
import shutil
import sys
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

from trimpi.data_step import Say, minutes, prepare_data
from trimpi.disk import disk_faults_named
from trimpi.errors import UserError
from trimpi.graders import make_grader
from trimpi.identities import Task, asked, evaluation_identity, identity_of
from trimpi.launch import run_stage
from trimpi.lock import held
from trimpi.model_folder import check_model_folder
from trimpi.model_source import locate
from trimpi.quiet import quiet
from trimpi.recipe import InterpolateConfig, Recipe
from trimpi.recipe_file import dump_recipe
from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import resolve_callable
from trimpi.row_checks import check_replay, check_rows
from trimpi.runs import (
    STAGE,
    STARTED,
    begin,
    chain_name,
    data_digest,
    differences,
    eval_folder,
    finish,
    model_digest,
    read_json,
    read_metrics,
    stage_folder,
    versions,
    write_json,
    write_text,
)
from trimpi.sample import DataFolder
from trimpi.seeds import run_seeds
from trimpi.trackers import log_evaluation, tracking_of


def run_recipe(
    recipe: Recipe, run: Path, *, say: Say = print, jobs: int = 1, overwrite: bool = False
) -> Path:
    """Run a whole recipe and return the path of its report.

    Args:
        recipe: as `load_recipe` gives it, local paths absolute.
        run: the run folder; made, or continued.
        say: receives one line per step.
        jobs: seeds trained at the same time, each in a process of its own.
        overwrite: set folders of other settings aside and redo them, instead of refusing.

    Raises:
        UserError: anything that the user can mend, most of it before a model is loaded.
    """
    started = time.time()
    with alone_in(run), disk_faults_named(recipe.name):
        task = _prepare(recipe, run, say, overwrite)
        for seed in recipe.all_seeds:
            _open_folders(task, seed)
        skills = None if task.skills is None else DataFolder(task.skills)
        replay = None if task.replay is None else DataFolder(task.replay)
        resolve_callable("trimpi.model:check_adapters", "model")(recipe, task.model)
        check = resolve_callable("trimpi.context:check_context", "model")
        check(recipe, task.model, DataFolder(task.data), skills, replay)
        write_text(run / "recipe.yaml", dump_recipe(recipe))
        record = {"name": recipe.name, "started": started, "versions": versions()}
        record |= {"command": sys.argv, "model_digest": task.model_digest}
        before = read_json(run / "run.json") or {}
        costs = {key: before.get(key, 0.0) for key in ("seconds", "peak_memory_gib")}
        write_json(run / "run.json", record | costs)

        def note_costs() -> None:
            costs["seconds"] += time.time() - started
            costs["peak_memory_gib"] = max(costs["peak_memory_gib"], round(_peak_gib(), 2))
            write_json(run / "run.json", record | costs)

        try:
            run_seeds(run_seed, task, recipe.all_seeds, min(jobs, len(recipe.all_seeds)), say)
        except BaseException:  # an interrupted sitting counts as well
            with contextlib.suppress(OSError):  # a full disk is told by what met it first
                note_costs()
            raise
        note_costs()  # before the report, which shows them
        report = Path(resolve_callable("trimpi.report:write_report", "report")(run))
    say(f"done in {minutes(time.time() - started)}, peak memory {_peak_gib():.1f} GiB")
    return report


def _peak_gib() -> float:
    """Largest resident memory so far of this process and of any child that ended, GiB."""
    users = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    usage = max(resource.getrusage(who).ru_maxrss for who in users)
    return usage / (2**30 if sys.platform == "darwin" else 2**20)


def evaluate_arm(
    recipe: Recipe,
    run: Path,
    arm: str,
    *,
    say: Say = print,
    regrade: bool = False,
    overwrite: bool = False,
) -> Path:
    """Evaluate one arm of a run, all its seeds; nothing is trained.

    Args:
        recipe: the recipe of the run; its `evaluation` may have changed.
        run: a run folder in which the arm is trained.
        arm: arm of the recipe, or `base`.
        say: receives one line per step.
        regrade: score the stored completions again instead, without a model.
        overwrite: set an evaluation of other settings aside and redo it.

    Returns:
        The path of the report, written again.

    Raises:
        UserError: no such arm, or it is not trained.
    """
    arms = {"base": (), **recipe.chains}
    if arm not in arms:
        raise UserError(f"--arm {arm}: unknown arm; {did_you_mean(arm, arms)}")
    chain = arms[arm]
    with alone_in(run):
        if regrade:
            _regrade(recipe, run, chain, say)
        else:
            _evaluate_again(recipe, run, chain, say, overwrite)
        return Path(resolve_callable("trimpi.report:write_report", "report")(run))


def _evaluate_again(
    recipe: Recipe, run: Path, chain: tuple[str, ...], say: Say, overwrite: bool
) -> None:
    task = replace(_prepare(recipe, run, say, overwrite=False), overwrite=overwrite)
    for seed in recipe.all_seeds if chain else recipe.all_seeds[:1]:
        folder = stage_folder(run, seed, chain)
        if chain and not (folder / "done.json").is_file():
            raise UserError(f"{folder}: not trained yet; `trimpi run` the recipe first")
        changed = differences(read_json(folder / STARTED), identity_of(task, seed, chain))
        if chain and changed:
            raise UserError(
                f"{folder}: trained with other settings ({changed}); give the recipe of the run"
            )
        _evaluate(task, seed, chain, folder / "model" if chain else task.model, say)


def _regrade(recipe: Recipe, run: Path, chain: tuple[str, ...], say: Say) -> None:
    grade_again = resolve_callable("trimpi.evaluate.runner:regrade", "evaluation")
    grader = make_grader(recipe.grader, "grader")
    name = recipe.evaluation.diagnose
    diagnose = None if name is None else resolve_callable(name, "evaluation.diagnose")
    folders = [eval_folder(run, seed, chain) for seed in recipe.all_seeds]
    folders = [folder for folder in folders if folder.is_dir()]
    if not folders:
        raise UserError(f"{run}: no evaluation of {chain_name(chain)} to grade again")
    for folder in folders:
        grade_again(folder, grader, diagnose)
        resolve_callable("trimpi.evaluate.referral.setting:regrade", "evaluation")(folder)
        say(f"{folder}: graded again")


def _prepare(recipe: Recipe, run: Path, say: Say, overwrite: bool) -> Task:
    """Base model and data, ready on this machine."""
    model = locate(recipe.model)
    check_model_folder(model)
    data = prepare_data(recipe.data, run / "data", "data", say, overwrite)
    check_rows(recipe, data, grader=make_grader(recipe.grader, "grader"))
    skills = None
    if (config := recipe.evaluation.skills) is not None:
        skills = prepare_data(config, run / "skills", "evaluation.skills", say, overwrite)
    replay = None
    if recipe.replay is not None:
        replay = prepare_data(recipe.replay, run / "replay", "replay", say, overwrite)
        check_replay(recipe, replay, data, skills)
    return Task(
        recipe=recipe,
        run=run,
        model=model,
        model_digest=model_digest(model),
        data=data.root,
        data_digest=data_digest(data.root, data.card),
        skills=None if skills is None else skills.root,
        skills_digest=None if skills is None else data_digest(skills.root, skills.card),
        replay=None if replay is None else replay.root,
        replay_digest=None if replay is None else data_digest(replay.root, replay.card),
        overwrite=overwrite,
    )


def prefixes(recipe: Recipe) -> list[tuple[str, ...]]:
    """All chains to train, shared beginnings once, each after its own beginning."""
    found: dict[tuple[str, ...], None] = {}
    for chain in recipe.chains.values():
        for end in range(1, len(chain) + 1):
            found[chain[:end]] = None
    return list(found)


def measured(recipe: Recipe, seed: int) -> list[tuple[str, ...]]:
    """Chains whose model is evaluated under a seed.

    The base model owes nothing to the training seed and is decoded greedily: once is enough.
    """
    chains = dict.fromkeys(chain for chain in recipe.chains.values() if chain)
    return [*([()] if seed == recipe.all_seeds[0] else []), *chains]


def _open_folders(task: Task, seed: int) -> None:
    """Refuse folders of other settings, all at once, before anything is trained."""
    problems = []
    wanted = [
        (stage_folder(task.run, seed, chain), identity_of(task, seed, chain))
        for chain in prefixes(task.recipe)
    ]
    wanted += [
        (eval_folder(task.run, seed, chain), evaluation_identity(task, seed, chain))
        for chain in measured(task.recipe, seed)
    ]
    for folder, identity in wanted:
        try:
            begin(folder, identity, task.overwrite)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError.join(problems)


def run_seed(task: Task, seed: int, say: Say) -> None:
    """All arms of one seed: stages, then evaluation. Finished steps are skipped with a line."""
    base_of: dict[tuple[str, ...], Path] = {(): task.model}
    for chain in prefixes(task.recipe):
        base_of[chain] = _train(task, seed, chain, base_of[chain[:-1]], say)
    for chain in measured(task.recipe, seed):
        _evaluate(task, seed, chain, base_of[chain], say)


def _train(task: Task, seed: int, chain: tuple[str, ...], model: Path, say: Say) -> Path:
    folder, identity = stage_folder(task.run, seed, chain), identity_of(task, seed, chain)
    name = chain_name(chain)
    if begin(folder, identity):
        recorded = (read_json(folder / "done.json") or {}).get("model_digest")
        if recorded != model_digest(folder / "model"):
            raise UserError(
                f"{folder}/model: changed since the stage ended; restore it, or remove {folder} "
                "to train it again"
            )
        say(f"{name}: done already, skipped")
        return folder / "model"
    seconds = 0.0
    if read_json(folder / STAGE) is None:
        resumed = any((folder / "checkpoints").glob("checkpoint-*"))
        say(f"{name}: {'resumes' if resumed else 'starts'}")
        start = time.time()
        stage = task.recipe.stages[chain[-1]]
        ours = {"base": task.model, "replay": task.replay}
        run_stage(task.recipe, stage, model, task.data, folder, seed, **ours)
        seconds = time.time() - start
        if read_json(folder / STAGE) is None:
            raise RuntimeError(f"{folder}: the stage returned without its {STAGE}")
    # A stage that was stopped between its record and its end has left them.
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    check_model_folder(folder / "model")
    result = {"model_digest": model_digest(folder / "model"), "seconds": round(seconds, 1)}
    finish(folder, identity, result)
    made = "made" if isinstance(task.recipe.stages[chain[-1]], InterpolateConfig) else "trained"
    say(f"{name}: {made} in {minutes(seconds)}{_progress(folder)}")
    return folder / "model"


def _progress(folder: Path) -> str:
    """How far the loss, or in RL the policy-free accuracy, went from the first to the last log."""
    rows = read_metrics(folder)
    for key, name in (("rollout/free/accuracy", "accuracy without policy"), ("loss", "loss")):
        values = [row[key] for row in rows if row.get(key) is not None]
        if values:
            return f", {name} {values[0]:.3g} -> {values[-1]:.3g}"
    return ""


def _evaluate(task: Task, seed: int, chain: tuple[str, ...], model: Path, say: Say) -> None:
    folder = eval_folder(task.run, seed, chain)
    identity = evaluation_identity(task, seed, chain)
    name = f"evaluate {chain_name(chain)}"
    grader = make_grader(task.recipe.grader, "grader")
    if begin(folder, identity, task.overwrite):
        analysis = task.recipe.evaluation.diagnose
        diagnose = analysis and resolve_callable(analysis, "evaluation.diagnose")
        differs = resolve_callable("trimpi.evaluate.runner:graded_otherwise", "evaluation")
        if other := differs(folder, grader, diagnose):
            resolve_callable("trimpi.evaluate.runner:regrade", "evaluation")(
                folder, grader, diagnose
            )
            say(f"{name}: {', '.join(other)} had scores of another grader, graded again")
        else:
            say(f"{name}: done already, skipped")
        if "referral" in task.recipe.evaluation.settings:
            judged = resolve_callable("trimpi.evaluate.referral.setting:refer", "evaluation")(
                folder, task.recipe, DataFolder(task.data)
            )
            say(f"{name}: referral by {judged['judge']}, {_referral(judged)}")
        return
    say(f"{name}: starts")
    quiet()
    evaluate = resolve_callable("trimpi.evaluate.runner:evaluate_model", "evaluation")
    skills = None if task.skills is None else DataFolder(task.skills)
    start = time.time()
    data = DataFolder(task.data)
    with disk_faults_named(
        name, folder, lambda: "answers so far are kept, the same command goes on"
    ):
        summary = evaluate(model, asked(task.recipe, chain), data, skills, folder, grader, seed)
        finish(folder, identity, {"summary": summary, "seconds": round(time.time() - start, 1)})
        what = f"eval-{chain_name(chain)}"
        log_evaluation(tracking_of(task.recipe, what, seed), folder, summary)
    say(f"{name}: {minutes(time.time() - start)}")


def _referral(judged: dict[str, Any]) -> str:
    mean = judged["score"]["value"]
    unscored = ""
    if judged["unscored"]:
        why = ", ".join(f"{note}: {count}" for note, count in list(judged["notes"].items())[:3])
        unscored = f", {judged['unscored']} unscored ({why})"
    return ("no scores" if mean is None else f"mean {mean:.2f} of 10") + unscored


def alone_in(run: Path) -> AbstractContextManager[None]:
    """One run at a time in a folder."""
    busy = "another run works in this folder; wait for it, or choose --output"
    return held(run / ".lock", run, busy, "choose another --output")
