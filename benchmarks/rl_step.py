"""Time of an RL step: stock TRL GRPO beside TriMPI's GRPO and PolicyRollout, in one run.

    python benchmarks/rl_step.py --prompts 4 --rounds 5              # two cores, a few minutes
    python benchmarks/rl_step.py --ablate --json rl_step.json       # and with parts turned off

A step is one rollout batch: generation, scoring (old and reference log-probabilities), and losses,
gradients and updates. All arms train the same model on the same rows with the same settings of
TRL's trainer and take turns (A B C A B C), so that whatever else the machine does hits all alike:

- `trl, policy in prompt`: TRL's GRPOTrainer, untouched, on prompts that hold the policy;
- `trl, no policy`: the same on prompts without it;
- `grpo`: TriMPI's trainer with policy_fraction 0;
- `poro`: the same with policy_fraction 0.5.

Two settings: completions of the same number of tokens (no end of a completion is sampled before
--new-tokens), and completions as the model ends them. The data set is a ClevrPolicy built here,
whose depth is the one whose policy is nearest to --policy-tokens.
"""

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import torch
import transformers
import trl
from datasets import Dataset
from trl import GRPOTrainer

from datasets_builders.clevr.builder import build
from datasets_builders.clevr.grader import grade
from trimpi.batch import encode_text
from trimpi.errors import UserError
from trimpi.model import freeze_vision, load_model, load_processor, locate, visual_token_ids
from trimpi.prompt import build_messages
from trimpi.quiet import quiet
from trimpi.recipe import ModelConfig, RlConfig
from trimpi.sample import DataFolder
from trimpi.stages.inputs import StageInputs
from trimpi.stages.rl import build_trainer, make_reward
from trimpi.stages.rl_arguments import grpo_arguments, plan_batches
from trimpi.stages.rollout_rows import RolloutViews, with_pictures

TINY = "package://trimpi/models/tiny-vlm"
STOCK_POLICY, STOCK_FREE, GRPO, PORO = "trl, policy in prompt", "trl, no policy", "grpo", "poro"
ARMS = (STOCK_POLICY, STOCK_FREE, GRPO, PORO)
PARTS: dict[str, dict[str, Any]] = {
    "share_pictures": {"scoring": {"share_pictures": False}},
    "trim_padding": {"scoring": {"trim_padding": False}},
    "deal_rows": {"scoring": {"deal_rows": False}},
    "shared generation": {"generation": "plain"},
}
"""Part -> keys of the stage that turn it off."""
PHASES = ("generation", "scoring", "update")


@dataclass
class Arm:
    """A trainer that makes its steps one at a time, and what they took."""

    name: str
    trainer: Any
    rows: list[dict[str, Any]]
    seconds: dict[str, list[float]] = field(default_factory=lambda: {p: [] for p in PHASES})
    tokens: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        trainer = self.trainer
        self._clock = {"generate": 0.0, "score": 0.0}
        _timed(trainer, "_generate", self._clock, "generate")
        _timed(trainer, "_generate_and_score_completions", self._clock, "score")
        trainer.create_optimizer()
        trainer.model.train()
        trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps

    def step(self, record: bool = True) -> float:
        """One rollout batch and its updates; seconds in all."""
        trainer, args = self.trainer, self.trainer.args
        self._clock.update(generate=0.0, score=0.0)
        _settle()
        start = time.perf_counter()
        for micro in range(args.steps_per_generation):
            last = (micro + 1) % args.gradient_accumulation_steps == 0
            trainer.accelerator.gradient_state._set_sync_gradients(last)
            trainer.training_step(trainer.model, self.rows, None)
            if last:
                trainer.accelerator.clip_grad_norm_(trainer.model.parameters(), args.max_grad_norm)
                trainer.optimizer.step()
                trainer.optimizer.zero_grad()
        _settle()
        whole = time.perf_counter() - start
        if record:
            generation, scored = self._clock["generate"], self._clock["score"]
            parts = (generation, scored - generation, whole - scored)
            for phase, seconds in zip(PHASES, parts, strict=True):
                self.seconds[phase].append(seconds)
            batches = trainer._buffered_inputs
            self.tokens.append(sum(int(batch["completion_mask"].sum()) for batch in batches))
        for log in (*trainer._metrics.values(), *trainer._logs.values()):
            log.clear()
        return whole

    def whole(self) -> list[float]:
        """Seconds of each step."""
        return [sum(parts) for parts in zip(*self.seconds.values(), strict=True)]


