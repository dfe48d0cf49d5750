"""Memory and time of the recipes for real hardware, estimated from sizes alone.

    python benchmarks/paper_scale.py    # the recipes in recipes/clevr, baselines and gta

Parameters: Qwen2.5-VL's published configuration, layers made without memory. Policy tokens: the
builder's own policies, cut by the pattern by which Qwen's tokenizer pre-splits text (a word, a
digit, a run of punctuation), a few percent short on made-up names. A picture of 480x320 takes 17 x
11 = 187 tokens, a crop about 10; others a token for each 28 x 28. Memory per GPU: `trimpi.memory`,
plus the share that vLLM reserves. Time on H100 SXM: 6 FLOPs per parameter and token for training
(8 with gradient checkpointing, 6 so under LoRA), 2 for a forward pass, at 35% of 989 TFLOP/s;
generation of gold targets' length by vLLM at 4,000 tokens a second and GPU for 7B, 8,000 for 3B,
by transformers at a quarter of that. These rates are assumptions: nothing here was measured.
"""

import json
import math
import re
import sys
import tempfile
from functools import cache
from pathlib import Path
from statistics import mean

import torch
from PIL import Image
from transformers import Qwen2_5_VLConfig

from datasets_builders.clevr import builder as clevr
from datasets_builders.gta import builder as gta
from trimpi.memory import GIB, ModelSize, estimate, read_size
from trimpi.policy import ImagePart
from trimpi.prompt import INSTRUCTION, render_target
from trimpi.recipe import DistillConfig, OnPolicyDistillConfig, Recipe, RlConfig
from trimpi.recipe_file import load_recipe
from trimpi.sample import DataFolder
from trimpi.schedule import plan_schedule

ROOT = Path(__file__).resolve().parents[1]
PRETOKEN = re.compile(r"[^\r\n\w]?[A-Za-z]+|\d| ?[^\s\w]+[\r\n]*|\s*[\r\n]+|\s+")
PICTURE, TEMPLATE, PATCHES_PER_TOKEN = 187, 30, 4
FLOPS = 0.35 * 989e12
TOKENS_A_SECOND = {"3B": 8000, "7B": 4000}
CARD_GIB = 80

TEXT = {
    "3B": {
        "hidden_size": 2048,
        "num_hidden_layers": 36,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "intermediate_size": 11008,
        "vocab_size": 151936,
    },
    "7B": {
        "hidden_size": 3584,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152064,
    },
}


@cache
def size_of(name: str) -> ModelSize:
    """Sizes of Qwen2.5-VL-3B or -7B."""
    text = {**TEXT[name], "max_position_embeddings": 128000}
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16}
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config={**vision, "out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=name == "3B",
        dtype=torch.bfloat16,
    )
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        return read_size(Path(folder))


def count(text: str) -> int:
    """Tokens of a text, nearly."""
    return len(PRETOKEN.findall(text))


@cache
def lengths_of(args: str) -> tuple[int, int, int]:
    """Tokens of (longest policy, prompt without it, longest gold target) of ClevrPolicy data."""
    few = {"policies": 10, "train": None, "train_cot": 4, "test": None, "override": None}
    with tempfile.TemporaryDirectory() as folder:
        arguments = {**json.loads(args), **few, "width": 96, "height": 64}
        data = clevr.build(Path(folder) / "data", seed=0, progress=False, **arguments)
        policy, query, target = _texts(data)
    return policy, query + PICTURE, target


@cache
def gta_lengths(args: str) -> tuple[int, int, int]:
    """The same of GTAPolicy data, with the pictures as they are."""
    with tempfile.TemporaryDirectory() as folder:
        data = gta.build(Path(folder) / "data", seed=0, **json.loads(args))
        policy, query, target = _texts(data)
        pictures = mean(sum(map(_visual, s.images)) for s in data.read("train_cot"))
    return policy, query + round(pictures), target


def _texts(data: DataFolder) -> tuple[int, int, int]:
    policies = [
        count(policy.text) + sum(10 for part in policy.parts if isinstance(part, ImagePart))
        for policy in data.policies.values()
    ]
    samples = data.read("train_cot")
    query = mean(count(f"{s.query}\n{INSTRUCTION['cot']}") for s in samples)
    target = max(count(render_target(s, "cot")) for s in samples)
    return max(policies), round(query) + TEMPLATE, target


def _visual(file: str) -> int:
    with Image.open(file) as picture:
        return math.prod(math.ceil(side / 28) for side in picture.size)


