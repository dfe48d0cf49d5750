"""A made-up GTA folder, and a run on GTAPolicy of pretended models: for tests of the report."""

import json
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from datasets_builders.gta.builder import build
from datasets_builders.gta.grader import grade
from tests.evaluation_fakes import FakePrefill, FakeServer, Scripted, prompt_text
from tests.fake_run import CHAINS, write_stage
from trimpi.evaluate import evaluate_model
from trimpi.prompt import Message
from trimpi.recipe import Recipe
from trimpi.recipe_file import dump_recipe
from trimpi.runs import eval_folder, stage_folder, versions, write_json, write_text
from trimpi.sample import DataFolder, Sample

TOOLS: dict[str, list[tuple[str, str, Any]]] = {
    "OCR": [("image", "image", None)],
    "MathOCR": [("image", "image", None)],
    "Calculator": [("expression", "text", None)],
    "GoogleSearch": [("query", "text", None), ("k", "int", 10)],
    "ImageDescription": [("image", "image", None)],
    "TextToBbox": [("image", "image", None), ("text", "text", None), ("top1", "bool", True)],
    "RegionAttributeDescription": [
        ("image", "image", None), ("bbox", "text", None), ("attribute", "text", None),
    ],
    "CountGivenObject": [("image", "image", None), ("text", "text", None)],
    "TextToImage": [("keywords", "text", None)],
    "ImageStylization": [("image", "image", None), ("instruction", "text", None)],
}  # fmt: skip
ASKED = (
    "The receipt says what each of us had. If the two of us share the bill and leave 10 percent,"
    " what does each pay?",
    "How many eggs of this kind do I need for twelve people, at two each?",
    "What colour is the hat of the man on the left of the picture?",
    "Which dish on this menu comes from the region where the author of the poem on the wall was"
    " born?",
    "Make a poster of the scene and turn it into a water colour.",
)


