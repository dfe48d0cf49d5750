"""What a dry run finds: faults, what could not be seen, rows, tokens and memory."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trimpi.errors import UserError
from trimpi.schedule import Schedule

if TYPE_CHECKING:
    from trimpi.token_estimate import Lengths


@dataclass(frozen=True)
class StagePlan:
    """What a dry run knows of one stage; tokens are 0 and memory empty where not estimated."""

    name: str
    schedule: Schedule
    training_tokens: int = 0
    generation_tokens: int = 0
    image_tokens: int = 0
    policies: int | None = None
    memory: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Findings:
    """The result of a dry run. `problems` stop a run; `unchecked` says what could not be seen."""

    problems: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What a builder says of its sources, and stops nothing."""
    rows: dict[str, dict[str, int]] = field(default_factory=dict)
    """Rows per split of `data` and `skills`."""
    lengths: "dict[str, Lengths]" = field(default_factory=dict)
    """Token lengths by split."""
    stages: list[StagePlan] = field(default_factory=list)

    def stop_if_faulty(self) -> None:
        """Raises:
        UserError: all problems, one a line.
        """
        if self.problems:
            raise UserError.join(list(dict.fromkeys(self.problems)))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note a `UserError` of the block as problems and go on."""
        try:
            yield
        except UserError as error:
            self.problems += str(error).splitlines()
