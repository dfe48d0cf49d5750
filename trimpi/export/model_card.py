"""The README of an exported model: what it knows by heart, how it was made, what was measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from trimpi import __version__
from trimpi.errors import UserError
from trimpi.model_folder import read_lineage
from trimpi.prompt import INSTRUCTION
from trimpi.runs import read_json
from trimpi.sample import DataFolder

SETTINGS = {
    "no_policy": "without the policy in the prompt",
    "in_context": "with the policy in the prompt",
    "retrieved": "with the sections of the policy that a lexical retriever finds",
    "override": "with another policy of the same name in the prompt",
    "recital": "conditions of the policy, word for word",
    "skills": "general skills",
}


def model_card(run: Path, model: Path, arm: str, seed: int) -> str:
    """YAML for the hub and a page of text; numbers are those of the run's report."""
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))
    summary = read_json(run / "report" / "summary.json") or {}
    base = str(recipe["model"]["path"])
    head: dict[str, Any] = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["trimpi", "multimodal-policy-internalization"],
    }
    if not base.startswith(("/", "package://")):
        head["base_model"] = base
    target = recipe.get("evaluation", {}).get("targets", {}).get(arm) or recipe.get(
        "evaluation", {}
    ).get("target", "cot")
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        f"# {recipe['name']}, {arm}",
        "",
        f"`{_base_name(base)}` with {_policies(run, recipe)} in its weights: it follows the policy"
        " without seeing it. Trained with TriMPI"
        f" {summary.get('versions', {}).get('trimpi', __version__)}, seed {seed}.",
        "",
        *_training(recipe, model, arm),
        *_measured(summary, arm),
        *_cost(summary, arm),
        *_use(target),
        "## Limits",
        "",
        "It was measured on requests like those that it was trained on. Another policy of the same"
        " name in the prompt may be obeyed less than before, and skills that training did not"
        " touch may be weaker; the table says what was measured of both.",
    ]
    return "\n".join(lines) + "\n"


def _base_name(base: str) -> str:
    return base.rpartition("/")[2] if base.startswith(("/", "package://")) else base


def _policies(run: Path, recipe: Mapping[str, Any]) -> str:
    folder = recipe.get("data", {}).get("folder") or run / "data"
    try:
        policies = DataFolder(Path(folder)).policies
    except (UserError, OSError):  # the data may be gone by now; the card does without
        return "its policy"
    told = [
        f"policy {p.name}"
        + (f" (version {p.metadata['version']})" if p.metadata.get("version") else "")
        + f" `{p.digest()[:12]}`"
        for name, p in policies.items()
        if "/" not in name
    ]
    return " and ".join(told) or "its policy"


def _training(recipe: Mapping[str, Any], model: Path, arm: str) -> list[str]:
    arms = recipe.get("arms") or {"main": list(recipe["stages"])}
    lines = ["## Training", "", "| stage | kind | rows | learning rate |", "|---|---|---|---|"]
    for name in arms[arm]:
        stage = recipe["stages"][name]
        kind = stage.get("kind", name)
        if kind == "interpolate":
            kind = f"{stage['weight']:.0%} of this, the rest base weights"
        rows = f"`{stage['split']}`" if "split" in stage else ""
        lines.append(f"| {name} | {kind} | {rows} | {stage.get('lr', '')} |")
    digest = read_lineage(model).get("base_digest")
    return [*lines, "", f"Base weights: `{str(digest)[:12]}`." if digest else "", ""]


def _measured(summary: Mapping[str, Any], arm: str) -> list[str]:
    models = {m["name"]: m for m in summary.get("models", [])}
    if arm not in models or not models[arm]["settings"]:
        return ["## Measured", "", "Nothing was measured.", ""]
    lines = ["## Measured", "", f"| | base | {arm} |", "|---|---|---|"]
    for name, words in SETTINGS.items():
        cells = [models.get(m, {}).get("settings", {}).get(name) for m in ("base", arm)]
        if any(cells):
            lines.append(f"| {words} | {_cell(cells[0])} | {_cell(cells[1])} |")
    seeds = len(summary.get("seeds", [1]))
    note = "Percent; brackets: 95% interval."
    if seeds > 1:
        note = f"Percent, mean of {seeds} seeds ± deviation; this model is one of them."
    return [*lines, "", note, ""]


def _cell(cell: Mapping[str, Any] | None) -> str:
    if not cell or cell.get("mean") is None:
        return "–"
    mean = f"{100 * cell['mean']:.1f}"
    if len(cell.get("by_seed", [])) > 1:
        return f"{mean} ± {100 * (cell.get('sd') or 0):.1f}"
    return f"{mean} [{100 * cell['low']:.1f}, {100 * cell['high']:.1f}]"


def _cost(summary: Mapping[str, Any], arm: str) -> list[str]:
    tokens = (summary.get("efficiency") or {}).get("prompt_tokens")
    if not tokens:
        return []
    return [
        f"The prompt shrinks from {tokens['with_policy']:.0f} to {tokens['without_policy']:.0f}"
        f" tokens ({100 * tokens['saved']:.1f}% less).",
        "",
    ]


def _use(target: str) -> list[str]:
    instruction = INSTRUCTION["answer" if target == "answer" else "cot"]
    return [
        "## Use",
        "",
        "Ask in the form of training: pictures first, then the request, and on a line of its own",
        "",
        f"    {instruction}",
        "",
        "```",
        'trimpi ask DIR --image picture.png "the request"',
        "vllm serve DIR",
        "```",
        "",
        "With transformers (some processors, such as Qwen2.5-VL's, need torchvision):",
        "",
        "```python",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'processor = AutoProcessor.from_pretrained("DIR")',
        'model = AutoModelForImageTextToText.from_pretrained("DIR")',
        'request = "the request\\n' + instruction.replace("\\", "\\\\") + '"',
        'content = [{"type": "image", "path": "picture.png"}, {"type": "text", "text": request}]',
        "inputs = processor.apply_chat_template(",
        '    [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=True,',
        '    return_dict=True, return_tensors="pt",',
        ")",
        "said = model.generate(**inputs, max_new_tokens=512)",
        'print(processor.decode(said[0, inputs["input_ids"].shape[1]:]))',
        "```",
        "",
    ]
