"""Faults of many tasks in few lines: what several tasks have in common is said once."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from datasets_builders.hints import shown

MOST_LINES = 20
"""So many kinds of faults are told; a cure of these often is one of the others."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with a task and how to mend it.

    `turn` is where, from 1 on (0: the task as a whole). `hint` is said where one task alone has the
    fault: a misspelling is not likely in many.
    """

    words: str
    turn: int = 0
    hint: str = ""

    @property
    def line(self) -> str:
        """With turn and hint."""
        return f"{self._where}{self.words}{self.hint}"

    @property
    def _where(self) -> str:
        return f"turn {self.turn}: " if self.turn else ""


def fault_lines(where: str, faults: Mapping[str, Iterable[Fault]]) -> list[str]:
    """One line for each different fault, with its task or with the first of its tasks.

    Args:
        where: the file that the tasks stand in.
        faults: of each task, by its id.
    """
    found: dict[str, dict[str, Fault]] = {}
    for task, of_task in faults.items():
        for fault in of_task:
            found.setdefault(fault.words, {}).setdefault(task, fault)
    lines = []
    for words, tasks in found.items():
        task, fault = next(iter(tasks.items()))
        if len(tasks) == 1:
            lines.append(f"{where}: task {shown(task)}: {fault.line}")
        else:
            example = f"task {shown(task)}" + (f", turn {fault.turn}" if fault.turn else "")
            lines.append(f"{where}: {len(tasks)} tasks, the first is {example}: {words}")
    if (more := len(lines) - MOST_LINES) > 0:
        lines[MOST_LINES:] = [f"{where}: {more} more faults; mend these first"]
    return lines
