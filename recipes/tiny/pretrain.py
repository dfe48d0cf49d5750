"""Train tiny-vlm from nothing: a Qwen2.5-VL of two million parameters that sees and reads CLEVR.

    python recipes/tiny/pretrain.py --output trimpi/models/tiny-vlm

Read top to bottom: pictures -> tokenizer -> architecture -> batches -> six phases -> folder.
1. `vision`: the vision tower alone learns, for each visual token, which object covers it (dense
   labels from the renderer). Learning this through next-token loss alone takes many times longer.
2. `language`: the whole model learns to name, compare and count what the tower sees, to quote
   conditions of random policies that stand in context, and to follow such policies step by step.
3. `settle`: the same tasks with the learning rate going to zero.
4. `places`: every condition of a policy is to be quoted, one turn each: many lookups a text; and,
   with dense labels again, the second layer learns of which condition and branch each
   token is part. From next-token loss alone, what "Condition 1.2" says is hardly learned.
5. `lookup`: the same, and the fourth layer learns what the policy says about that condition.
6. `policies`: all of it together; also several pictures to judge by one policy.
The model never meets the policies of any data set that it is later trained on.
"""

import argparse
import json
import math
import os
import random
import re
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from datasets_builders.clevr import render, scenes, skills, wording
from datasets_builders.clevr.tree import Tree, grow
from trimpi.processor import KeptVideoProcessor, without_video
from trimpi.prompt import build_messages, render_target
from trimpi.sample import Sample

