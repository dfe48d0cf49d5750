"""Between base and trained model: an average of weights, no training (`trimpi.interpolate`)."""

import time
from dataclasses import asdict
from pathlib import Path

from trimpi.interpolate import interpolate
from trimpi.recipe import InterpolateConfig
from trimpi.runs import STAGE, model_digest, versions, write_json
from trimpi.stages.inputs import StageInputs


def run(config: InterpolateConfig, inputs: StageInputs) -> Path:
    """Leave the model folder between the recipe's base and the model that enters.

    Returns:
        `inputs.output / "model"`.

    Raises:
        UserError: the two are not of one architecture.
    """
    started, folder = time.time(), inputs.output / "model"
    if (inputs.output / STAGE).is_file():
        return folder
    if inputs.base is None:
        raise ValueError("an interpolation needs the model that the recipe starts from")
    moved = interpolate(inputs.base, inputs.model, config.weight, folder)
    write_json(
        inputs.output / STAGE,
        {
            "stage": config.kind,
            "config": config.model_dump(mode="json"),
            "model": {"path": str(inputs.model), "digest": model_digest(inputs.model)},
            "base": {"path": str(inputs.base), "digest": model_digest(inputs.base)},
            "output_digest": model_digest(folder),
            "seed": inputs.seed,
            **asdict(moved),
            # For the sums of an arm: averaging trains nothing.
            **{"steps": 0, "sequences": 0, "tokens_trained": 0},
            "seconds": round(time.time() - started, 1),
            "versions": versions(),
        },
    )
    return folder
