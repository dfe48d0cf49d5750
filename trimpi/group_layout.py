"""Which rows of a group are generated with the policy in context."""

import math


def aware_in_group(group_size: int, policy_fraction: float) -> tuple[bool, ...]:
    """The layout of one group: policy-aware places spread evenly, the first place always free.

    Half of the group gives the odd places: a block (first half free, second half aware) would put
    all long prompts on one of two processes.

    Args:
        group_size: completions per prompt, the paper's pooled 2G.
        policy_fraction: share generated with the policy; times `group_size` a whole number.

    Raises:
        ValueError: the share gives no whole number of completions, or leaves none free.
    """
    count = round(group_size * policy_fraction)
    if count != group_size * policy_fraction or not 0 <= count < group_size:
        raise ValueError(f"{policy_fraction} of {group_size} completions is not a proper share")
    return spread(group_size, count)


def spread(group_size: int, count: int) -> tuple[bool, ...]:
    """The layout with `count` policy-aware places, 0 <= count < group_size."""
    return tuple(
        (place + 1) * count // group_size > place * count // group_size
        for place in range(group_size)
    )


def aware_rows(layout: tuple[bool, ...], process: int, rows: int) -> list[bool]:
    """The marks of the rows of one process.

    Groups are contiguous in the *global* order of rows, process after process, and may be split
    between processes, so a row's place in its group follows from its global index.

    Args:
        layout: marks by place in the group.
        process: index of the process.
        rows: rows of each process.
    """
    return [layout[(process * rows + row) % len(layout)] for row in range(rows)]


def period(layout: tuple[bool, ...]) -> int:
    """Length after which the layout repeats.

    When the rows of a process are a multiple of it, all processes have equally many aware rows;
    collective operations need that.
    """
    return len(layout) // math.gcd(len(layout), sum(layout)) if any(layout) else 1
