"""MMLU-Pro (Wang et al. 2024): text questions with up to ten options, five examples a category.

Prompt, stop and extraction are those of the authors' `evaluate_from_local.py`
(github.com/TIGER-AI-Lab/MMLU-Pro): examples come from the validation split, first rows first. They
ask a raw text; here it is one user turn, since what is measured are chat models. They drop examples
until a prompt fits; here a prompt that does not fit is an error.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from trimpi.benchmarks.items import (
    NOTHING,
    Extraction,
    Item,
    Options,
    Reading,
    Suite,
    chosen_rows,
    user_turn,
)
from trimpi.benchmarks.rows import Faults, answer_fault, check_columns, check_ids, read_options
from trimpi.benchmarks.source import Source, Table

NAME = "mmlu_pro"
HUB = "TIGER-Lab/MMLU-Pro"
COLUMNS = ("question_id", "question", "options", "answer", "category")
LEVELS = ("answer is (X)", "answer: X", "last letter")
STOP = "Question:"
INTRODUCTION = (
    "The following are multiple choice questions (with answers) about {category}. Think step by"
    ' step and then finish your answer with "the answer is (X)" where X is the correct letter'
    " choice.\n\n\n\n"
)
LEAD = "Answer: Let's think step by step."

_STRICT = re.compile(r"answer is \(?([A-J])\)?")
_AFTER = re.compile(r"[aA]nswer:\s*([A-J])")
_LETTER = re.compile(r"\b[A-J]\b")


def read(item: Item, text: str, extraction: Extraction = "chain") -> Reading:
    """The letter in a completion, which ends where the model begins a question of its own.

    Levels: the first "answer is (X)"; then the last "answer: X" of the first line that has one;
    then the last letter A-J that stands alone.
    """
    text = text.partition(STOP)[0]
    if found := _STRICT.search(text):
        return Reading(found[1], LEVELS[0])
    if extraction == "strict":
        return NOTHING
    if after := list(_AFTER.finditer(text)):
        line_end = text.find("\n", after[0].start())
        same = [m for m in after if line_end < 0 or m.start() < line_end]
        return Reading(same[-1][1], LEVELS[1])
    if alone := _LETTER.findall(text):
        return Reading(alone[-1], LEVELS[2])
    return NOTHING


def load(source: Source, options: Options, folder: Path) -> list[Item]:
    """Questions of the test split, each with its examples before it.

    Raises:
        UserError: a missing column, faulty rows (all at once), or too few examples.
    """
    rows, examples = official_rows(source, options)
    items = []
    for row in rows:
        shown = "".join(_question(e) + _worked(e) for e in examples[row["category"]])
        text = INTRODUCTION.format(category=row["category"]) + shown
        messages = user_turn(text + _question(row) + LEAD)
        items.append(
            Item(row["question_id"], row["category"], messages, row["answer"], row["options"])
        )
    return items


def official_rows(
    source: Source, options: Options
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """The rows that are asked, and the examples of each of their categories, both checked.

    Raises:
        UserError: as `load` does.
    """
    rows = _checked(source.table("test"), COLUMNS)
    chosen = [rows[place] for place in chosen_rows([row["category"] for row in rows], options)]
    return chosen, _examples(source, options, {row["category"] for row in chosen})


def _checked(table: Table, wanted: Sequence[str]) -> list[dict[str, Any]]:
    check_columns(NAME, table, wanted)
    names = [*wanted, *(n for n in ("answer_index",) if n in table.columns)]
    columns = {name: table.column(name) for name in names}
    faults, rows = Faults(NAME), []
    for place in range(len(table)):
        row = {name: values[place] for name, values in columns.items()}
        where = table.place(place)
        row["question_id"] = str(row["question_id"])
        for name in ("question", "category", *(n for n in ("cot_content",) if n in wanted)):
            if not isinstance(row[name], str) or not row[name].strip():
                faults.add(where, f"{name} {row[name]!r} is no text; fill it in, or drop the row")
        options = read_options(row["options"])
        if options is None:
            faults.add(where, "options is no list of texts; correct the row")
            continue
        # Filler up to ten in the official files, always last.
        row["options"] = tuple(option for option in options if option != "N/A")
        if len(row["options"]) > 10:
            faults.add(where, f"{len(row['options'])} options, more than A-J; correct the row")
        elif fault := answer_fault(row["answer"], row["options"]):
            faults.add(where, f"{fault}; correct the row")
        elif (index := row.get("answer_index")) not in (None, ascii_uppercase.find(row["answer"])):
            faults.add(where, f"answer {row['answer']} but answer_index {index}; correct one")
        rows.append(row)
    check_ids(table, [str(value) for value in columns["question_id"]], faults)
    faults.stop()
    return rows


def _examples(
    source: Source, options: Options, categories: set[str]
) -> dict[str, list[dict[str, Any]]]:
    if options.shots == 0:
        return {category: [] for category in categories}
    given = Source(options.shots_from) if options.shots_from else source
    if not options.shots_from and Path(source.name).expanduser().is_file():
        faults = Faults(NAME)
        faults.add(
            source.name,
            f"one file has no validation split for {options.shots} examples a category; give "
            "--shots-from FILE, a folder with both splits, or --shots 0",
        )
        faults.stop()
    table = given.table("validation")
    rows = _checked(table, (*COLUMNS, "cot_content"))
    faults, examples = Faults(NAME), {}
    for category in sorted(categories):
        found = [row for row in rows if row["category"] == category][: options.shots]
        if len(found) < options.shots:
            faults.add(
                given.name,
                f"{len(found)} validation rows of category {category!r} for {options.shots} "
                "examples; add rows, or lower --shots",
            )
        examples[category] = found
    faults.stop()
    return examples


def _question(row: dict[str, Any]) -> str:
    lines = [
        f"{letter}. {text}\n" for letter, text in zip(ascii_uppercase, row["options"], strict=False)
    ]
    return f"Question:\n{row['question']}\nOptions:\n{''.join(lines)}"


def _worked(row: dict[str, Any]) -> str:
    return str(row["cot_content"]).replace(f"A: {LEAD[8:]}", LEAD) + "\n\n"


SUITE = Suite(NAME, HUB, None, LEVELS, 2048, load, read, used=("shots", "shots_from"))