def lines_of(recipe: Recipe) -> list[str]:
    """The estimate of one recipe as lines of text."""
    name = "7B" if "7B" in recipe.model.path else "3B"
    size = size_of(name)
    args = dict(recipe.data.args)
    of_clevr = recipe.data.builder == clevr.BUILDER
    policy, prompt, target = (lengths_of if of_clevr else gta_lengths)(json.dumps(args))
    rows = (clevr if of_clevr else gta).plan(seed=recipe.data.seed, **args)["splits"]
    lines = [f"policy about {policy} tokens, prompt without it {prompt}, gold target {target}"]
    for stage_name, stage in recipe.stages.items():
        schedule = plan_schedule(stage, rows[stage.split], recipe.devices)
        if isinstance(stage, RlConfig):
            training = prompt + stage.max_new_tokens
            generation = prompt + stage.max_new_tokens + (policy if stage.policy_fraction else 0)
            completions = schedule.updates * stage.batch_size
            trained = completions * (prompt + target)
            seconds = completions * target / (TOKENS_A_SECOND[name] * recipe.devices)
            seconds += passes(size, trained, (8 + 2 + 2) * 1.0) / recipe.devices
            if stage.teacher is not None:  # a pass of the policy-free rows with the policy
                seen = completions * (1 - stage.policy_fraction) * (policy + prompt + target)
                seconds += passes(size, seen, 2) / recipe.devices
        elif isinstance(stage, DistillConfig):
            training = prompt + stage.max_new_tokens
            generation = policy + training
            answers = min(rows[stage.split], stage.limit or rows[stage.split]) * stage.rollouts
            trained = schedule.updates * stage.batch_size * (prompt + target)
            rate = TOKENS_A_SECOND[name] / 4 * recipe.devices
            seconds = answers * target / rate
            seconds += passes(size, answers * (policy + prompt), 2) / recipe.devices
            cost = 8 if stage.lora is None else 6
            seconds += passes(size, trained, cost) / recipe.devices
            if stage.loss == "forward_kl":  # the teacher's pass over the policy as well
                seen = schedule.updates * stage.batch_size * (policy + prompt + target)
                seconds += passes(size, seen, 2) / recipe.devices
        elif isinstance(stage, OnPolicyDistillConfig):
            training = prompt + stage.max_new_tokens
            generation = policy + training
            completions = schedule.updates * stage.batch_size
            seconds = completions * target / (TOKENS_A_SECOND[name] / 4 * recipe.devices)
            cost = 8 if stage.lora is None else 6
            trained = completions * (prompt + target)
            seconds += passes(size, trained, cost) / recipe.devices
            seconds += passes(size, trained + completions * policy, 2) / recipe.devices
        else:
            shown = policy if stage.kind == "cpt" or getattr(stage, "show_policy", False) else 0
            training, generation = shown + prompt + target, 0
            fades = getattr(stage, "show_policy", False) == "fading"  # half of it in the mean
            mean_length = training - (shown / 2 if fades else 0)
            trained = schedule.updates * stage.batch_size * mean_length
            cost = 8 if stage.lora is None else 6
            seconds = passes(size, trained, cost) / recipe.devices
        sizes = (training, generation, recipe.devices)
        memory = estimate(size, recipe.model, stage, *sizes, card=CARD_GIB * GIB)["total"]
        lines.append(
            f"{stage_name}: {schedule.updates} updates, about {memory:.0f} GiB per GPU, "
            f"{_duration(seconds)} on {recipe.devices} x H100"
        )
    if not recipe.stages:
        weights = size.parameters * 2 / 2**30
        lines.append(f"evaluation alone: about {weights + 4:.0f} GiB on one GPU")
    return lines


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 3600 else f"{max(1, round(seconds / 60))} min"


def passes(size: ModelSize, tokens: float, cost: float) -> float:
    """Seconds on one GPU for `cost` FLOPs per parameter and token, vision tower included."""
    language = size.parameters - size.vision_parameters
    patches = size.vision_parameters * PICTURE * PATCHES_PER_TOKEN / (PICTURE + TEMPLATE + 100)
    return cost * (language + patches) * tokens / FLOPS


def main() -> None:
    """Print the estimates as JSON: recipe path -> lines."""
    files = [
        f
        for part in ("clevr", "baselines", "gta")
        for f in (ROOT / "recipes" / part).glob("*.yaml")
    ]
    files = [file for file in files if file.stem != "tiny"]
    found = {
        file.relative_to(ROOT / "recipes").as_posix(): lines_of(load_recipe(file))
        for file in sorted(files)
    }
    json.dump(found, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
