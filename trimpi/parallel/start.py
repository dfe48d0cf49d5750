"""`torchrun` and `accelerate launch` that leave the report of a failed process to their caller.

    python -m trimpi.parallel.start torchrun|accelerate ARGUMENT...

Both raise an error of their own over that of a process, and end with 1 whatever became of it. Here
the code is that of the process: 137 where one was killed, else that of the first to fail.
"""

import logging
import signal
import sys
from collections.abc import Sequence


def start(tool: str, arguments: Sequence[str]) -> int:
    """Run a launcher to its end.

    Args:
        tool: `torchrun`, or `accelerate` for `accelerate launch`.
        arguments: of the launcher.

    Returns:
        The exit code; 128 and the signal's number for a process that a signal ended.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # which process failed is said by itself, or by the caller
    try:
        if tool == "torchrun":
            from torch.distributed.run import main

            main(list(arguments))
        else:
            from accelerate.commands.launch import launch_command, launch_command_parser

            launch_command(launch_command_parser().parse_args(list(arguments)))
    except ChildFailedError as error:
        codes = [failure.exitcode for failure in error.failures.values()]
        code = (
            -signal.SIGKILL if -signal.SIGKILL in codes else error.get_first_failure()[1].exitcode
        )
        return 128 - code if code < 0 else code
    except SignalException as error:
        return 128 + int(error.sigval)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    return 0


if __name__ == "__main__":
    sys.exit(start(sys.argv[1], sys.argv[2:]))