def called(name: str, result: str, **arguments: Any) -> list[dict[str, Any]]:
    """A call and its result, as turns of a GTA dialogue."""
    function = {"name": name, "arguments": arguments}
    return [
        {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
        {"role": "tool", "name": name, "content": {"type": "text", "content": result}},
    ]


def gta_source(root: Path, tasks: int, pictures: Sequence[Path] = ()) -> Path:
    """A GTA folder of `tasks` tasks, every fourth with two pictures.

    Its pictures are copies of `pictures`, which take turns, with the task's number at the end of
    the file so that no two tasks share one; without any they are blank.
    """
    (root / "image").mkdir(parents=True)
    meta = {}
    for name, inputs in TOOLS.items():
        rows = [
            {"name": n, "type": t, "optional": d is not None, "default": d} for n, t, d in inputs
        ]
        meta[name] = {"name": name, "description": f"Does {name}.", "inputs": rows}
    write_json(root / "toolmeta.json", meta)
    content: dict[str, Any] = {}
    for number in range(tasks):
        names = [f"image/{number}.jpg", *([f"image/{number}b.jpg"] if number % 4 == 3 else [])]
        for place, name in enumerate(names):
            if pictures:
                shutil.copyfile(pictures[(number + place) % len(pictures)], root / name)
                with (root / name).open("ab") as stream:
                    stream.write(f"{number}/{place}".encode())
            else:
                colour = (7 * number % 256, 90 + place, 10)
                Image.new("RGB", (16, 16), colour).save(root / name)
        one = names[0]
        kind = number % len(ASKED)
        turns = [
            called("OCR", "Coffee 4.20, Cake 3.80\nTotal 8.00", image=one)
            + called("Calculator", "4.4", expression="8*1.1/2"),
            called("CountGivenObject", "10", image=one, text="egg")
            + called("Calculator", "2.4", expression="12*2/10"),
            called("TextToBbox", "(1, 2, 3, 4)", image=one, text="hat of the man on the left")
            + called("RegionAttributeDescription", "red", image=one, bbox="(1, 2, 3, 4)",
                     attribute="color"),
            called("GoogleSearch", "Sichuan", query="birthplace of the poet Li Bai"),
            called("TextToImage", "a picture", keywords="poster of a street at night")
            + called("ImageStylization", "a picture", image=one, instruction="water colour"),
        ][kind]  # fmt: skip
        content[str(number)] = {
            "tools": [],
            "files": [{"type": "image", "path": name} for name in names],
            "dialogs": [{"role": "user", "content": ASKED[kind]}, *turns],
            "gt_answer": {"whitelist": [["x"]]} if number % 2 else None,
        }
    write_json(root / "dataset.json", content)
    return root


@dataclass(frozen=True)
class Caller:
    """How good a pretended model is at calls: chances of doing each thing right."""

    version: float
    unaided: float | None = None
    """The version without the policy in the prompt; None: internalized, no difference."""
    tool: float = 0.95
    argument: float = 0.9
    form: float = 0.97
    cite: float = 0.9


CALLERS = {
    "base": Caller(0.6, 0.2, tool=0.85, argument=0.75, form=0.9, cite=0.5),
    "cot_sft": Caller(0.55, argument=0.85),
    "trimpi": Caller(0.9),
}


def pretend_calls(caller: Caller, data: DataFolder, seed: int) -> Callable[[list[Message]], str]:
    """Answers of a model of this skill, a function of the prompt and the seed alone."""
    asked = {
        (split == "override", sample.query): sample
        for split in ("test", "override")
        for sample in data.read(split)
    }
    other = data.policies["override/velkar"].text

    def answer(messages: list[Message]) -> str:
        text = prompt_text(messages)
        query = messages[0]["content"][-1]["text"].rsplit("\n", 1)[0]
        known = "Rules for versions" in text or caller.unaided is None
        chance = caller.version if known else caller.unaided or 0.0
        rng = random.Random(f"{seed}/{text}")
        return _call(rng, caller, chance, asked[text.startswith(other), query])

    return answer


def _call(rng: random.Random, caller: Caller, chance: float, sample: Sample) -> str:
    call = json.loads(sample.answer)
    reasons = sample.rationale or ""
    tool = sample.facts["tool"]
    if rng.random() > caller.form:
        return f"<think> {reasons} </think> I would use {tool} here."
    if call["name"] != tool and rng.random() > chance:
        right = call["name"].rpartition("_v")[2]
        wrong = rng.choice([n for n in "12345" if n != right])
        call["name"] = f"{tool}_v{wrong}"
        reasons = re.sub(rf"{tool}\.\d", f"{tool}.{wrong}", reasons)
        reasons = reasons.replace(f"{tool}_v{right}", f"{tool}_v{wrong}")
    elif rng.random() > caller.cite:
        reasons = re.sub(rf"{tool}\.\d", f"{tool}.1", reasons)
    if rng.random() > caller.tool:
        call = {"name": "ImageDescription_v1", "arguments": {"image": "image/0.jpg"}}
    elif call["arguments"] and rng.random() > caller.argument:
        name = rng.choice(sorted(call["arguments"]))
        if rng.random() < 0.4:
            del call["arguments"][name]
        elif isinstance(call["arguments"][name], str):
            call["arguments"][name] = call["arguments"][name][3:] + " or so"
        else:
            call["arguments"][name] = 10
    return f"<think> {reasons} </think> \\boxed{{{json.dumps(call)}}}"


def fake_gta_run(
    run: Path, *, seeds: tuple[int, ...] = (0, 1), tasks: int = 20, pictures: Sequence[Path] = ()
) -> Path:
    """Write a run folder on GTAPolicy at `run` and return it: arms `cot_sft` and `trimpi`."""
    source = gta_source(run / "source", tasks, pictures)
    data = build(run / "data", seed=0, source=str(source), test_share=0.5)
    chains = {name: CHAINS[name] for name in CALLERS if name != "base"}
    stages = {"cpt": {"kind": "cpt"}, "sft": {"kind": "sft"}, "poro": {"kind": "rl"}}
    recipe = Recipe.model_validate(
        {
            "name": "gta",
            "description": "Tool calls of pretended models: GTAPolicy.",
            "seeds": list(seeds),
            "model": {"path": "package://trimpi/models/tiny-vlm"},
            "data": {"folder": str(data.root)},
            "grader": "datasets_builders.gta.grader:grade",
            "stages": stages,
            "arms": chains,
            "evaluation": {
                "settings": ["no_policy", "in_context", "override", "efficiency"],
                "diagnose": "datasets_builders.gta.grader:diagnose",
            },
        }
    )
    write_text(run / "recipe.yaml", dump_recipe(recipe))
    write_json(run / "run.json", {"name": recipe.name, "versions": versions(), "seconds": 61.0})
    for seed in seeds:
        for chain in chains.values():
            for end in range(1, len(chain) + 1):
                folder = stage_folder(run, seed, chain[:end])
                if not (folder / "stage.json").is_file():
                    last = chain[end - 1]
                    write_stage(folder, stages[last]["kind"], last == "poro", seed)
        evaluated: dict[str, list[str]] = {"base": []} if seed == seeds[0] else {}
        for arm, chain in {**evaluated, **chains}.items():
            model = run / "models" / f"{arm}-{seed}"
            write_json(model / "config.json", {"arm": arm, "seed": seed})
            evaluate_model(
                model, recipe, data, None, eval_folder(run, seed, chain), grade, seed,
                generator=Scripted(pretend_calls(CALLERS[arm], data, seed)), prefill=FakePrefill(),
                server=FakeServer(),
            )  # fmt: skip
    return run
