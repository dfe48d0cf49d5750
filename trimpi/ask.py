"""One request to a model: what `trimpi ask` does. Imports torch when it answers, not before."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from trimpi.errors import UserError
from trimpi.model_folder import check_model_folder
from trimpi.model_source import PACKAGE, locate
from trimpi.picture_file import MOST_PIXELS, PICTURE_ERRORS
from trimpi.policy import Policy
from trimpi.policy_file import read_policy_file
from trimpi.prompt import Target, build_messages, parse_response
from trimpi.recipe import ModelConfig
from trimpi.recipe_rules import did_you_mean
from trimpi.runs import read_json
from trimpi.sample import Sample, read_record

if TYPE_CHECKING:
    from trimpi.generate import Generator


@dataclass(frozen=True)
class Answer:
    """A completion taken apart. `prompt_tokens` is None where the back end does not count them."""

    text: str
    rationale: str | None
    answer: str | None
    tokens: int
    truncated: bool
    prompt_tokens: int | None


def answer(
    model: str,
    query: str,
    images: Sequence[Path] = (),
    policy: Policy | None = None,
    *,
    target: Target = "cot",
    arm: str | None = None,
    seed: int | None = None,
    max_new_tokens: int = 512,
    config: ModelConfig | None = None,
    generator: "Generator | None" = None,
) -> Answer:
    """Put one request to a model, greedily, in the form that it was trained on.

    Args:
        model: a model folder, a hub id, `package://...`, or a run folder.
        query: the request, without the line that asks for a format.
        images: pictures of the request.
        policy: what to show in context; None asks what the model knows by itself.
        target: "cot" (reasoning, then the answer) or "answer".
        arm: of a run folder; None is its only trained arm.
        seed: of a run folder with several; None is its first.
        max_new_tokens: most tokens of the completion.
        config: how to load the model (precision, bound of pixels); None loads it as it is, and
            that of a run as its recipe says.
        generator: answers in place of the model, for tests.

    Raises:
        UserError: no such model, arm or picture, an empty query, or a prompt beyond the context.
    """
    if not query.strip():
        raise UserError("QUERY: it is empty; say what to ask, or give - and write it to the input")
    problems = [problem for image in images if (problem := image_fault(image))]
    if problems:
        raise UserError.join(problems)
    config = _config(model, arm, seed, config)
    folder = locate(config, "MODEL")
    check_model_folder(folder)
    sample = Sample("", tuple(str(Path(i).absolute()) for i in images), query, None, "")
    messages = build_messages(sample, policy, target)
    prompt_tokens = None
    if generator is None:
        from trimpi.batch import encode_text
        from trimpi.generate import TransformersGenerator
        from trimpi.model import load_model
        from trimpi.processor import load_processor
        from trimpi.quiet import quiet

        quiet()
        processor = load_processor(folder, config)
        prompt_tokens = len(encode_text(processor, messages).input_ids)
        generator = TransformersGenerator(load_model(folder, config), processor, 1, progress=False)
    (said,) = generator([messages], max_new_tokens=max_new_tokens)
    response = parse_response(said.text, target)
    return Answer(
        said.text, response.rationale, response.answer, said.tokens, said.truncated, prompt_tokens
    )


def read_policy(file: Path) -> Policy:
    """A policy from Markdown, or from `policies/<id>.json` of a data folder.

    Raises:
        UserError: as the reader of either form does.
    """
    if file.suffix != ".json":
        return read_policy_file(file)
    if not file.is_file():
        raise UserError(f"{file}: no such policy file; check the path")
    root = next((parent.parent for parent in file.parents if parent.name == "policies"), None)
    record = read_record(file, "restore the file, or give a Markdown policy")
    return Policy.from_json(record, (root or file.parent).resolve(), str(file))


def to_json(said: Answer) -> str:
    """An answer as one JSON object."""
    return json.dumps(vars(said), ensure_ascii=False, indent=1)


def image_fault(image: Path) -> str:
    """What is wrong with a picture of the command line; empty where nothing is."""
    if not Path(image).is_file():
        return f"--image {image}: no such file; check the path"
    try:
        with Image.open(image) as picture:
            if picture.width * picture.height > MOST_PIXELS:
                size = f"{picture.width} x {picture.height}"
                most = f"more than {MOST_PIXELS // 10**6} megapixels"
                return f"--image {image}: {size} pixels are {most}; scale it down"
            picture.load()
    except PICTURE_ERRORS as error:
        return f"--image {image}: not a whole picture ({error}); restore it"
    return ""


def _config(
    model: str, arm: str | None, seed: int | None, config: ModelConfig | None
) -> ModelConfig:
    """How to load what `model` names; its path absolute, or a hub id."""
    path = Path(model)
    if (path / "run.json").is_file():
        return _of_run(path, arm, seed, config)
    for option, given in (("--arm", arm), ("--seed", seed)):
        if given is not None:
            raise UserError(f"{option}: {model} is no run folder; leave it out")
    if path.is_dir():
        model = str(path.absolute())
    elif not model.startswith(PACKAGE) and (path.is_absolute() or model.count("/") > 1):
        raise UserError(f"{model}: no such model folder; check the path")
    return (config or ModelConfig(path=model)).model_copy(update={"path": model})


def _of_run(
    run: Path, arm: str | None, seed: int | None, config: ModelConfig | None
) -> ModelConfig:
    found = trained_models(run)
    arms = list(dict.fromkeys(name for name, _ in found))
    if not arms:
        raise UserError(f"{run}: no trained model in this run; `trimpi run` its recipe first")
    if arm is None:
        if len(arms) > 1:
            raise UserError(f"--arm: the run has {', '.join(arms)}; name one")
        arm = arms[0]
    if arm not in arms:
        raise UserError(f"--arm {arm}: no trained arm of that name; {did_you_mean(arm, arms)}")
    seeds = [s for name, s in found if name == arm]
    if seed is not None and seed not in seeds:
        raise UserError(f"--seed {seed}: arm {arm} is trained with {', '.join(map(str, seeds))}")
    chosen = found[arm, seeds[0] if seed is None else seed]
    recipe = _recipe(run)
    loading = config or ModelConfig.model_validate({"path": "-", **recipe.get("model", {})})
    return loading.model_copy(update={"path": str(chosen.absolute()), "revision": None})


def trained_models(run: Path) -> dict[tuple[str, int], Path]:
    """Model folders of a run by arm and seed; arms that are not wholly trained are left out."""
    from trimpi.runs import stage_folder

    recipe = _recipe(run)
    arms = recipe.get("arms") or {"main": list(recipe.get("stages") or {})}
    seeds = recipe.get("seeds") or [recipe.get("seed", 0)]
    found = {}
    for arm, chain in arms.items():
        for seed in seeds:
            folder = stage_folder(run, seed, chain)
            if chain and read_json(folder / "done.json") is not None:
                found[arm, seed] = folder / "model"
    return found


def _recipe(run: Path) -> dict:  # type: ignore[type-arg]
    import yaml

    try:
        found = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{run / 'recipe.yaml'}: cannot be read ({error}); restore it") from None
    return found if isinstance(found, dict) else {}
