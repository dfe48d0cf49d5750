"""A request three ways on a model of a given shape with random weights: no download, no training.

    python benchmarks/efficiency.py --shape tiny --policy-tokens 2048 16384 --batch-sizes 1 4 8

Policy in the prompt, its prefix cached, and left out, as the setting `efficiency` of a run times
them (`trimpi.evaluate.serving`). Times do not depend on the values of weights and tokens, so both
are drawn. `qwen2.5-vl-7b` is the published configuration (8.3 billion parameters, bfloat16; needs
a GPU of 40 GB or more for the long prompts); `tiny` has the same architecture at width 256. A
policy is random words, with `--policy-pictures` of them pictures; a request is one picture of
--picture x --picture pixels and --request-tokens words.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from trimpi.batch import IGNORED, Encoded
from trimpi.evaluate.model_server import RowServer
from trimpi.evaluate.serving import WAYS, Prepared, measure_size
from trimpi.quiet import quiet
from trimpi.recipe import EfficiencyConfig
from trimpi.report.serving import NAMES, memory

IMAGE, START, END, PAD, WORDS = 3, 1, 2, 0, 8
"""Ids of the image placeholder and of the marks around it, of padding, and of the first word."""

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {
        "text": {
            "hidden_size": 256,
            "intermediate_size": 1024,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "vocab_size": 2048,
            "mrope": [8, 12, 12],
        },
        "vision": {
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_heads": 4,
            "fullatt_block_indexes": [3],
        },
    },
    "qwen2.5-vl-7b": {
        "text": {
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "vocab_size": 152064,
            "mrope": [16, 24, 24],
        },
        "vision": {
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
}


def configuration(shape: str) -> Qwen2_5_VLConfig:
    """A Qwen2.5-VL of a shape, picture tokens among its first ids."""
    text, vision = dict(SHAPES[shape]["text"]), SHAPES[shape]["vision"]
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": text.pop("mrope")}
    return Qwen2_5_VLConfig(
        text_config={
            **text,
            "max_position_embeddings": 128000,
            "rope_parameters": rope,
            "pad_token_id": PAD,
            "bos_token_id": None,
            "eos_token_id": None,
        },
        vision_config={
            **vision,
            "out_hidden_size": text["hidden_size"],
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "window_size": 112,
        },
        image_token_id=IMAGE,
        video_token_id=4,
        vision_start_token_id=START,
        vision_end_token_id=END,
        tie_word_embeddings=False,
    )


def build(shape: str, device: torch.device, dtype: torch.dtype) -> Any:
    """The model with drawn weights, made on the device that it runs on."""
    config = configuration(shape)
    torch.manual_seed(0)
    with device:
        model = Qwen2_5_VLForConditionalGeneration._from_config(config, dtype=dtype)
    return model.eval()


def picture(side: int) -> dict[str, Tensor]:
    """Pixel inputs of a square picture: patches of 2 x 3 x 14 x 14 values, and their grid."""
    grid = side // 28 * 2
    generator = torch.Generator().manual_seed(side)
    return {
        "pixel_values": torch.randn(grid * grid, 3 * 2 * 14 * 14, generator=generator),
        "image_grid_thw": torch.tensor([[1, grid, grid]]),
    }


def prompt(
    words: int, policy: int, vocabulary: int, side: int, pictures: int, seed: int
) -> Encoded:
    """A policy of `policy` tokens, `pictures` pictures among them, and a request of one picture.

    The policy is the same under every seed; 0 leaves it out.
    """
    run = [START, *[IMAGE] * (side // 28) ** 2, END]
    ids = []
    if policy:
        generator = torch.Generator().manual_seed(1)
        between = max(0, policy - pictures * len(run)) // (pictures + 1)
        for _ in range(pictures):
            ids += _words(between, vocabulary, generator) + run
        ids += _words(max(0, policy - len(ids)), vocabulary, generator)
    shown = pictures + 1 if policy else 1
    generator = torch.Generator().manual_seed(100 + seed)
    ids += run + _words(words, vocabulary, generator)
    types = {"mm_token_type_ids": [int(token == IMAGE) for token in ids]}
    return Encoded(ids, [IGNORED] * len(ids), types, (str(side),) * shown)


def _words(count: int, vocabulary: int, generator: torch.Generator) -> list[int]:
    return torch.randint(WORDS, vocabulary, (count,), generator=generator).tolist()


class RandomServer(RowServer):
    """Prompts are numbers of requests under one policy."""

    def __init__(self, model: Any, policy: int, arguments: argparse.Namespace) -> None:
        self._length, self._arguments = policy, arguments
        pixels = picture(arguments.picture)
        super().__init__(model, PAD, lambda path: pixels, range(WORDS))

    def prepare(self, requests: Sequence[int]) -> Prepared:
        """Random prompts of the requests, their policy cached."""
        arguments = self._arguments
        vocabulary = self._model.config.get_text_config().vocab_size

        def rows(policy: int) -> list[Encoded]:
            return [
                prompt(
                    arguments.request_tokens,
                    policy,
                    vocabulary,
                    arguments.picture,
                    arguments.policy_pictures,
                    seed,
                )
                for seed in requests
            ]

        return self.prepare_rows(rows(self._length), rows(0), self._length,
                                 arguments.policy_pictures)  # fmt: skip


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--policy-tokens", type=int, nargs="+", default=[2048, 16384])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--request-tokens", type=int, default=64)
    parser.add_argument("--picture", type=int, default=448, help="side in pixels, of 28 each")
    parser.add_argument("--policy-pictures", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write all numbers here")
    given = parser.parse_args()
    least = given.policy_pictures * ((given.picture // 28) ** 2 + 2)
    numbers = [*given.policy_tokens, *given.batch_sizes, given.new_tokens, given.repeats]
    if min(numbers) < 1 or given.picture < 28 or given.request_tokens < 1:
        parser.error("counts must be 1 or more, and --picture at least 28")
    if min(given.policy_tokens) <= least:
        parser.error(f"{given.policy_pictures} pictures alone are {least} tokens of the policy")
    return given


def main() -> None:
    """Measure and print a table for each policy length."""
    quiet()
    given = arguments()
    cuda = torch.cuda.is_available()
    if given.shape != "tiny" and not cuda:
        sys.exit(f"{given.shape} needs a GPU, and torch finds none; use --shape tiny")
    device = torch.device("cuda" if cuda else "cpu")
    dtype = torch.bfloat16 if given.shape != "tiny" else torch.float32
    start = time.perf_counter()
    model = build(given.shape, device, dtype)
    count = sum(p.numel() for p in model.parameters())
    print(f"{given.shape}: {count / 1e6:,.0f} M parameters, {dtype}, drawn in "
          f"{time.perf_counter() - start:.0f} s; torch {torch.__version__}, "
          f"{torch.get_num_threads()} threads")  # fmt: skip
    found = []
    for policy in given.policy_tokens:
        server = RandomServer(model, policy, given)
        for size in given.batch_sizes:
            options = EfficiencyConfig(
                batch_sizes=(size,), new_tokens=given.new_tokens, repeats=given.repeats
            )
            ways, missing, prefixes = measure_size([("policy", range(size))], server, options)
            prefix = prefixes["policy"]
            row = {"policy_tokens": policy, "batch_size": size, "ways": ways, "missing": missing}
            found.append({**row, "prefix": vars(prefix), "device": server.device})
            _print(found[-1], given.new_tokens)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _print(row: dict[str, Any], new_tokens: int) -> None:
    ways, prefix = row["ways"], row["prefix"]
    print(f"\npolicy {row['policy_tokens']} tokens, batch size {row['batch_size']}, {row['device']}"
          f"; cache {memory(prefix['size'])}, first logits differ by "
          f"{prefix['logit_difference'] or 0:.1g} of {prefix['logit_scale'] or 0:.2g}")  # fmt: skip
    heads = ("prefilled", "prefill ms", "first token ms", f"{new_tokens} tokens ms", "requests/s")
    print(f"{'policy':24}" + "".join(f"{head:>16}" for head in heads))
    keys = ("prefill_seconds", "first_token_seconds", "request_seconds")
    for way in WAYS:
        if (numbers := ways[way]) is None:
            print(f"{NAMES[way]:24}{row['missing'][way]}")
            continue
        cells = [f"{numbers['prompt_tokens']:.0f}", *(f"{1000 * numbers[k]:.1f}" for k in keys)]
        cells.append(f"{numbers['requests_per_second']:.2f}")
        print(f"{NAMES[way]:24}" + "".join(f"{cell:>16}" for cell in cells))
    last = ways["without_policy"]
    for rival in WAYS[:2]:
        if last and (numbers := ways[rival]):
            ratios = [f"{numbers[key] / last[key]:.2f}x" for key in keys]
            cells = "".join(f"{ratio:>16}" for ratio in ratios)
            gain = last["requests_per_second"] / numbers["requests_per_second"]
            print(f"{NAMES[rival] + ' / internalized':40}"[:40] + cells + f"{gain:>15.2f}x")


if __name__ == "__main__":
    main()
