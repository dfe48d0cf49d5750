"""From `evaluation.referral` of a recipe to a judge, without weights and without network."""

import inspect
from collections.abc import Mapping
from typing import Any

from trimpi.errors import UserError
from trimpi.evaluate.referral.exact import ExactJudge
from trimpi.evaluate.referral.judgement import Judge
from trimpi.evaluate.referral.model_judge import ModelJudge
from trimpi.recipe import Recipe, ReferralConfig
from trimpi.recipe_rules import did_you_mean
from trimpi.resolve import bind_problems, resolve_callable

KEY = "evaluation.referral"
MAKERS: Mapping[str, str] = {
    "endpoint": "datasets_builders.endpoint:connect",
    "transformers": "trimpi.local_generator:load",
}
"""Short names of what makes a generator."""


def make_judge(config: ReferralConfig) -> Judge:
    """The judge that a recipe names.

    `exact`; or a function that is called with `args` and makes a generator, which is asked through
    the prompt, or a judge of its own (with `judge` and `identity`, see `Judge`).

    Raises:
        UserError: no such function, arguments that do not fit, or what the function says.
    """
    if config.judge == "exact":
        return ExactJudge()
    name = MAKERS.get(config.judge, config.judge)
    function = resolve_callable(name, f"{KEY}.judge")
    try:
        problems = bind_problems(function, config.args, f"{KEY}.args")
    except (TypeError, ValueError):  # no signature to be had
        problems = []
    if problems:
        raise UserError.join(problems)
    try:
        made = function(**config.args)
    except UserError as error:
        lines = str(error).splitlines()
        raise UserError.join([f"{KEY}.args: {line}" for line in lines]) from None
    except (ImportError, AttributeError, ValueError, TypeError, OSError) as error:
        raise UserError(
            f"{KEY}.judge: {name!r} makes no judge ({type(error).__name__}: {error}); correct its"
            " arguments, or the function"
        ) from None
    if isinstance(made, Judge) and not inspect.isclass(made):
        return made
    if not callable(made):
        raise UserError(
            f"{KEY}.judge: {name!r} made {type(made).__name__}, neither a generator nor a judge;"
            " name a function that makes one"
        )
    told = {"judge": config.judge, "args": dict(config.args)}
    return ModelJudge(made, told, config.max_new_tokens, config.pictures)


def judged_by(recipe: Recipe, model: str, backend: str) -> Recipe:
    """The recipe with the setting `referral`, judged by a model named on the command line.

    Args:
        recipe: its `evaluation.referral` gives limits; judge and arguments are replaced.
        model: as the back end calls it; `exact` is the exact judge.
        backend: `transformers`, `endpoint` or `module:function`, whose first argument the model is.

    Raises:
        UserError: no such back end, or the recipe does not evaluate `no_policy`.
    """
    evaluation = recipe.evaluation
    if "no_policy" not in evaluation.settings:
        raise UserError(
            "--judge: referral judges the completions of 'no_policy'; add that to"
            " evaluation.settings"
        )
    chosen: dict[str, Any] = {"judge": "exact", "args": {}}
    if model != "exact":
        if backend not in MAKERS and ":" not in backend:
            raise UserError(
                f"--judge-backend {backend}: unknown; {did_you_mean(backend, MAKERS)}, or give"
                " module:function"
            )
        function = resolve_callable(MAKERS.get(backend, backend), f"--judge-backend {backend}")
        parameters = list(inspect.signature(function).parameters)
        if not parameters:
            raise UserError(f"--judge-backend {backend}: takes no model; name another function")
        kept = evaluation.referral.args if evaluation.referral.judge == backend else {}
        chosen = {"judge": backend, "args": {**kept, parameters[0]: model}}
    settings = tuple(dict.fromkeys([*evaluation.settings, "referral"]))
    update = {"settings": settings, "referral": evaluation.referral.model_copy(update=chosen)}
    return recipe.model_copy(update={"evaluation": evaluation.model_copy(update=update)})