WIDTH, HEIGHT, PATCH, MERGE = 96, 64, 8, 2
CELL = PATCH * MERGE
VISUAL_TOKENS = (WIDTH // CELL) * (HEIGHT // CELL)
PHASES = {  # name -> (steps, peak learning rate, share of decay, mixture of batch kinds)
    "vision": (1200, 2e-3, 0.4, {}),
    "language": (
        1300,
        3e-3,
        0.0,
        {"picture": 0.4, "recital": 0.1, "policy_1": 0.15, "policy_2": 0.2, "policy_3": 0.15},
    ),
    "settle": (
        900,
        3e-3,
        1.0,
        {"picture": 0.35, "recital": 0.1, "policy_1": 0.1, "policy_2": 0.2, "policy_3": 0.25},
    ),
    "places": (300, 2e-3, 0.0, {"recital_all": 0.45, "picture": 0.2, "several_2": 0.35}),
    "lookup": (200, 2e-3, 0.0, {"recital_all": 0.45, "picture": 0.2, "several_2": 0.35}),
    "policies": (
        480,
        2e-3,
        1.0,
        {
            "picture": 0.2,
            "recital_all": 0.2,
            "several_1": 0.1,
            "several_2": 0.3,
            "several_3": 0.2,
        },
    ),
}
WARMUP = 25  # steps, in every phase
BATCH = {"picture": 48, "recital": 48, "policy_1": 64, "policy_2": 48, "policy_3": 32}
BATCH |= {"recital_all": 32, "several_1": 40, "several_2": 28, "several_3": 20}
DENSE = {"places": 1, "lookup": 2, "policies": 2}  # how many of the two losses on policies
PLACE_LAYER, CONTENT_LAYER = 2, 4  # layers below those losses
SEVERAL = 3  # pictures under one policy in a `several_N` text
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"]
SPECIAL += ["<|image_pad|>", "<|video_pad|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# --- pictures ---------------------------------------------------------------------------------


def draw_pictures(job: tuple[int, int, int]) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """Scenes, pictures [n, H, W, 3] and cell labels [n, cells] (0 ground, i+1 object i)."""
    seed, start, count = job
    found, pictures, cells = [], [], []
    for index in range(start, start + count):
        rng = np.random.default_rng([seed, index])
        number = int(rng.choice([1, 2, 3, 4], p=[0.2, 0.25, 0.25, 0.3]))
        while True:
            try:
                objects = scenes.sample_attributes(rng, number)
                scene, drawn = scenes.place(rng, objects, render.TINY)
                break
            except scenes.PlacementError:  # four large objects may not fit: draw others
                continue
        blocks = drawn.mask.reshape(HEIGHT // CELL, CELL, WIDTH // CELL, CELL).transpose(0, 2, 1, 3)
        blocks = blocks.reshape(VISUAL_TOKENS, -1)
        share = np.stack(
            [(blocks == i).mean(1) for i in range(number + 1)], 1
        )  # [cells, 1+objects]
        share[:, 0] = 0.2  # a cell belongs to the object that covers most of it, from 20% on
        found.append({"objects": scene["objects"]})
        pictures.append(np.asarray(drawn.image))
        cells.append(share.argmax(1))
    return found, np.stack(pictures), np.stack(cells).astype(np.uint8)


def picture_pool(seed: int, count: int, workers: int, cache: Path | None):
    """The pool of training pictures, drawn in parallel and kept in `cache` between runs."""
    if cache and cache.with_suffix(".npz").exists():
        data = np.load(cache.with_suffix(".npz"), allow_pickle=False)
        return json.loads(cache.with_suffix(".json").read_text()), data["pictures"], data["cells"]
    jobs = [(seed, start, min(500, count - start)) for start in range(0, count, 500)]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(draw_pictures, jobs))
    found = [scene for part in parts for scene in part[0]]
    pictures, cells = (np.concatenate([part[i] for part in parts]) for i in (1, 2))
    if cache:
        np.savez(cache.with_suffix(".npz"), pictures=pictures, cells=cells)
        cache.with_suffix(".json").write_text(json.dumps(found))
    return found, pictures, cells


# --- texts ------------------------------------------------------------------------------------


def conversation(rng: random.Random, kind: str, found: list[dict]) -> list:
    """[(messages, completion), ...]: the turns of one training text about the scenes in `found`."""
    if kind == "picture":
        kinds = ["name", *rng.choices(["exist", "exist", "attribute", "count"], k=4)]
        rng.shuffle(kinds)
        tasks = [skills.draw(rng, k, found[0]) for k in kinds]
    elif kind == "recital_all":
        tasks = recite_all(rng)
    elif kind.startswith("several_"):
        tasks = apply_to_all(rng, kind.replace("several", "policy"), found)
    else:
        tasks = [skills.draw(rng, kind, found[0])]
    turns = []
    for number, task in enumerate(tasks):
        images = ("picture",) if task.needs_picture and number < len(found) else ()
        sample = Sample("", images, task.query, None, task.answer, task.rationale)
        target = "answer" if task.rationale is None else "cot"
        policy = task.policy if number == 0 else None
        turns.append((build_messages(sample, policy, target), render_target(sample, target)))
    return turns


def recite_all(rng: random.Random) -> list[skills.Task]:
    """Up to eight conditions of one policy, asked for in random order."""
    name = wording.made_up_name(rng)
    policy = wording.write_policy(rng, name, grow(rng, rng.choice((1, 2, 2, 3))))
    conditions = rng.sample(
        sorted(policy.metadata["conditions"].items()), k=len(policy.metadata["conditions"])
    )
    return [
        skills.Task(
            "recital", wording.recital_query(name, number), text, policy, needs_picture=False
        )
        for number, text in conditions
    ]


def apply_to_all(rng: random.Random, kind: str, found: list[dict]) -> list[skills.Task]:
    """One random policy, applied to one picture after the other."""
    first = skills.draw(rng, kind, found[0])
    tree = Tree.from_json(first.policy.metadata["tree"])
    tasks = [first]
    for scene in found[1:]:
        path, case = tree.decide(scene["objects"])
        query = wording.query(rng, first.policy.name)
        tasks.append(
            skills.Task(kind, query, wording.answer(case), None, wording.rationale(path, case))
        )
    return tasks


def train_tokenizer(texts: list[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE; condition numbers ("1.2.1") and numbers stay whole words."""
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(r" ?\d+(?:\.\d+)*| ?[A-Za-z]+| ?[^\sA-Za-z\d]+|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(["<think>", "</think>"])
    return wrap_tokenizer(tokenizer)


def wrap_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """With the special tokens and the chat template of the tiny models."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|im_end|>",
        additional_special_tokens=[t for t in SPECIAL if t not in ("<|pad|>", "<|im_end|>")],
        padding_side="left",
        model_max_length=8192,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def corpus(scene_list: list[dict], count: int, seed: int) -> list[str]:
    """Texts for the tokenizer: every word and condition number of the tasks, depths up to 6."""
    rng = random.Random(seed)
    kinds = ["picture", "recital", "policy_1", "policy_2", "policy_3", "policy_4", "policy_6"]
    texts = []
    for index in range(count):
        for messages, target in conversation(rng, kinds[index % 7], [rng.choice(scene_list)]):
            parts = [p.get("text", "") for p in messages[0]["content"]]
            texts.append("user\n" + "".join(parts) + "\nassistant\n" + target)
    return texts


# --- architecture -----------------------------------------------------------------------------


def create_model(tokenizer: PreTrainedTokenizerFast, args: argparse.Namespace):
    """The real Qwen2.5-VL classes at toy width; every size is an ordinary config field."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL}
    size = math.ceil(len(tokenizer) / 64) * 64
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": size,
            "hidden_size": args.width,
            "intermediate_size": 3 * args.width,
            "num_hidden_layers": args.layers,
            "num_attention_heads": args.width // 32,
            "num_key_value_heads": args.width // 32,
            "max_position_embeddings": 8192,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [4, 6, 6],
            },
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|pad|>"],
        },
        vision_config={
            "depth": args.vision_layers,
            "hidden_size": args.vision_width,
            "intermediate_size": 2 * args.vision_width,
            "num_heads": args.vision_width // 32,
            "patch_size": PATCH,
            "temporal_patch_size": 1,
            "spatial_merge_size": MERGE,
            "out_hidden_size": args.width,
            "window_size": 4 * CELL,
            "fullatt_block_indexes": list(range(args.vision_layers)),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = ids["<|im_end|>"]
    model.generation_config.pad_token_id = ids["<|pad|>"]
    return model


# --- batches ----------------------------------------------------------------------------------


class Batches(IterableDataset):
    """Endless batches of one kind each, so that little is padded; a seed and step fix each."""

    def __init__(self, tokenizer, scene_list, mixture, seed, start, steps):
        super().__init__()
        self.tokenizer, self.scenes, self.mixture = tokenizer, scene_list, mixture
        self.seed, self.start, self.steps = seed, start, steps

    def __iter__(self):
        for step in range(self.start, self.steps):
            rng = random.Random(f"{self.seed}/{step}")
            kind = rng.choices(list(self.mixture), list(self.mixture.values()))[0]
            each = SEVERAL if kind.startswith("several") else 1  # scenes of a row
            each = 0 if kind == "recital_all" else each
            picks = [rng.randrange(len(self.scenes)) for _ in range(BATCH[kind] * each)]
            rows = [
                self.row(rng, kind, [self.scenes[p] for p in picks[i * each :][:each]])
                for i in range(BATCH[kind])
            ]
            length = math.ceil(max(len(ids) for ids, _ in rows) / 16) * 16
            ids = torch.zeros(len(rows), length, dtype=torch.long)
            labels = torch.full_like(ids, -100)
            mask = torch.zeros_like(ids)
            for index, (tokens, targets) in enumerate(rows):  # right padded: nothing is generated
                ids[index, : len(tokens)] = torch.tensor(tokens)
                labels[index, : len(tokens)] = torch.tensor(targets)
                mask[index, : len(tokens)] = 1
            yield {
                "kind": kind,
                "picks": picks if kind != "recital" else [],
                "ids": ids,
                "labels": labels,
                "mask": mask,
            }

    def row(self, rng, kind, found):
        tokens, targets = [], []
        pad = "<|image_pad|>"
        for messages, completion in conversation(rng, kind, found):
            prompt = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True
            ).replace(pad, pad * VISUAL_TOKENS)
            head = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
            tail = self.tokenizer(completion + "<|im_end|>\n", add_special_tokens=False)[
                "input_ids"
            ]
            tokens += head + tail
            targets += [-100] * len(head) + tail[:-1] + [-100]
        return tokens, targets


# --- training ---------------------------------------------------------------------------------


class CellHeads(nn.Module):
    """Linear read-outs of every visual token: its object's four attributes, or ground."""

    def __init__(self, width: int):
        super().__init__()
        self.sizes = [len(values) + 1 for values in skills.ATTRIBUTES.values()]
        self.linear = nn.Linear(width, sum(self.sizes))

    def forward(self, features, labels):  # features [B*cells, width], labels [B*cells, 4]
        logits = self.linear(features).split(self.sizes, -1)
        losses = [nn.functional.cross_entropy(x, labels[:, i]) for i, x in enumerate(logits)]
        hits = [
            (x.argmax(-1) == labels[:, i])[labels[:, i] > 0].float().mean()
            for i, x in enumerate(logits)
        ]
        return sum(losses) / len(losses), torch.stack(hits)


class PlaceHeads(nn.Module):
    """Linear read-outs of every text token: its condition's number, and its branch."""

    def __init__(self, width: int, tokenizer):
        super().__init__()
        words = tokenizer.get_vocab()
        number = re.compile(r"Ġ?1(\.[12])*")
        self.numbers = {i: w.lstrip("Ġ") for w, i in words.items() if number.fullmatch(w)}
        self.classes = {n: k for k, n in enumerate(sorted(set(self.numbers.values())), 1)}
        self.header, self.asked = words[":"], words["Ġof"]
        self.branches = {words["ĠYes"]: 1, words["ĠNo"]: 2}
        self.newline = words["Ċ"]
        self.asks = {words["Ġa"], words["Ġan"]}
        self.targets = {words["ĠCase"], words["ĠCondition"]}
        self.linear = nn.Linear(width, len(self.classes) + 1 + 3)
        self.contents = nn.Linear(width, 3 * len(words))

    def places(self, ids: list[int]) -> list[list[int]]:
        """Five labels a token: the number of the condition that it is part of (0: none), its branch
        and, from the second time that the condition comes up, what was said the first time: the
        token of the value asked for, of the target of Yes and of the target of No (0: none)."""
        found = []
        said: dict[int, list[int]] = {}  # condition -> [value, target of Yes, target of No]
        condition = branch = 0
        question = first = False
        for before, token, following in zip([0, *ids], ids, [*ids[1:], 0], strict=False):
            if token in self.numbers and following in (self.header, self.asked):
                condition, branch = self.classes[self.numbers[token]], 0
                question = following == self.asked  # holds on in the answer
                first = condition not in said
                said.setdefault(condition, [0, 0, 0])
            elif token == self.newline and not question:
                condition = branch = 0
            branch = self.branches.get(token, branch) if condition else 0
            if condition and first and not branch and before in self.asks:
                said[condition][0] = token
            if condition and first and branch and before in self.targets:
                said[condition][branch] = token
            again = condition and not first
            found.append([condition, branch, *(said[condition] if again else (0, 0, 0))])
        return found

    def forward(self, place_hidden, content_hidden, ids, mask):  # [B, L, width] x2, [B, L] x2
        labels = torch.tensor([self.places(row) for row in ids.tolist()])  # [B, L, 5]
        kept = mask.bool() & (labels[..., 0] > 0)
        logits = self.linear(place_hidden[kept]).split([len(self.classes) + 1, 3], -1)
        loss = sum(nn.functional.cross_entropy(x, labels[kept][:, i]) for i, x in enumerate(logits))
        again = mask.bool() & (labels[..., 2:] > 0).all(-1)
        if not again.any():
            return loss, torch.zeros(())
        contents = self.contents(content_hidden[again]).unflatten(-1, (3, -1))
        targets = labels[again][:, 2:]
        return loss, nn.functional.cross_entropy(contents.flatten(0, 1), targets.flatten())


def cell_labels(scene_list: list[dict], cells: np.ndarray) -> torch.Tensor:
    """[n, cells, 4] attribute indices, 0 for ground."""
    out = np.zeros((*cells.shape, 4), dtype=np.int64)
    for row, scene in enumerate(scene_list):
        table = np.zeros((len(scene["objects"]) + 1, 4), dtype=np.int64)
        for number, item in enumerate(scene["objects"], 1):
            table[number] = [
                values.index(item[name]) + 1 for name, values in skills.ATTRIBUTES.items()
            ]
        out[row] = table[cells[row]]
    return torch.from_numpy(out)


def optimizers(modules, rate: float):
    """Muon for the hidden matrices, AdamW for embeddings, heads, norms and biases."""
    matrices, others = [], []
    for module in modules:
        for name, parameter in module.named_parameters():
            hidden = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if hidden else others).append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=rate, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    return [muon, torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0)]


def schedule(step: int, steps: int, decay: float) -> float:
    """Linear warm-up, constant, linear decay to 5% over the last share `decay` of the steps."""
    falling = (steps - step) / max(1.0, decay * steps)
    return min(1.0, (step + 1) / WARMUP) * (min(1.0, 0.05 + 0.95 * falling) if decay else 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--work", type=Path, default=Path("runs/tiny-vlm"), help="log, checkpoints")
    parser.add_argument("--pictures", type=int, default=40000)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--vision-width", type=int, default=128)
    parser.add_argument("--vision-layers", type=int, default=3)
    parser.add_argument("--vocabulary", type=int, default=1022)
    parser.add_argument(
        "--scale", type=float, default=1.0, help="multiplies the steps of all phases"
    )
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    log = (args.work / "log.jsonl").open("a")

    def note(**record) -> None:
        log.write(json.dumps(record) + "\n")
        log.flush()
        print(record, flush=True)

    started = time.time()
    scene_list, pictures, cells = picture_pool(
        args.seed, args.pictures, args.workers, args.work / f"pictures-{args.seed}-{args.pictures}"
    )
    note(pictures=len(pictures), seconds=round(time.time() - started))
    tokenizer = train_tokenizer(corpus(scene_list, 7000, args.seed), args.vocabulary)
    processor = Qwen2VLImageProcessorPil(
        patch_size=PATCH,
        temporal_patch_size=1,
        merge_size=MERGE,
        min_pixels=CELL * CELL,
        max_pixels=1024 * 1024,
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    )
    model = create_model(tokenizer, args)
    heads, places = CellHeads(args.width), PlaceHeads(args.width, tokenizer)
    visual = model.model.visual
    counts = [sum(p.numel() for p in m.parameters()) for m in (model, visual)]
    note(parameters=counts[0], vision_parameters=counts[1], vocabulary=len(tokenizer))
    labels = cell_labels(scene_list, cells)

    def pixels(picks: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        batch = processor(images=[Image.fromarray(pictures[i]) for i in picks], return_tensors="pt")
        return batch["pixel_values"], batch["image_grid_thw"]

    def save(name: str) -> None:
        state = {f"model.{k}": v for k, v in model.state_dict().items() if k != "lm_head.weight"}
        state |= {f"heads.{k}": v for k, v in heads.state_dict().items()}
        state |= {f"places.{k}": v for k, v in places.state_dict().items()}
        from safetensors.torch import save_file

        save_file({k: v.contiguous() for k, v in state.items()}, args.work / f"{name}.tmp")
        (args.work / f"{name}.tmp").rename(args.work / f"{name}.safetensors")

    def restore(name: str) -> bool:
        from safetensors.torch import load_file

        file = args.work / f"{name}.safetensors"
        if not file.exists():
            return False
        state = load_file(file)
        model.load_state_dict(
            {k[6:]: v for k, v in state.items() if k[:6] == "model."}, strict=False
        )
        heads.load_state_dict({k[6:]: v for k, v in state.items() if k[:6] == "heads."})
        if any(k[:7] == "places." for k in state):
            read_outs = {k[7:]: v for k, v in state.items() if k[:7] == "places."}
            places.load_state_dict(read_outs, strict=False)
        model.tie_weights()
        return True

    for phase, (steps, rate, decay, mixture) in PHASES.items():
        steps = max(1, int(steps * args.scale))
        if restore(phase):
            note(phase=phase, restored=True)
            continue
        chosen = [visual, heads] if phase == "vision" else [model, heads, places]
        solvers = optimizers(chosen, rate)
        started, losses, hits = time.time(), {}, []
        loader = (
            iter(
                DataLoader(
                    Batches(tokenizer, scene_list, mixture, f"{args.seed}/{phase}", 0, steps),
                    batch_size=None,
                    num_workers=1,
                    prefetch_factor=8,
                )
            )
            if mixture
            else None
        )
        for step in range(steps):
            for solver in solvers:
                for group in solver.param_groups:
                    group["lr"] = rate * schedule(step, steps, decay)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                if loader is None:
                    picks = np.random.default_rng([args.seed, step]).integers(
                        len(pictures), size=64
                    )
                    values, grid = pixels(list(picks))
                    features = visual(values, grid_thw=grid)
                    features = getattr(features, "pooler_output", features)
                    loss, hit = heads(features, labels[picks].flatten(0, 1))
                    kind = "vision"
                    hits.append(hit.detach())
                else:
                    batch = next(loader)
                    kind = batch["kind"]
                    extra = {}
                    if batch["picks"]:
                        values, grid = pixels(batch["picks"])
                        extra = {"pixel_values": values, "image_grid_thw": grid}
                    image = batch["ids"] == model.config.image_token_id
                    output = model(
                        input_ids=batch["ids"],
                        attention_mask=batch["mask"],
                        mm_token_type_ids=image.int(),
                        labels=batch["labels"],
                        output_hidden_states=phase in DENSE,
                        **extra,
                    )
                    loss = output.loss
                    if phase in DENSE and kind != "picture":
                        layers = [output.hidden_states[i] for i in (PLACE_LAYER, CONTENT_LAYER)]
                        found = places(*layers, batch["ids"], batch["mask"])
                        for name, dense in list(zip(("places", "contents"), found, strict=True))[
                            : DENSE[phase]
                        ]:
                            losses.setdefault(name, []).append(dense.item())
                            loss = loss + dense
            loss.backward()
            nn.utils.clip_grad_norm_([p for m in chosen for p in m.parameters()], 1.0)
            for solver in solvers:
                solver.step()
                solver.zero_grad()
            value = loss if loader is None else output.loss
            losses.setdefault(kind, []).append(value.item())
            if (step + 1) % 50 == 0 or step + 1 == steps:
                mean = {k: round(float(np.mean(v)), 4) for k, v in losses.items()}
                extra_note = (
                    {"cells": [round(x, 3) for x in torch.stack(hits).nanmean(0).tolist()]}
                    if hits
                    else {}
                )
                note(
                    phase=phase,
                    step=step + 1,
                    loss=mean,
                    seconds=round(time.time() - started),
                    **extra_note,
                )
                losses, hits = {}, []
            if (step + 1) % 400 == 0:
                save(f"{phase}-partial")
        save(phase)
    export(model, tokenizer, processor, args.output)
    note(saved=str(args.output))


def export(model, tokenizer, image_processor, folder: Path) -> None:
    """A complete model folder, as any Qwen2.5-VL has it."""
    settings = {"video_processor_type": "Qwen2VLVideoProcessor", "patch_size": PATCH}
    settings |= {"temporal_patch_size": 1, "merge_size": MERGE}
    processor = without_video(Qwen2_5_VLProcessor)(
        image_processor=image_processor,
        tokenizer=tokenizer,
        video_processor=KeptVideoProcessor(settings),
        chat_template=CHAT_TEMPLATE,
    )
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


if __name__ == "__main__":
    main()
