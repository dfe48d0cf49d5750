"""Supervised training on written targets, shared by VM-CPT and SFT, on TRL's SFTTrainer.

The loss is the mean over all tokens of an update that are in the loss (TRL and transformers
divide the sum by the token count of the whole accumulation window, over all devices). The paper
writes a mean per sequence, 1/sum(m_t). The two differ only in weighting long sequences; the token
mean does not depend on how a batch is cut into micro batches, so it is the one used here.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from rich.progress import track
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from trimpi.batch import IGNORED, Encoded, collate
from trimpi.budget import TokenBudget, check_budgets, summarize_budgets
from trimpi.errors import UserError
from trimpi.model import (
    check_adapter,
    check_quantization,
    context_limit,
    count_parameters,
    freeze_vision,
    load_config,
    load_model,
    load_processor,
    lora_config,
    visual_token_ids,
)
from trimpi.quantization import adapters_in_float32, prepare_quantized
from trimpi.recipe import CptConfig, SupervisedConfig
from trimpi.runs import STAGE, read_json
from trimpi.sample import Sample
from trimpi.schedule import plan_schedule
from trimpi.stages.board import boards
from trimpi.stages.checkpoints import CheckpointMarker, ExactResume, resume_point, train_on
from trimpi.stages.epoch_rows import EpochRows, blank_rows
from trimpi.stages.failures import check_loss, row_names
from trimpi.stages.finish import finish_stage, free_memory
from trimpi.stages.general import drawn_general, encode_general, replay_folder, replay_record
from trimpi.stages.inputs import StageInputs
from trimpi.stages.monitor import FiniteGradients, GradientAudit, MetricsLog
from trimpi.stages.rl_arguments import watched
from trimpi.stages.supervised_arguments import training_arguments
from trimpi.stages.throughput import Throughput
from trimpi.stages.whole_model import whole_model

Encode = Callable[[Any, Sample, frozenset[int]], tuple[Encoded, TokenBudget]]
"""(processor, sample, visual token ids) -> training sequence and its budget."""
SHOWN = 20
"""Faulty rows that are named one by one."""


class SupervisedTrainer(Throughput, ExactResume, SFTTrainer):
    """TRL's trainer on sequences that are encoded already; its loss is left as it is.

    Batches carry the places of their rows in the table (`place`), so that faults can name them.
    """

    stage = "train"
    names: Sequence[str] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Many vision-language models say that they cannot divide by the tokens of an update, and
        # the trainer then takes a mean of the means of all passes of all processes. The loss is
        # TRL's, not the model's, and divides by what it is given.
        self.model_accepts_loss_kwargs = True

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss, refused where it is not finite."""
        places = inputs.pop("place", torch.tensor([]))
        blank = (inputs["labels"] == IGNORED).all(1, keepdim=True)
        empty = (inputs["attention_mask"] * blank).sum()
        found = self._loss(model, inputs, places, *args, **kwargs)
        loss = found[0] if isinstance(found, tuple) else found

        def rows() -> list[str]:
            # The same rows again where the table holds each epoch's; blanks have no name.
            count, table = len(self.names), len(self._table) - self.blanks
            return [self.names[p % count] for p in places.tolist() if p < table] if count else []

        folder = Path(str(self.args.output_dir))
        check_loss(loss, self.stage, self.state.global_step + 1, rows, folder)
        if self.blanks:  # nothing is learned from them, so they do not count
            self._total_train_tokens -= int(self.accelerator.reduce(empty, reduction="sum"))
            self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        return found

    def _loss(
        self, model: Any, inputs: dict[str, Any], places: torch.Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        """TRL's; `places` are those of the rows in the table."""
        return super().compute_loss(model, inputs, *args, **kwargs)

    rows_of_an_epoch: int | None = None
    """Set where the table holds the rows of each epoch one after the other, so many an epoch."""
    blanks: int = 0
    """Rows at the end of the table that fill up the last batch of every epoch."""

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.rows_of_an_epoch is None and not self.blanks:
            return super()._get_train_sampler(train_dataset)
        count = len(self._table) - self.blanks
        same, rows = self.rows_of_an_epoch is None, self.rows_of_an_epoch or count
        return EpochRows(rows, count, self.args.seed, self.blanks, same)

    @property
    def _table(self) -> Any:
        return self.train_dataset

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        # TRL counts tokens from zero in each process; the log goes on counting.
        state = read_json(Path(resume_from_checkpoint) / "trainer_state.json") or {}
        counts = [row["num_tokens"] for row in state.get("log_history", ()) if "num_tokens" in row]
        self._total_train_tokens = int(counts[-1]) if counts else 0

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Checkpoints are not for publication: no card."""


def run_supervised(
    config: SupervisedConfig,
    inputs: StageInputs,
    encode: Encode,
    encode_text: Encode | None = None,
    *,
    made: Sequence[Sample] | None = None,
    encode_epoch: Callable[[int, int], Encode] | None = None,
    more: Mapping[str, Any] | None = None,
    make_trainer: Callable[..., SupervisedTrainer] = SupervisedTrainer,
) -> Path:
    """Train on all rows of the split and leave a complete model folder.

    Everything that can be wrong with data and settings is found before weights are loaded. A
    stage folder without `stage.json` is resumed from its last whole checkpoint.

    Args:
        config: a CPT or SFT stage.
        inputs: model, data, output folder and seed.
        encode: makes the training sequence of a row.
        encode_text: makes that of a text about a policy, for stages that mix such texts in.
        made: rows to train on in place of those of the split, for stages that make their own.
        encode_epoch: for sequences that change over the stage: (epoch from 0, number of epochs)
            -> `encode` of that epoch.
        more: further entries of `stage.json`.
        make_trainer: makes the trainer, for stages with a loss of their own.

    Returns:
        `inputs.output / "model"`.

    Raises:
        UserError: rows that do not fit or do not encode, unknown trainer keys, wrong sizes.
    """
    started = time.time()
    if (inputs.output / STAGE).is_file():
        return inputs.output / "model"
    check_quantization(inputs.model_config, train=config.lora is None)
    check_adapter(inputs.model, inputs.model_config, config.lora)
    samples = list(made or inputs.data.read(config.split)[: config.limit])
    parts, texts = [Part(config.split, samples, encode)], 0
    if isinstance(config, CptConfig) and config.texts is not None and encode_text is not None:
        parts.append(
            Part(config.texts, inputs.data.read(config.texts), encode_text, config.texts_epochs)
        )
        texts = len(parts[1].samples)
    arguments = training_arguments(config, inputs)
    rows_made = None if made is None else len(samples)
    schedule = plan_schedule(
        config, len(samples), arguments.world_size, config.kind, texts, rows_made
    )
    if schedule.general:
        folder = replay_folder(inputs)
        drawn = drawn_general(config, inputs, schedule.general)
        parts.append(Part("replay", drawn, partial(encode_general, config, folder)))
    arguments.gradient_accumulation_steps = schedule.accumulation
    processor = load_processor(inputs.model, inputs.model_config)
    settings = load_config(inputs.model, inputs.model_config)
    visual = visual_token_ids(settings, processor.tokenizer)
    limit = context_limit(settings)
    rows, budgets = encode_rows(config.kind, processor, parts, visual, limit)
    rows, shares = in_table(parts, rows)
    seen = len(rows)
    in_loss = sum(label != IGNORED for row in rows for label in row.labels)
    checked = sorted(rows[:16], key=lambda row: len(row.input_ids))[:2]
    epochs = math.ceil(schedule.updates / math.ceil(seen / config.batch_size))
    if encode_epoch is not None:
        for epoch in range(1, epochs):  # `encode` is that of the first
            parts[0] = replace(parts[0], encode=encode_epoch(epoch, epochs))
            shown, further = encode_rows(config.kind, processor, parts, visual, limit)
            rows += in_table(parts, shown)[0]
            budgets += further
        rows = same_types(rows)

    names = [n for part in parts for n in row_names(part.split, part.samples) * part.times]
    blanks = blank_rows(rows, seen, config.micro_batch_size, arguments.world_size)
    rows += blanks
    table = Dataset.from_list([{**vars(row), "place": i} for i, row in enumerate(rows)])
    del rows  # the table holds them in a fraction of the memory

    model = load_model(inputs.model, inputs.model_config, train=config.lora is None)
    prepare_quantized(model)
    if config.freeze_vision:
        freeze_vision(model)
    checkpoint = resume_checkpoint(arguments, inputs.output)
    trainer = make_trainer(
        model=model,
        args=arguments,
        data_collator=partial(_collate, processor),
        train_dataset=table,
        processing_class=processor,
        peft_config=lora_config(model, config.lora) if config.lora is not None else None,
        callbacks=[
            CheckpointMarker(config.keep_last),
            MetricsLog(inputs.output, config.kind),
            GradientAudit(inputs.output),
            *boards(inputs),
        ],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(FiniteGradients(config.kind, trainer.accelerator))
    trainer.stage, trainer.names, trainer.blanks = config.kind, names, len(blanks)
    adapters_in_float32(trainer.model)
    if encode_epoch is not None:
        trainer.rows_of_an_epoch = seen
    parameters = {
        "total": count_parameters(trainer.model),
        "trainable": count_parameters(trainer.model, trainable=True),
    }
    steps = train_on(trainer, checkpoint, schedule.updates)
    record = {
        "rows": len(samples),
        "texts": texts,
        **(
            {"replay": replay_record(inputs, schedule.general, shares[-1])}
            if schedule.general
            else {}
        ),
        "steps": steps,
        "schedule": schedule.arithmetic,
        "parameters": parameters,
        "tokens": summarize_budgets(budgets),
        "tokens_in_loss": in_loss,
        "sequences": sequences_trained(seen, config.batch_size, steps),
        "tokens_trained": int(trainer._total_train_tokens),
        "resumed_from": Path(checkpoint).name if checkpoint else None,
        **(more or {}),
    }
    accelerator, first = trainer.accelerator, trainer.is_world_process_zero()
    batch = collate(processor, checked)
    trained = whole_model(trainer, config, inputs, batch)
    del trainer, model
    free_memory()
    if first:
        finish_stage(config, inputs, trained, processor, batch, record, started)
    accelerator.wait_for_everyone()
    return inputs.output / "model"


def _collate(processor: Any, examples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Model inputs of rows of the table, and their places in it."""
    rows = [{k: v for k, v in example.items() if k != "place"} for example in examples]
    batch: dict[str, Any] = dict(collate(processor, [Encoded(**row) for row in rows]))
    return {**batch, "place": torch.tensor([example["place"] for example in examples])}


def sequences_trained(rows: int, batch: int, updates: int) -> int:
    """Sequences that went through the model; the last update of an epoch takes what is left.

    Args:
        rows: sequences of an epoch.
        batch: sequences of a whole update, over all devices.
        updates: optimizer updates made.
    """
    epochs, further = divmod(updates, math.ceil(rows / batch))
    return epochs * rows + min(further * batch, rows)


@dataclass(frozen=True)
class Part:
    """Rows of a split that a stage trains on, and how they are encoded."""

    split: str
    samples: list[Sample]
    encode: Encode
    times: int = 1
    """How often a row is seen per epoch."""


def in_table(parts: Sequence[Part], rows: Sequence[Encoded]) -> tuple[list[Encoded], list[float]]:
    """The rows of an epoch, and the share of each part in its tokens that are in the loss.

    A row that is seen several times is that many rows of the table, which the sampler shuffles.

    Args:
        parts: what the rows are of.
        rows: those of all parts, in order.
    """
    left, table, counts = iter(rows), list[Encoded](), []
    for part in parts:
        own = [next(left) for _ in part.samples] * part.times
        counts.append(sum(label != IGNORED for row in own for label in row.labels))
        table += own
    return table, [count / max(sum(counts), 1) for count in counts]


def encode_rows(
    kind: str,
    processor: Any,
    parts: Sequence[Part],
    visual: frozenset[int],
    limit: int | None,
) -> tuple[list[Encoded], list[TokenBudget]]:
    """Encode all rows once, in order; all rows that cannot be used are named at once.

    Raises:
        UserError: rows without a rationale, with a bad picture, or beyond the context.
    """
    rows, budgets, problems = [], [], []
    named = [(f"{p.split}: row {s.id!r}", s, p.encode) for p in parts for s in p.samples]
    for where, sample, encode in track(
        named, f"{kind}: encode", transient=True, disable=not watched()
    ):
        try:
            row, budget = encode(processor, sample, visual)
        except UserError as error:
            problems.append(f"{where}: {error}")
            continue
        rows.append(row)
        budgets.append(budget)
    if problems:
        more = len(problems) - SHOWN
        raise UserError.join(problems[:SHOWN] + ([f"... and {more} more rows"] if more > 0 else []))
    used = ((where, b) for (where, *_), b in zip(named, budgets, strict=True))
    check_budgets(used, limit)
    return same_types(rows), budgets


def same_types(rows: Sequence[Encoded]) -> list[Encoded]:
    """One schema for the table: rows without a picture have no token types of their own."""
    types = sorted({name for row in rows for name in row.types})
    return [
        replace(row, types={n: row.types.get(n, [0] * len(row.input_ids)) for n in types})
        for row in rows
    ]


def resume_checkpoint(arguments: SFTConfig, output: Path) -> str | None:
    """Where to go on, found by the first process and told to all."""
    found: list[str | None] = [None]
    if arguments.process_index == 0:
        output.mkdir(parents=True, exist_ok=True)
        checkpoint = resume_point(output)
        found = [None if checkpoint is None else str(checkpoint)]
    return broadcast_object_list(found)[0]