def _timed(trainer: Any, name: str, clock: dict[str, float], key: str) -> None:
    method = getattr(trainer, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        _settle()
        start = time.perf_counter()
        try:
            return method(*args, **kwargs)
        finally:
            _settle()
            clock[key] += time.perf_counter() - start

    setattr(trainer, name, watched)


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class WithPolicy:
    """Rows for the stock trainer: pictures read once, the policy in the prompt or not."""

    def __init__(self, views: RolloutViews, name: str) -> None:
        self._views, self._name = views, name
        self._kept: dict[int, dict[str, Any]] = {}

    def __call__(self, batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        """Columns `row` and `prompt` of the rows named."""
        found = []
        for row in batch["row"]:
            if row not in self._kept:
                view = self._views._make(row)
                prompt = {"prompt": view[self._name]}
                self._kept[row] = {**with_pictures([prompt])[0], "row": row}
            found.append(self._kept[row])
        return {key: [row[key] for row in found] for key in ("row", "prompt")}

    def __getstate__(self) -> dict[str, Any]:
        return {"name": self._name}


def make_arm(
    name: str, given: argparse.Namespace, data: DataFolder, config: RlConfig, folder: Path
) -> Arm:
    """The trainer of an arm with a model of its own, and the rows of its batch."""
    settings = ModelConfig(path=given.model)
    inputs = StageInputs(Path(locate(given.model)), settings, data, folder / name, 0, grade)
    samples = data.read("train")
    processor = load_processor(given.model, settings)
    model = load_model(given.model, settings, train=True)
    plan = plan_batches(config, len(samples), 1)
    if not name.startswith("trl"):
        trainer: Any = build_trainer(config, inputs, samples, plan, model, processor)
    else:
        if config.freeze_vision:
            freeze_vision(model)
        visual = visual_token_ids(model.config, processor.tokenizer)
        reward = make_reward(config, inputs, samples, model, processor)
        views = RolloutViews(samples, data, True)
        prompt = "prompt_with_policy" if name == STOCK_POLICY else "prompt"
        rows = Dataset.from_dict({"row": list(range(len(samples)))})
        stops = model.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        trainer = GRPOTrainer(
            model=model,
            args=grpo_arguments(config, inputs, plan, visual, stops),
            reward_funcs=[reward],
            train_dataset=rows.with_transform(WithPolicy(views, prompt)),
            processing_class=processor,
        )
    size = config.group_size
    rows_of = [dict(trainer.train_dataset[place]) for place in range(config.prompts_per_step)]
    return Arm(name, trainer, [row for row in rows_of for _ in range(size)])


def measured(given: argparse.Namespace, data: DataFolder, forced: bool, folder: Path) -> list[Arm]:
    """All arms of a setting, in turns."""
    base: dict[str, Any] = {
        "max_steps": 10**6,
        "lr": 1e-7,  # the arms' models stay alike
        "prompts_per_step": given.prompts,
        "group_size": given.group_size,
        "micro_batch_size": given.micro_batch_size,
        "updates_per_rollout": given.updates,
        "max_new_tokens": given.new_tokens,
        "beta": given.beta,
        "preflight_prompts": 0,
        "lr_scheduler": "constant",
        "freeze_vision": given.freeze_vision,
    }
    if forced:
        base["trainer"] = {"generation_kwargs": {"min_new_tokens": given.new_tokens}}
    poro = {**base, "policy_fraction": 0.5}
    wanted = {n: poro if n == PORO else {**base, "policy_fraction": 0.0} for n in given.arms}
    if given.ablate:
        wanted |= {f"poro, {part} off": {**poro, **off} for part, off in PARTS.items()}
        none: dict[str, Any] = {"scoring": {}}
        for off in PARTS.values():
            none |= {**off, "scoring": none["scoring"] | off.get("scoring", {})}
        wanted["poro, all off"] = {**poro, **none}
    arms = [
        make_arm(name, given, data, RlConfig(**settings), folder / f"{forced}")
        for name, settings in wanted.items()
    ]
    for turn in range(-1, given.rounds):
        for arm in arms:
            torch.manual_seed(1000 + turn)
            seconds = arm.step(record=turn >= 0)
            label = "warm-up" if turn < 0 else f"round {turn + 1}/{given.rounds}"
            _progress(f"{label}, {arm.name}: {seconds:.1f} s")
    _progress("")
    return arms


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:70}", end="" if text else "\r", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)


def lengths(processor: Any, data: DataFolder) -> tuple[int, int]:
    """Tokens of the first prompt without and with the policy."""
    sample = data.read("train")[0]
    free = encode_text(processor, build_messages(sample, None))
    full = encode_text(processor, build_messages(sample, data.policy_of(sample)))
    return len(free.input_ids), len(full.input_ids)


def make_data(given: argparse.Namespace, folder: Path) -> tuple[DataFolder, int, int]:
    """A ClevrPolicy set whose policy is nearest to the tokens asked for; its prompts' lengths."""
    processor = load_processor(given.model, ModelConfig(path=given.model))
    found: list[tuple[int, DataFolder, int, int]] = []
    for depth in range(1, 9):
        out = folder / f"depth{depth}"
        build(out, seed=0, progress=False, depth=depth, variant=given.variant, policies=1,
              train=given.prompts, train_cot=None, test=None, override=None, profile="tiny",
              workers=1)  # fmt: skip
        free, full = lengths(processor, data := DataFolder(out))
        found.append((abs(full - free - given.policy_tokens), data, free, full))
        if full - free >= given.policy_tokens:
            break
    _, data, free, full = min(found, key=lambda one: one[0])
    return data, free, full


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def ratio(above: Arm, below: Arm) -> dict[str, float]:
    """Of the times of steps, round by round."""
    values = [a / b for a, b in zip(above.whole(), below.whole(), strict=True)]
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def shown(arms: Sequence[Arm]) -> dict[str, Any]:
    """Print the table of a setting; returns its numbers."""
    heads = (*PHASES, "step", "tokens")
    print(f"| {'arm':28} |" + "".join(f" {head:>22} |" for head in heads))
    print("|---|" + "---|" * len(heads))
    for arm in arms:
        cells = [*(spread(arm.seconds[p]) for p in PHASES), spread(arm.whole()),
                 f"{statistics.median(arm.tokens):.0f}"]  # fmt: skip
        print(f"| {arm.name:28} |" + "".join(f" {cell:>22} |" for cell in cells))
    by = {arm.name: arm for arm in arms}
    pairs = [(STOCK_POLICY, PORO), (STOCK_FREE, GRPO), (PORO, GRPO), (PORO, STOCK_FREE)]
    pairs += [(name, PORO) for name in by if name.startswith(f"{PORO}, ")]
    ratios = {
        f"{above} / {below}": ratio(by[above], by[below])
        for above, below in pairs
        if above in by and below in by
    }
    print()
    for name, found in ratios.items():
        print(f"{name}: {found['median']:.2f} ({found['least']:.2f}-{found['most']:.2f})")
    print(flush=True)
    return {
        "arms": {a.name: {"seconds": a.seconds, "tokens": a.tokens} for a in arms},
        "ratios": ratios,
    }


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default=TINY, help="model folder or package://...")
    parser.add_argument("--policy-tokens", type=int, default=1000)
    parser.add_argument("--variant", choices=("T", "M"), default="T", help="M: with pictures")
    parser.add_argument("--prompts", type=int, default=4, help="groups of a step")
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--micro-batch-size", type=int, default=16)
    parser.add_argument("--updates", type=int, default=1, help="updates a rollout batch")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--beta", type=float, default=0.01)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--settings", nargs="+", choices=("forced", "natural"),
                        default=["forced", "natural"])  # fmt: skip
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM",
                        help=f"of {', '.join(map(repr, ARMS))}")  # fmt: skip
    parser.add_argument("--freeze-vision", action="store_true")
    parser.add_argument("--ablate", action="store_true", help="also PORO with parts turned off")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    given = parser.parse_args()
    numbers = (given.prompts, given.rounds, given.new_tokens, given.policy_tokens, given.updates)
    if min(numbers) < 1:
        parser.error("counts must be 1 or more")
    if given.group_size % 2:
        parser.error("--group-size must be even: half of a group sees the policy")
    if given.prompts * given.group_size % (given.updates * given.micro_batch_size):
        parser.error("--prompts x --group-size must be a multiple of --updates x "
                     "--micro-batch-size")  # fmt: skip
    return given


