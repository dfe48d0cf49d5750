"""The dry run: everything about a recipe that can be known without loading weights."""

import inspect
from pathlib import Path

from trimpi.data_checks import built_data, check_data, rows_of, text_rows
from trimpi.errors import UserError
from trimpi.findings import Findings, StagePlan
from trimpi.graders import make_grader
from trimpi.grading import Grader
from trimpi.machine_checks import check_machine
from trimpi.model_folder import check_model_folder
from trimpi.model_source import Unreachable, locate
from trimpi.quiet import quiet
from trimpi.recipe import Recipe, RolloutConfig
from trimpi.recipe_estimate import fill_estimates
from trimpi.resolve import resolve_callable
from trimpi.row_checks import SPLIT_OF, check_replay, check_rows
from trimpi.schedule import plan_schedule
from trimpi.trainer_fields import rl_conflicts, trainer_problems


def check_recipe(
    recipe: Recipe, run: Path, estimates: bool = True, overwrite: bool = False
) -> Findings:
    """Check names, model folder, data, stages; with `estimates` also tokens and memory.

    Args:
        recipe: local paths absolute.
        run: the run folder, whose data are looked at where they are built already.
        estimates: count tokens of real rows (a small data set is built in a temporary folder
            where there is none yet) and estimate memory. Imports torch, loads no weights.
        overwrite: the run sets data of other arguments aside and builds its own.

    Returns:
        All findings; `problems` is empty when the recipe can run.
    """
    found = Findings()
    grader = _check_grader(recipe, found)
    _check_diagnose(recipe, found)
    model = _check_model(recipe, estimates, found)
    data = check_data(recipe.data, "data", run / "data", found, overwrite)
    if (config := recipe.evaluation.skills) is not None:
        check_data(config, "evaluation.skills", run / "skills", found, overwrite)
    if recipe.replay is not None:
        replay = check_data(recipe.replay, "replay", run / "replay", found, overwrite)
        if replay is not None:
            with found.noting():
                check_replay(
                    recipe, replay, data, built_data(recipe.evaluation.skills, run / "skills")
                )
    _check_evaluation(recipe, found)
    if any(stage.trainer for stage in recipe.trained.values()):
        quiet()  # the fields are TRL's, which imports bitsandbytes
    found.problems += trainer_problems(recipe.trained)
    for name, stage in recipe.trained.items():
        if isinstance(stage, RolloutConfig):
            found.problems += rl_conflicts(stage, recipe.model, f"stages.{name}", recipe.devices)
    check_machine(recipe, estimates, found)
    for name, stage in recipe.trained.items():
        with found.noting():
            rows = rows_of(found.rows.get("data"), stage.split, f"stages.{name}.split")
            if isinstance(stage, RolloutConfig) and stage.validation is not None:
                key = f"stages.{name}.validation.split"
                rows_of(found.rows.get("data"), stage.validation.split, key)
            texts = text_rows(found.rows.get("data"), stage, f"stages.{name}.texts")
            if rows is not None:
                schedule = plan_schedule(stage, rows, recipe.devices, f"stages.{name}", texts)
                found.stages.append(StagePlan(name, schedule))
    if data is not None:
        # Pictures of a folder that the recipe built were whole then; opening all takes minutes.
        pictures = estimates or recipe.data.folder is not None
        with found.noting():
            check_rows(recipe, data, pictures, grader)
            told = resolve_callable("trimpi.evaluate.referral.setting:referral_notes", "evaluation")
            found.notes += told(recipe, data)
    if estimates and model is not None and not found.problems:
        with found.noting():
            replay = built_data(recipe.replay, run / "replay")
            fill_estimates(recipe, model, data, replay, grader, found)
    if estimates and model is not None and data is not None and not found.problems:
        with found.noting():
            check = resolve_callable("trimpi.context:check_context", "model")
            skills = built_data(recipe.evaluation.skills, run / "skills")
            check(recipe, model, data, skills, built_data(recipe.replay, run / "replay"))
    return found


def _check_grader(recipe: Recipe, found: Findings) -> Grader | None:
    """The grader; None where it cannot be used, which is noted."""
    with found.noting():
        grader = make_grader(recipe.grader, "grader")
        grader.check()
        return grader
    return None


def _check_diagnose(recipe: Recipe, found: Findings) -> None:
    key, name = "evaluation.diagnose", recipe.evaluation.diagnose
    if name is None:
        return
    with found.noting():
        function = resolve_callable(name, key)
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise UserError(
                f"{key}: {name!r} cannot be called with (sample, completion): {error}"
            ) from None
        if callable(check := getattr(function, "check", None)):
            check()


def _check_model(recipe: Recipe, need_processor: bool, found: Findings) -> Path | None:
    try:
        model = locate(recipe.model, weights=False)
        if Path(recipe.model.path).is_absolute() or recipe.model.path.startswith("package:"):
            check_model_folder(model)
        if need_processor:
            resolve_callable("trimpi.processor:load_processor", "model")(model, recipe.model)
        return model
    except Unreachable as error:
        found.unchecked.append(str(error))
    except UserError as error:
        found.problems += [
            line if line.startswith("model") else f"model.path: {line}"
            for line in str(error).splitlines()
        ]
    return None


def _check_evaluation(recipe: Recipe, found: Findings) -> None:
    evaluation = recipe.evaluation
    for key, settings in SPLIT_OF.items():
        if settings & set(evaluation.settings):
            with found.noting():
                split = getattr(evaluation, key)
                rows_of(found.rows.get("data"), split, f"evaluation.{key}")
    if "referral" in evaluation.settings:
        with found.noting():
            make = resolve_callable("trimpi.evaluate.referral.make:make_judge", "evaluation")
            make(evaluation.referral)
