"""Work spread over processes: ordered results, one progress bar, stops at once on Ctrl-C."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Task as RichTask
from rich.text import Text

from trimpi.errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Speed(ProgressColumn):
    """Items a second."""

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.0f}/s")


def progress_bar(unit: str) -> Progress:
    """The bar of all builders, on standard error so that output can be piped."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        _Speed(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def spread(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int
) -> Iterator[Result]:
    """Yield `function(task)` for every task, in order, computed by `workers` processes.

    Processes are spawned: `function` must be importable, and a script that calls this needs the
    usual `if __name__ == "__main__":`. With one worker everything happens in this process. When
    the caller stops early or dies, the workers go too.

    Raises:
        UserError: a worker process died (most often for want of memory).
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_attend)
    try:
        # A short queue bounds the memory that finished results wait in.
        ahead, waiting = 4 * workers, list[Future[Result]]()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= ahead:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    except BrokenProcessPool:
        raise UserError(
            f"workers: one of {workers} processes died, perhaps for want of memory; try fewer"
            " workers, and build from a script only below `if __name__ == '__main__':`"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _attend() -> None:
    """Leave Ctrl-C to the parent, and end when the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
