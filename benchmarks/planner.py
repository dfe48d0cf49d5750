"""The planner's estimates beside peaks that the kernel measures, stage by stage, on a CPU.

    python benchmarks/planner.py                  # all cases, about 10 minutes on one core
    python benchmarks/planner.py --cases cpt sft

A Qwen2.5-VL of random weights (32 M parameters, vocabulary 32768) takes two updates of a stage in a
process of its own. That process first runs the same stage on the tiny model that ships, so that
libraries are loaded; then the kernel's peak is set back and read again when training ends, before
the model is saved and loaded again. Linux alone can do that.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TINY = ROOT / "trimpi" / "models" / "tiny-vlm"
RECIPE = ROOT / "recipes" / "quickstart.yaml"
SMALL = {"train": 24, "train_cot": 8, "test": 2, "override": 2, "policies": 1}
CASES: dict[str, tuple[str, list[str]]] = {
    "cpt": ("cpt", []),
    "cpt, micro batch 8": ("cpt", ["micro_batch_size=8"]),
    "cpt, checkpointing": ("cpt", ["micro_batch_size=8", "gradient_checkpointing=true"]),
    "cpt, adafactor": ("cpt", ["trainer.optim=adafactor"]),
    "sft, micro batch 8": ("sft", ["lora=null", "micro_batch_size=8"]),
    "sft, LoRA": ("sft", ["lora={r: 8}", "micro_batch_size=8"]),
    "sft, LoRA on nf4": ("sft", ["lora={r: 8}", "micro_batch_size=8", "nf4"]),
    "rl, beta 0.01": ("rl", ["prompts_per_step=4", "micro_batch_size=4", "beta=0.01"]),
    "rl, LoRA": ("rl", ["prompts_per_step=4", "micro_batch_size=4", "beta=0.01", "lora={r: 8}"]),
    "rl, many rollouts": (
        "rl",
        ["prompts_per_step=24", "micro_batch_size=1", "lora={r: 8}", "gradient_checkpointing=true"],
    ),
}
"""Name -> stage and its overrides."""


def larger_model(folder: Path) -> Path:
    """The tiny model's classes and processor around more and wider layers, weights random."""
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    from trimpi.processor import load_processor
    from trimpi.recipe import ModelConfig

    config = AutoConfig.from_pretrained(TINY)
    text = config.text_config
    width = text.hidden_size // text.num_attention_heads
    text.hidden_size, text.intermediate_size, text.num_hidden_layers = 384, 1536, 8
    text.num_attention_heads = text.num_key_value_heads = 384 // width
    if text.layer_types is not None:
        text.layer_types = [text.layer_types[0]] * 8
    text.vocab_size, config.vision_config.out_hidden_size = 32768, 384
    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config).save_pretrained(folder)
    load_processor(TINY, ModelConfig(path=str(TINY))).save_pretrained(folder)
    return folder


def case(name: str, model: Path, work: Path) -> dict[str, Any]:
    """Estimate and measure one case; sizes in MiB."""
    from trimpi.checks import check_recipe
    from trimpi.recipe_file import load_recipe

    stage, changes = CASES[name]
    sets = [f"data.args.{key}={value}" for key, value in SMALL.items()]
    sets += [f"model.path={model}", f"stages.{stage}.max_steps=2"]
    if stage != "rl":
        sets += [f"stages.{stage}.batch_size=8", f"stages.{stage}.micro_batch_size=2"]
    sets += ["model.quantization=nf4" if c == "nf4" else f"stages.{stage}.{c}" for c in changes]
    sets += ["arms=null", "evaluation.targets={}"]
    if "nf4" in changes:
        sets += [f"stages.{other}.lora={{r: 8}}" for other in ("cpt", "rl")]
    recipe = load_recipe(RECIPE, sets)
    found = check_recipe(recipe, work / "run")
    found.stop_if_faulty()
    plan = next(p for p in found.stages if p.name == stage)
    job = {
        "stage": recipe.stages[stage].model_dump(mode="json"),
        "model_config": recipe.model.model_dump(mode="json"),
        "grader": recipe.model_dump(mode="json")["grader"],
        "data": str(work / "data"),
        "model": str(model),
        "output": str(work / "out"),
        "seed": 0,
        "base": None,
        "replay": None,
    }
    file = work / "job.json"
    file.write_text(json.dumps(job))
    command = [sys.executable, __file__, "--job", str(file)]
    # glibc would keep freed blocks of less than 32 MiB for itself, and they would count.
    returned = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "65536")
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | returned, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    measured = float(done.stdout.splitlines()[-1])
    parts = {key: round(value * 1024, 1) for key, value in plan.memory.items()}
    return {"estimate": parts.pop("total"), "measured": round(measured, 1), "parts": parts}


def measure(job: Mapping[str, Any]) -> float:
    """Run a job in this process; MiB from its start to its peak in training."""
    from trimpi.launch import run_job
    from trimpi.resolve import resolve

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt  # training is over; what follows is not measured

    for module in ("trimpi.stages.supervised", "trimpi.stages.rl"):
        resolve(f"{module}:finish_stage", "stage")
        sys.modules[module].finish_stage = stop  # type: ignore[attr-defined]
    out = Path(job["output"])
    for name, model in (("warm", str(TINY)), ("measured", job["model"])):
        gc.collect()
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        try:
            run_job({**job, "model": model, "output": str(out / name)})
        except KeyboardInterrupt:
            peak = resident("VmHWM") - before
    return peak / 2**20


def resident(key: str) -> int:
    """Bytes of this process in memory, now (VmRSS) or at most (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) * 1024


def main() -> None:
    """Print one line a case: estimate, measured peak, their ratio, and the parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="names or their beginnings")
    parser.add_argument("--job", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job is not None:
        print(measure(json.loads(given.job.read_text())))
        return
    from datasets_builders.clevr import builder
    from trimpi.recipe_file import load_recipe

    chosen = [name for name in CASES if any(name.startswith(part) for part in given.cases)]
    with tempfile.TemporaryDirectory() as folder:
        model = larger_model(Path(folder) / "model")
        arguments = {**load_recipe(RECIPE).data.args, **SMALL}
        builder.build(Path(folder) / "data", seed=0, progress=False, **arguments)
        print("| case | estimate, MiB | measured, MiB | estimate / measured | parts |")
        print("|---|---|---|---|---|")
        for number, name in enumerate(chosen):
            work = Path(folder) / str(number)
            work.mkdir()
            (work / "data").symlink_to(Path(folder) / "data")
            row = case(name, model, work)
            parts = ", ".join(f"{key} {value:.0f}" for key, value in row["parts"].items())
            ratio = row["estimate"] / row["measured"]
            print(
                f"| {name} | {row['estimate']:.0f} | {row['measured']:.0f} | {ratio:.2f} | "
                f"{parts} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
