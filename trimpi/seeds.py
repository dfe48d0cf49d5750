"""Seeds one after the other, or several at a time in processes of their own."""

import contextlib
import io
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from trimpi.errors import UserError

Say = Callable[[str], None]


def run_seeds(
    work: Callable[[Any, int, Say], None], task: Any, seeds: Sequence[int], jobs: int, say: Say
) -> None:
    """Call `work(task, seed, say)` for every seed, `jobs` at a time.

    With several jobs `work` must be importable and `task` picklable, and the processors are
    shared out among the processes unless OMP_NUM_THREADS is set. The first failure ends the rest.

    Raises:
        UserError: what `work` raised, with the seed; also when a process dies.
    """
    if jobs <= 1:
        for seed in seeds:
            work(task, seed, say if len(seeds) == 1 else _prefixed(say, seed))
        return
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting = list(seeds)
    running: dict[int, tuple[Any, Connection]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                seed = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(work, task, seed, threads, sender))
                process.start()
                sender.close()
                running[seed] = (process, receiver)
            for seed, (process, receiver) in list(running.items()):
                if _relay(receiver, _prefixed(say, seed), seed):
                    continue
                process.join()
                if process.exitcode:
                    raise UserError(
                        f"seed {seed}: its process ended with code {process.exitcode} (out of "
                        "memory?); run again with fewer --jobs, it resumes"
                    )
                del running[seed]
            time.sleep(0.05)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.join()


def _relay(receiver: Connection, say: Say, seed: int) -> bool:
    """Pass on what a process says; False when it has ended.

    Raises:
        UserError: the process reported one.
    """
    try:
        while receiver.poll():
            kind, text = receiver.recv()
            if kind == "error":
                raise UserError.join([f"seed {seed}: {line}" for line in text.splitlines()])
            say(text)
    except EOFError:
        return False
    return True


def _prefixed(say: Say, seed: int) -> Say:
    return lambda line: say(f"seed {seed}: {line}")


def _child(
    work: Callable[[Any, int, Say], None], task: Any, seed: int, threads: int, sender: Connection
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        # What a stage prints goes the same way, so that it carries its seed.
        with contextlib.redirect_stdout(_Lines(sender)):
            work(task, seed, lambda line: sender.send(("line", line)))
    except UserError as error:
        sender.send(("error", str(error)))


class _Lines(io.TextIOBase):
    """A stream that sends every whole line that is written to it."""

    def __init__(self, sender: Connection) -> None:
        self._sender, self._begun = sender, ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._sender.send(("line", line))
        return len(text)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
