"""The README of an exported data set, in the form that the Hugging Face hub reads."""

from collections.abc import Collection, Mapping

import yaml

from trimpi.export.formats import Format
from trimpi.prompt import is_text_split
from trimpi.sample import DataFolder

SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**12, "n>100K"))


def data_card(
    data: DataFolder,
    kind: Format,
    counts: Mapping[str, int],
    supervised: Mapping[str, bool],
    policy: str,
    target: str,
    licences: bool,
    alone: Collection[str],
) -> str:
    """YAML for the hub, then what the data are, how they were made, and how to use them.

    `alone` names the splits that `datasets` cannot read beside the others.
    """
    card = data.card
    paths = {s: f"{s}/**" if kind == "trl" else f"{s}.jsonl" for s in counts}
    total = sum(counts.values())
    head = {
        "pretty_name": f"{' and '.join(_names(data))} ({kind})",
        "task_categories": ["image-text-to-text", "visual-question-answering"],
        "tags": ["trimpi", "multimodal-policy-internalization", kind],
        "size_categories": [next(name for most, name in SIZES if total < most)],
        "configs": [
            {
                "config_name": name,
                "data_files": [{"split": s, "path": paths[s]} for s in splits],
            }
            for name, splits in configs(supervised, alone).items()
        ],
    }
    if licences:
        head |= {"license": "other", "license_name": "see-licences", "license_link": "LICENCES.md"}
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).strip(),
        "---",
        f"# {head['pretty_name']}",
        "",
        f"Requests under {' and '.join(_names(data))} with gold answers, written by TriMPI "
        f"{card.get('version', '')} from `{card.get('builder') or 'data by hand'}`, "
        f"digest `{str(card.get('digest', ''))[:12]}`.",
        "",
        "The policy stands in front of each prompt."
        if policy == "context"
        else "The policy is not in the prompts: it is to be known by heart.",
        "",
        "| split | rows | form |",
        "|---|---|---|",
    ]
    for split, rows in counts.items():
        said = "reasoning and answer" if target == "cot" else "answer"
        form = said if supervised[split] else "prompt and gold answer (for RL)"
        lines.append(f"| {split} | {rows} | {form} |")
    lines += ["", "## Use", "", *_use(kind, counts, supervised, alone)]
    if licences:
        lines += ["", "Authors and licences of the pictures: [LICENCES.md](LICENCES.md)."]
    return "\n".join(lines) + "\n"


def configs(supervised: Mapping[str, bool], alone: Collection[str]) -> dict[str, list[str]]:
    """Splits by configuration: `datasets` wants equal columns in all splits of one.

    "default" holds those with completions, "prompts" those without; a single kind is "default".
    Splits that are to be read `alone` are in none where there are others: they have no pictures,
    and a repository is read as pictures or as JSON, never as both.
    """
    found: dict[str, list[str]] = {"default": [], "prompts": []}
    for split, whole in supervised.items():
        if split not in alone:
            found["default" if whole else "prompts"].append(split)
    found = {kind: splits for kind, splits in found.items() if splits}
    if len(found) > 1:
        return found
    return {"default": next(iter(found.values()), list(supervised))}


def _names(data: DataFolder) -> list[str]:
    names = dict.fromkeys(p.name for p in data.policies.values())
    return [f"policy {name}" for name in names] or ["requests without a policy"]


def _use(
    kind: Format,
    counts: Mapping[str, int],
    supervised: Mapping[str, bool],
    alone: Collection[str],
) -> list[str]:
    trained = [s for s in counts if supervised[s] and not s.startswith("test") and s not in alone]
    split = (trained or list(counts))[0]
    config = next(
        (n for n, splits in configs(supervised, alone).items() if split in splits), "default"
    )
    others = [name for name in configs(supervised, alone) if name != config]
    if kind == "trl":
        return [
            "```python",
            "from datasets import load_dataset",
            "",
            f'rows = load_dataset("DIR_OR_HUB_ID", "{config}", split="{split}")',
            "```",
            "",
            "Columns: `prompt`, `completion` (not in prompts for RL), `images`, `answer`, `id`."
            + (f" Further configurations: {', '.join(others)}." if others else ""),
            *(
                ("Texts about policies" if is_text_split(s) else f"Split {s}, without pictures")
                + f': `load_dataset("json", data_files="{s}/metadata.jsonl")`.'
                for s in counts
                if s in alone
            ),
            "`trl.SFTTrainer` and `trl.GRPOTrainer` take these columns as they are.",
        ]
    if kind == "llamafactory":
        return [
            f"`dataset_dir: DIR`, `dataset: {split}` (and `media_dir: DIR`) in the YAML of "
            "LLaMA-Factory; `dataset_info.json` registers the splits that have completions, since "
            "it skips rows without.",
        ]
    return [
        "Run in this folder, since paths of pictures are relative to it, or set `ROOT_IMAGE_DIR`:",
        "",
        f"    swift sft --model MODEL --dataset {split}.jsonl",
    ]
