"""MMMU-Pro (Yue et al. 2024): questions with pictures, in three forms.

Standard with 10 or with 4 options, and vision, where question and options stand in the picture.
Prompts and extraction are those of the authors' `mmmu-pro/` (github.com/MMMU-Benchmark/MMMU), but
that an answer that is not found counts as unparsed: they guess one at random. A picture is named
`[image]` in the text, and the pictures follow it in the order of their mention, as in their
`infer_transformers.py`.
"""

import re
from collections.abc import Mapping
from functools import partial
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
from trimpi.benchmarks.rows import (
    Faults,
    answer_fault,
    check_columns,
    check_ids,
    read_options,
    save_picture,
)
from trimpi.benchmarks.source import Source, Table

HUB = "MMMU/MMMU_Pro"
LEVELS = ("Answer: X", "(X)", "X and space", "X and period", "text of an option")
_LINE = (
    "The last line of your response should be of the following format: 'Answer: $LETTER' "
    "(without quotes) where LETTER is one of options."
)
PROMPTS = {
    ("cot", "vision"): "Write out the multiple-choice question in the image and then solve it. "
    f"{_LINE} Think step by step before answering.",
    ("cot", "standard"): "Answer the preceding multiple choice question. "
    f"{_LINE} Think step by step before answering.",
    ("direct", "vision"): f"Answer with the option letter from the given choices directly. {_LINE}",
    ("direct", "standard"): "Answer with the option letter from the given choices directly.",
}
_MENTION = re.compile(r"<image\s+(\d+)>")


def read(item: Item, text: str, extraction: Extraction = "chain") -> Reading:
    """The letter in a completion.

    Levels: the one option letter (a capital, wherever it stands) after the last "Answer:"; then
    letters in brackets, letters before a space, letters before a period; then, in completions of
    more than five words, options quoted. Of several, the one that comes last.
    """
    letters = ascii_uppercase[: len(item.options)]
    _, mark, after = text.rpartition("Answer:")
    if mark and len(found := [letter for letter in letters if letter in after.strip()]) == 1:
        return Reading(found[0], LEVELS[0])
    if extraction == "strict":
        return NOTHING
    for sign in ",.!?;:'":
        text = text.strip(sign)
    text = f" {text} "
    for level, form, last in (
        (LEVELS[1], "({})", "({})"),
        (LEVELS[2], "{} ", " {} "),
        (LEVELS[3], "{}.", " {} "),
    ):
        if found := [letter for letter in letters if form.format(letter) in text]:
            return Reading(max(found, key=lambda x: text.rfind(last.format(x))), level)
    lowered = text.lower()
    if len(text.split()) > 5:
        texts = dict(zip(letters, map(str.lower, item.options), strict=True))
        if found := [letter for letter in letters if texts[letter] in lowered]:
            return Reading(max(found, key=lambda x: lowered.rfind(texts[x])), LEVELS[4])
    return NOTHING


def load(name: str, form: str, source: Source, options: Options, folder: Path) -> list[Item]:
    """Questions, with pictures that are stored as bytes written to `folder/pictures`.

    Args:
        name: the suite, for messages.
        form: "standard" or "vision".

    Raises:
        UserError: a missing column, or faulty rows (all at once).
    """
    table = source.table("test")
    wanted = ["id", "options", "answer", "subject"]
    wanted += ["image"] if form == "vision" else ["question"]
    check_columns(name, table, wanted)
    plain = {column: table.column(column) for column in wanted if column != "image"}
    faults = Faults(name)
    for place, subject in enumerate(plain["subject"]):
        if not isinstance(subject, str) or not subject:
            faults.add(table.place(place), f"subject {subject!r} is no text; correct the row")
    faults.stop()
    items = []
    for place in chosen_rows(plain["subject"], options):
        row = {column: values[place] for column, values in plain.items()}
        if item := _item(table, place, row, form, options.mode, folder / "pictures", faults):
            items.append(item)
    check_ids(table, list(map(str, plain["id"])), faults)
    faults.stop()
    return items


def _item(
    table: Table,
    place: int,
    row: Mapping[str, Any],
    form: str,
    mode: str,
    folder: Path,
    faults: Faults,
) -> Item | None:
    where, before = table.place(place), len(faults.lines)
    texts = read_options(row["options"])
    if texts is None:
        faults.add(where, "options is no list of texts; correct the row")
        return None
    if fault := answer_fault(row["answer"], texts):
        faults.add(where, f"{fault}; correct the row")
    if form == "vision":
        prompt, wanted = PROMPTS[mode, form], ["image"]
    else:
        if not isinstance(row["question"], str) or not row["question"].strip():
            faults.add(where, f"question {row['question']!r} is no text; correct the row")
            return None
        lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False)]
        text = "\n".join([row["question"], *lines, PROMPTS[mode, form]])
        prompt, wanted = (
            _MENTION.sub("[image]", text),
            [f"image_{n}" for n in _MENTION.findall(text)],
        )
    pictures = []
    for column in dict.fromkeys(wanted):
        value = table.cell(place, column) if column in table.columns else None
        path, fault = save_picture(value, folder)
        if path is None:
            faults.add(where, f"{column}: {fault}; restore the picture, or drop the row")
        else:
            pictures.append((column, path))
    if len(faults.lines) > before:
        return None
    by_column = dict(pictures)
    messages = user_turn(prompt, [by_column[column] for column in wanted])
    return Item(str(row["id"]), row["subject"], messages, row["answer"], texts)


def _suite(name: str, config: str, form: str) -> Suite:
    loader = partial(load, name, form)
    return Suite(name, HUB, config, LEVELS, 4096, loader, read, used=("mode",))


STANDARD_10 = _suite("mmmu_pro_standard_10", "standard (10 options)", "standard")
STANDARD_4 = _suite("mmmu_pro_standard_4", "standard (4 options)", "standard")
VISION = _suite("mmmu_pro_vision", "vision", "vision")