def versions() -> dict[str, Any]:
    """What the numbers depend on."""
    cuda = torch.cuda.is_available()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
        "accelerate": accelerate.__version__,
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
    }


def main(write: Callable[[str], None] = print) -> int:
    """Build data, measure, print; 130 where it is interrupted."""
    quiet()
    given = arguments()
    record: dict[str, Any] = {"versions": versions(), "settings": {}}
    record["arguments"] = {k: str(v) if isinstance(v, Path) else v for k, v in vars(given).items()}
    try:
        with tempfile.TemporaryDirectory() as work:
            data, free, full = make_data(given, Path(work))
            record["prompt_tokens"] = {"without_policy": free, "with_policy": full}
            write(f"{record['versions']}")
            write(f"policy of {full - free} tokens: prompts of {free} and {full}; {given.prompts} "
                  f"prompts x {given.group_size} completions a step")  # fmt: skip
            for setting in given.settings:
                write(f"\n{setting}: " + (f"{given.new_tokens} tokens a completion"
                      if setting == "forced" else f"at most {given.new_tokens} tokens")
                      + f"; seconds, median and range of {given.rounds}")  # fmt: skip
                arms = measured(given, data, setting == "forced", Path(work) / setting)
                record["settings"][setting] = shown(arms)
    except KeyboardInterrupt:
        write("\ninterrupted; what is printed stands")
        return 130
    except UserError as error:
        write(f"error: {error}")
        return 2
    finally:
        if given.json and record["settings"]:
            given.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
