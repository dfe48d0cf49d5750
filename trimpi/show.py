"""What a stage really feeds to the model: every token of a row with its label."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimpi.batch import IGNORED, Encoded, encode_text
from trimpi.errors import UserError
from trimpi.group_layout import aware_in_group
from trimpi.model import load_config, load_processor, visual_token_ids
from trimpi.model_source import locate
from trimpi.pipeline import prepare_data
from trimpi.policy import Policy
from trimpi.prompt import build_messages
from trimpi.recipe import (
    CptConfig,
    DistillConfig,
    OnPolicyDistillConfig,
    Recipe,
    RlConfig,
    SftConfig,
    SupervisedConfig,
)
from trimpi.recipe_rules import did_you_mean
from trimpi.replay import check_general
from trimpi.sample import Sample
from trimpi.stages import cpt, sft
from trimpi.stages.general import encode_general
from trimpi.terminal_text import harmless as harmless

REPLAY = "replay"
STYLES = {"in the loss": "bold green", "not in the loss": "default", "visual": "blue"}


@dataclass(frozen=True)
class Shown:
    """A token, or a run of one repeated: positions `first` to `last`, and its label."""

    first: int
    last: int
    token: int
    text: str
    label: int
    kind: str

    @property
    def times(self) -> int:
        """How often the token stands here in a row."""
        return self.last - self.first + 1


_SHOWN = CptConfig | SftConfig | DistillConfig | OnPolicyDistillConfig | RlConfig


def show_stage(recipe: Recipe, run: Path, stage: str, row: int, console: Console) -> None:
    """Print one row of a stage as the stage encodes it; weights are not loaded.

    The data are built into the run folder when they are not there yet. The processor is that of
    the recipe's model, which all stages hand on.

    Args:
        recipe: with local paths absolute.
        run: the run folder.
        stage: name of a stage of the recipe.
        row: index into the stage's split; the texts of a CPT stage count on behind it, and the
            general examples of a stage with a replay ratio behind those.
        console: where to print.

    Raises:
        UserError: unknown stage, a row beyond the split, or a row that does not encode.
    """
    if stage not in recipe.stages:
        raise UserError(f"no stage {stage!r} in the recipe; {did_you_mean(stage, recipe.stages)}")
    config = recipe.stages[stage]
    if not isinstance(config, _SHOWN):
        raise UserError(f"stage {stage!r} is of kind {config.kind!r}, which shows no rows")
    data = prepare_data(
        recipe.data, run / "data", "data", lambda line: console.print(f"[dim]{line}")
    )
    rows_of = {config.split: data.read(config.split)}
    if isinstance(config, CptConfig) and config.texts is not None:
        rows_of[config.texts] = data.read(config.texts)
    replay = None
    if isinstance(config, SupervisedConfig) and config.replay_ratio:
        assert recipe.replay is not None
        replay = prepare_data(
            recipe.replay, run / "replay", "replay", lambda line: console.print(f"[dim]{line}")
        )
        rows_of[REPLAY] = check_general(replay)
    split, row, sample = _found(rows_of, row)
    model = locate(recipe.model, weights=False)
    processor = load_processor(model, recipe.model)
    visual = visual_token_ids(load_config(model, recipe.model), processor.tokenizer)
    title = f"{stage} ({config.kind}), {split} row {row}, id {sample.id}"
    if isinstance(config, RlConfig):
        aware = sum(aware_in_group(config.group_size, config.policy_fraction))
        free = config.group_size - aware
        views: list[tuple[str, Policy | None]] = [
            (f"scored on, and {free} of a group generated from", None)
        ]
        if aware:
            views.append((f"{aware} of a group generated from", data.policy_of(sample)))
        for name, seen in views:
            encoded = encode_text(processor, build_messages(sample, seen))
            print_tokens(console, f"{title}: {name}", tokens_of(processor, encoded, visual))
        console.print("in the loss: the sampled completions, behind the first of these prompts")
        return
    if split == REPLAY and isinstance(config, SupervisedConfig) and replay is not None:
        encoded, budget = encode_general(config, replay, processor, sample, visual)
    elif isinstance(config, DistillConfig | OnPolicyDistillConfig):
        baked = isinstance(config, DistillConfig) and config.loss == "forward_kl"
        with_policy = "answered from, and read by the teacher" if baked else "answered from"
        if isinstance(config, OnPolicyDistillConfig):
            with_policy = "read by the teacher"
        target = config.target if isinstance(config, DistillConfig) else "cot"
        for name, seen in ((with_policy, data.policy_of(sample)), ("trained on behind", None)):
            encoded = encode_text(processor, build_messages(sample, seen, target))
            print_tokens(console, f"{title}: {name}", tokens_of(processor, encoded, visual))
        console.print("in the loss: the model's own completion, behind the second of these prompts")
        return
    elif split != config.split:
        encoded, budget = cpt.encode_text_row(processor, sample, visual)
    elif isinstance(config, CptConfig):
        encoded, budget = cpt.encode(config, data, processor, sample, visual)
    else:
        encoded, budget = sft.encode(config, data, processor, sample, visual)
    print_tokens(console, title, tokens_of(processor, encoded, visual))
    parts = ", ".join(f"{name} {count}" for name, count in vars(budget).items() if count)
    console.print(f"{budget.total} tokens: {parts}", highlight=False)


def _found(parts: Mapping[str, Sequence[Sample]], row: int) -> tuple[str, int, Sample]:
    """The split that row number `row` of all parts is of, its number there, and the row."""
    first, known = 0, []
    for split, samples in parts.items():
        if row < first + len(samples):
            return split, row - first, samples[row - first]
        has = "has rows" if not first else "rows"
        known.append(f"{split} {has} {first} to {first + len(samples) - 1}")
        first += len(samples)
    raise UserError(f"row {row}: {', '.join(known)}; choose one")


def tokens_of(processor: Any, encoded: Encoded, visual: frozenset[int]) -> list[Shown]:
    """The tokens of a sequence in order; repeated visual tokens are folded into one entry."""
    shown: list[Shown] = []
    place = 0
    pairs = zip(encoded.input_ids, encoded.labels, strict=True)
    for (token, label), group in groupby(pairs):
        times = len(list(group))
        runs = [times] if token in visual else [1] * times
        kind = "in the loss"
        if label == IGNORED:
            kind = "visual" if token in visual else "not in the loss"
        for size in runs:
            text = _text(processor.tokenizer, token)
            shown.append(Shown(place, place + size - 1, token, text, label, kind))
            place += size
    return shown


def print_tokens(console: Console, title: str, tokens: Sequence[Shown]) -> None:
    """The coloured text, then one line a token: position, id, text, label."""
    console.rule(Text(harmless(title)))
    console.print(*(Text(name, style) for name, style in STYLES.items()), sep="  |  ")
    running = Text()
    for token in tokens:
        times = f" x{token.times} " if token.times > 1 else ""
        running.append(token.text + times, STYLES[token.kind])
    console.print(running)
    table = Table(box=None, header_style="bold")
    for name in ("position", "id"):
        table.add_column(name, justify="right")
    table.add_column("token")
    table.add_column("label", justify="right")
    for token in tokens:
        where = f"{token.first}" if token.times == 1 else f"{token.first}-{token.last}"
        times = f" x{token.times}" if token.times > 1 else ""
        label = "-" if token.label == IGNORED else str(token.label)
        style = STYLES[token.kind]
        table.add_row(
            where, str(token.token), Text(_visible(token.text) + times), label, style=style
        )
    console.print(table)
    counted = sum(token.times for token in tokens if token.label != IGNORED)
    console.print(f"in the loss: {counted} of {tokens[-1].last + 1} tokens", highlight=False)


def _text(tokenizer: Any, token: int) -> str:
    """A token as text; a part of a character by its name in the vocabulary."""
    text = str(tokenizer.decode([token], skip_special_tokens=False))
    return str(tokenizer.convert_ids_to_tokens(token)) if "�" in text else harmless(text)


def _visible(text: str) -> str:
    """Spaces as dots, line breaks escaped."""
    return text.replace(" ", "·").replace("\n", "\\n").replace("\t", "\\t")
