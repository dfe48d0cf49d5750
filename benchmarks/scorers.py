"""Agreement of the scorers with answers that the benchmarks' authors recorded.

    python benchmarks/scorers.py --mmlu-pro recorded_outputs.jsonl \
        --mmmu-pro MMMU/mmmu-pro/output/*.jsonl

MMLU-Pro: rows of {"model", "model_output", "official_pred", "answer"}, drawn from `eval_results` of
github.com/TIGER-AI-Lab/MMLU-Pro. MMMU-Pro: `mmmu-pro/output` of github.com/MMMU-Benchmark/MMMU as
it is, {"options", "response", "pred_indexs", "answer"}.
"""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

from trimpi.benchmarks import mmlu_pro, mmmu_pro
from trimpi.benchmarks.items import Item
from trimpi.benchmarks.rows import read_options


def read(file: Path) -> list[dict[str, Any]]:
    """Rows of a JSONL file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


def mmlu(file: Path) -> None:
    """Both extractions against the recorded ones, by model."""
    rows = read(file)
    print("| model | outputs | no answer recorded | strict agrees | chain agrees | by level |")
    print("|---|---|---|---|---|---|")
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        item = Item("", "", [], "")
        found = {
            how: [mmlu_pro.read(item, row["model_output"], how) for row in mine]  # type: ignore[arg-type]
            for how in ("strict", "chain")
        }
        agree = {
            how: sum(a.answer == row["official_pred"] for a, row in zip(read_, mine, strict=True))
            for how, read_ in found.items()
        }
        empty = sum(row["official_pred"] is None for row in mine)
        levels = Counter(reading.level for reading in found["chain"])
        shown = [f"{level} {levels[level]}" for level in mmlu_pro.LEVELS]
        print(
            f"| {model} | {len(mine)} | {empty} | {agree['strict']} | {agree['chain']} | "
            f"{', '.join(shown)}, unparsed {levels[None]} |"
        )


def mmmu(files: list[Path]) -> None:
    """The chain against the recorded letters, by file."""
    print("| file | outputs | found | of these agree | unparsed | recorded accuracy | ours |")
    print("|---|---|---|---|---|---|---|")
    for file in files:
        rows = read(file)
        found = []
        for row in rows:
            item = Item("", "", [], "", read_options(row["options"]) or ())
            found.append(mmmu_pro.read(item, row["response"]).answer)
        some = [(a, row["pred_indexs"]) for a, row in zip(found, rows, strict=True) if a]
        right = sum(a == row["answer"] for a, row in zip(found, rows, strict=True))
        theirs = sum(row["pred_indexs"] == row["answer"] for row in rows)
        print(
            f"| {file.stem} | {len(rows)} | {len(some)} | {sum(a == b for a, b in some)} | "
            f"{len(rows) - len(some)} | {100 * theirs / len(rows):.2f} | "
            f"{100 * right / len(rows):.2f} |"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mmlu-pro", type=Path)
    parser.add_argument("--mmmu-pro", type=Path, nargs="*", default=[])
    args = parser.parse_args()
    if args.mmlu_pro:
        mmlu(args.mmlu_pro)
    if args.mmmu_pro:
        mmmu(args.mmmu_pro)
