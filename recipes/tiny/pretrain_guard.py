"""Train tiny-vlm on to tiny-vlm-guard: it sees guardrail pictures and reads policies about them.

    python recipes/tiny/pretrain_guard.py --output trimpi/models/tiny-vlm-guard

Read top to bottom: pictures -> tokenizer -> weights taken over -> batches -> phases -> folder.
1. `vision`: the tower learns, for each visual token, which item or person covers it and which place
   it belongs to, dense labels from the drawing; CLEVR pictures beside keep up what it knows.
2. `scenes`: the whole model learns to say what the pictures show.
3. `rules`: random policies (guard_tasks.py) in context, applied to several pictures each, tried
   rule by rule; with dense labels the second layer learns of which rule each token is part.
CLEVR's tasks go on in all phases. It never meets the policies of the package.
"""

import argparse
import json
import os
import random
import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import guard_tasks
import numpy as np
import pretrain
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Qwen2_5_VLForConditionalGeneration

from datasets_builders.guardrail import drawing, items
from trimpi.model_source import locate
from trimpi.processor import load_processor
from trimpi.prompt import build_messages, render_target
from trimpi.recipe import ModelConfig

PHASES = {  # name -> (steps, peak learning rate, share of decay, mixture of batch kinds)
    "vision": (500, 1.5e-3, 0.3, {}),
    "scenes": (250, 1.5e-3, 0.0, {"looks": 0.6, "picture": 0.25, "several_2": 0.15}),
    "rules": (
        900,
        1.5e-3,
        0.6,
        {
            "looks": 0.12,
            "rules_6": 0.2,
            "rules_12": 0.2,
            "rules_18": 0.2,
            "picture": 0.12,
            "several_2": 0.06,
            "several_3": 0.06,
            "recital_all": 0.04,
        },
    ),
}
BATCH = {**pretrain.BATCH, "looks": 40, "rules_6": 24, "rules_12": 18, "rules_18": 14}
PICTURES = 4  # that a random policy is applied to, one after the other
RULE_CLASSES = 26
CELLS = (pretrain.HEIGHT // pretrain.CELL, pretrain.WIDTH // pretrain.CELL)


# --- pictures ---------------------------------------------------------------------------------


def draw(job: tuple[int, int, int]) -> tuple[list[dict], np.ndarray, np.ndarray]:
    """Scenes, pictures [n, H, W, 3] and cell labels [n, cells, 2]: thing (0: none), place."""
    seed, start, count = job
    scenes = drawing.all_scenes()
    found, pictures, labels = [], [], []
    for index in range(start, start + count):
        rng = random.Random(f"{seed}/{index}")
        scene = rng.choice(scenes)
        picture, boxes = drawing.compose(rng, scene)
        size = (pretrain.WIDTH, pretrain.HEIGHT)
        found.append(scene)
        pictures.append(np.asarray(picture.resize(size, Image.Resampling.LANCZOS)))
        cells = np.zeros((*CELLS, 2), dtype=np.uint8)
        cells[..., 1] = drawing.PLACES.index(scene.place)
        things = {"person": len(items.ITEMS) + drawing.PEOPLE.index(scene.people)}
        things["item"] = items.ITEMS.index(scene.item) + 1  # last: it stands in front
        for name, thing in things.items():
            if name in boxes:
                edges = [v * CELLS[1] / drawing.WIDTH for v in boxes[name]]
                left, top, right, bottom = (round(v) for v in edges)
                cells[top : max(bottom, top + 1), left : max(right, left + 1), 0] = thing
        labels.append(cells.reshape(-1, 2))
    return found, np.stack(pictures), np.stack(labels)


def guard_pool(seed: int, count: int, workers: int):
    """The pool of guardrail pictures, drawn in parallel."""
    jobs = [(seed, start, min(500, count - start)) for start in range(0, count, 500)]
    with ProcessPoolExecutor(workers) as pool:
        parts = list(pool.map(draw, jobs))
    scenes = [scene for part in parts for scene in part[0]]
    return scenes, *(np.concatenate([part[i] for part in parts]) for i in (1, 2))


# --- tokenizer and weights --------------------------------------------------------------------


def longer_words(old, texts: list[str], least: int = 40):
    """The tokenizer of tiny-vlm, in which frequent words of `texts` are one token each.

    Merges are added after its own, so that its words stay as they are.
    """
    content = json.loads(old.backend_tokenizer.to_str())
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    size = len(old)
    words = Counter(w for text in texts for w in re.findall(r" ?\d+| ?[A-Za-z]+", text))
    for word in sorted(word for word, count in words.items() if count >= least):
        pieces = old.tokenize(word)
        while len(pieces) > 1:
            joined = pieces[0] + pieces[1]
            if joined not in vocabulary:
                vocabulary[joined] = size
                size += 1
                merges.append([pieces[0], pieces[1]])
            pieces = [joined, *pieces[2:]]
    return pretrain.wrap_tokenizer(Tokenizer.from_str(json.dumps(content)))


def grow(model: Qwen2_5_VLForConditionalGeneration, old, new) -> None:
    """Rows for the new tokens, each the mean of the tokens that it was written with."""
    rows = -(-len(new) // 64) * 64
    before = model.get_input_embeddings().weight.data.clone()
    model.resize_token_embeddings(rows, mean_resizing=False)
    after = model.get_input_embeddings().weight.data
    known = old.get_vocab()
    for token, index in new.get_vocab().items():
        if token not in known:
            ids = old(new.convert_tokens_to_string([token]), add_special_tokens=False)["input_ids"]
            after[index] = before[ids].mean(0)
    model.tie_weights()


# --- batches ----------------------------------------------------------------------------------


class Batches(IterableDataset):
    """Endless batches of one kind each; a seed and a step fix each."""

    def __init__(self, tokenizer, guard, clevr, mixture, seed, steps):
        super().__init__()
        self.tokenizer, self.guard, self.clevr = tokenizer, guard, clevr
        self.mixture, self.seed, self.steps = mixture, seed, steps
        self.clevr_rows = pretrain.Batches(tokenizer, clevr, mixture, seed, 0, steps)

    def __iter__(self):
        for step in range(self.steps):
            rng = random.Random(f"{self.seed}/{step}")
            kind = rng.choices(list(self.mixture), list(self.mixture.values()))[0]
            own = kind == "looks" or kind.startswith("rules")
            each = {"looks": 1, "picture": 1, "recital_all": 0}.get(
                kind, PICTURES if own else pretrain.SEVERAL
            )
            pool = self.guard if own else self.clevr
            picks = [rng.randrange(len(pool)) for _ in range(BATCH[kind] * each)]
            rows = []
            for i in range(BATCH[kind]):
                found = [pool[p] for p in picks[i * each :][:each]]
                if own:
                    rows.append(self.row(rng, kind, found))
                else:
                    ids, targets = self.clevr_rows.row(rng, kind, found)
                    rows.append((ids, targets, [0] * len(ids)))
            length = -(-max(len(ids) for ids, _, _ in rows) // 16) * 16
            batch = {
                name: torch.tensor([r[i] + [fill] * (length - len(r[i])) for r in rows])
                for i, (name, fill) in enumerate((("ids", 0), ("labels", -100), ("rules", 0)))
            }
            batch["mask"] = torch.tensor(
                [[1] * len(r[0]) + [0] * (length - len(r[0])) for r in rows]
            )
            yield {"kind": kind, "own": own, "picks": picks, **batch}

    def row(self, rng, kind, found):
        """Token ids, targets, and of each token of the policy the place of its rule (0: none)."""
        if kind == "looks":
            turns = guard_tasks.looks(rng, found[0])
        else:
            turns = guard_tasks.judged(rng, found, int(kind.partition("_")[2]))
        ids, targets, rules = [], [], []
        pad = "<|image_pad|>"
        for number, turn in enumerate(turns):
            target = "answer" if turn.rationale is None else "cot"
            sample = guard_tasks.sample_of(turn, number < len(found))
            prompt = self.tokenizer.apply_chat_template(
                build_messages(sample, turn.policy, target),
                tokenize=False,
                add_generation_prompt=True,
            ).replace(pad, pad * pretrain.VISUAL_TOKENS)
            head = self.tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
            tail = render_target(sample, target) + "<|im_end|>\n"
            tail = self.tokenizer(tail, add_special_tokens=False)["input_ids"]
            ids += head["input_ids"] + tail
            targets += [-100] * len(head["input_ids"]) + tail[:-1] + [-100]
            rules += _places(prompt, head["offset_mapping"]) + [0] * len(tail)
        return ids, targets, rules


def _places(prompt: str, offsets: list[tuple[int, int]]) -> list[int]:
    starts = [(m.start(), m.end()) for m in re.finditer(r"^- \*\*R.*$", prompt, re.MULTILINE)]
    places, at = [], 0
    for begin, _ in offsets:
        while at < len(starts) and begin >= starts[at][1]:
            at += 1
        inside = at < len(starts) and begin >= starts[at][0]
        places.append(min(at + 1, RULE_CLASSES - 1) if inside else 0)
    return places


# --- training ---------------------------------------------------------------------------------


class Heads(nn.Module):
    """Read-outs: thing and place of visual tokens, and the rule of each token of a policy."""

    def __init__(self, width: int):
        super().__init__()
        self.things = nn.Linear(width, 1 + len(items.ITEMS) + len(drawing.PEOPLE))
        self.places = nn.Linear(width, len(drawing.PLACES))
        self.rules = nn.Linear(width, RULE_CLASSES)

    def seen(self, features, labels):  # [B*cells, width], [B*cells, 2]
        things, places = self.things(features), self.places(features)
        loss = nn.functional.cross_entropy(things, labels[:, 0])
        loss = loss + 0.3 * nn.functional.cross_entropy(places, labels[:, 1])
        covered = labels[:, 0] > 0
        hits = (things.argmax(-1) == labels[:, 0])[covered].float().mean()
        return loss, torch.stack([hits, (places.argmax(-1) == labels[:, 1]).float().mean()])

    def read(self, hidden, rules, mask):  # [B, L, width], [B, L], [B, L]
        kept = mask.bool() & (rules > 0)
        return nn.functional.cross_entropy(self.rules(hidden[kept]), rules[kept])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="model folder to write")
    parser.add_argument("--base", default="package://trimpi/models/tiny-vlm")
    parser.add_argument("--work", type=Path, default=Path("runs/tiny-vlm-guard"))
    parser.add_argument("--pictures", type=int, default=16000, help="of each kind")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies all steps")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    log = (args.work / "log.jsonl").open("a")

    def note(**record) -> None:
        log.write(json.dumps(record) + "\n")
        log.flush()
        print(record, flush=True)

    started = time.time()
    guard, guard_pictures, guard_labels = guard_pool(args.seed, args.pictures, args.workers)
    cache = args.work / f"clevr-{args.seed}-{args.pictures}"
    clevr, clevr_pictures, cells = pretrain.picture_pool(
        args.seed + 1, args.pictures, args.workers, cache
    )
    clevr_labels = pretrain.cell_labels(clevr, cells)
    guard_targets = torch.from_numpy(guard_labels.astype(np.int64))
    note(pictures=len(guard), seconds=round(time.time() - started))
    folder = locate(ModelConfig(path=args.base))
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    processor = load_processor(folder, ModelConfig(path=args.base))
    rng = random.Random(args.seed)
    texts = []
    for _ in range(1500):
        turns = guard_tasks.judged(rng, rng.sample(guard, PICTURES), 14)
        turns += guard_tasks.looks(rng, rng.choice(guard))
        texts += [t.query + " " + t.answer + " " + (t.rationale or "") for t in turns]
        texts.append("".join(p.text for p in turns[0].policy.parts))
    tokenizer = longer_words(processor.tokenizer, texts)
    grow(model, processor.tokenizer, tokenizer)
    width = model.config.get_text_config().hidden_size
    heads, clevr_heads = Heads(width), pretrain.CellHeads(width)
    visual = model.model.visual
    count = sum(p.numel() for p in model.parameters())
    lengths = [len(tokenizer(t)["input_ids"]) for t in texts[-200:]]
    note(parameters=count, vocabulary=len(tokenizer), longest_text=max(lengths))

    def pixels(pool: np.ndarray, picks: list[int]) -> dict[str, torch.Tensor]:
        pictures = [Image.fromarray(pool[i]) for i in picks]
        batch = processor.image_processor(images=pictures, return_tensors="pt")
        return {"pixel_values": batch["pixel_values"], "image_grid_thw": batch["image_grid_thw"]}

    for phase, (steps, rate, decay, mixture) in PHASES.items():
        steps = max(1, int(steps * args.scale))
        file = args.work / f"{phase}.pt.safetensors"
        if file.exists():
            from safetensors.torch import load_file

            model.load_state_dict(load_file(file), strict=False)
            model.tie_weights()
            note(phase=phase, restored=True)
            continue
        chosen = [visual, heads, clevr_heads] if phase == "vision" else [model, heads]
        solvers = pretrain.optimizers(chosen, rate)
        batches = Batches(tokenizer, guard, clevr, mixture, f"{args.seed}/{phase}", steps)
        loader = iter(DataLoader(batches, batch_size=None, num_workers=1, prefetch_factor=8))
        started, losses, hits = time.time(), {}, []
        for step in range(steps):
            for solver in solvers:
                for group in solver.param_groups:
                    group["lr"] = rate * pretrain.schedule(step, steps, decay)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                if not mixture:
                    picks = np.random.default_rng([args.seed, step]).integers(
                        args.pictures, size=48
                    )
                    loss, kind = torch.zeros(()), "vision"
                    for pool, some in ((guard_pictures, picks[:32]), (clevr_pictures, picks[32:])):
                        inputs = pixels(pool, list(some))
                        features = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
                        features = getattr(features, "pooler_output", features)
                        if pool is guard_pictures:
                            part, hit = heads.seen(features, guard_targets[some].flatten(0, 1))
                            hits.append(hit.detach())
                        else:
                            part, _ = clevr_heads(features, clevr_labels[some].flatten(0, 1))
                        loss = loss + part
                    value = loss
                else:
                    batch = next(loader)
                    kind = batch["kind"]
                    pool = guard_pictures if batch["own"] else clevr_pictures
                    output = model(
                        input_ids=batch["ids"],
                        attention_mask=batch["mask"],
                        mm_token_type_ids=(batch["ids"] == model.config.image_token_id).int(),
                        labels=batch["labels"],
                        output_hidden_states=True,
                        **(pixels(pool, batch["picks"]) if batch["picks"] else {}),
                    )
                    loss = value = output.loss
                    if kind.startswith("rules"):
                        layer = output.hidden_states[pretrain.PLACE_LAYER]
                        dense = heads.read(layer, batch["rules"], batch["mask"])
                        losses.setdefault("places", []).append(dense.item())
                        loss = loss + 0.3 * dense
            loss.backward()
            nn.utils.clip_grad_norm_([p for m in chosen for p in m.parameters()], 1.0)
            for solver in solvers:
                solver.step()
                solver.zero_grad()
            losses.setdefault(kind, []).append(value.item())
            if (step + 1) % 50 == 0 or step + 1 == steps:
                mean = {k: round(float(np.mean(v)), 4) for k, v in losses.items()}
                seen = {"hits": torch.stack(hits).mean(0).tolist()} if hits else {}
                seconds = round(time.time() - started)
                note(phase=phase, step=step + 1, loss=mean, seconds=seconds, **seen)
                losses, hits = {}, []
        from safetensors.torch import save_file

        state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "lm_head.weight"}
        save_file(state, args.work / f"{phase}.tmp")
        (args.work / f"{phase}.tmp").rename(file)
    pretrain.export(model, tokenizer, processor.image_processor, args.output)
    note(saved=str(args.output))


if __name__ == "__main__":
    main()
