"""How a run tells people what it does: an interface that the command line and the flow fill."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from epochal.tasks.planning.stage import Stage

if TYPE_CHECKING:
    from epochal.data.errors import EpochalError
    from epochal.data.stage_store.stages import StageRecord


@dataclass(frozen=True)
class Outcome:
    """How one stage ended.

    cached: its body computed nothing. resumed_at: micro-step that it went on from, or None.
    seconds: wall time in this command.
    """

    stage: Stage
    record: StageRecord
    cached: bool
    resumed_at: int | None
    seconds: float


@dataclass(frozen=True)
class Live:
    """Where an epoch stands: numbers of the last update that was read from the device.

    update: updates done in this epoch, of num_updates.
    """

    epoch: int
    update: int
    num_updates: int
    loss: float
    learning_rate: float
    gradient_norm: float


class Reporter(Protocol):
    """What is told while a run goes on. None of these may raise."""

    def opening(self, text: str) -> None:
        """The run is open: what has changed since before, and what will be computed."""

    def started(self, stage: Stage) -> None:
        """A stage begins to compute."""

    def live(self, live: Live) -> None:
        """An epoch has moved on."""

    def ended(self, outcome: Outcome) -> None:
        """A stage is committed, or was found committed."""

    def notice(self, text: str) -> None:
        """Something that a person should know, though the run goes on."""

    def printed(self, line: str) -> None:
        """A line that a trainer process has printed, and this one too. In any thread."""

    def failed(self, error: EpochalError) -> None:
        """A stage or the start has failed; the command ends with the error and prints it itself."""


class SilentReporter:
    """Tells nobody anything."""

    def opening(self, text: str) -> None:
        """Nothing."""

    def started(self, stage: Stage) -> None:
        """Nothing."""

    def live(self, live: Live) -> None:
        """Nothing."""

    def ended(self, outcome: Outcome) -> None:
        """Nothing."""

    def notice(self, text: str) -> None:
        """Nothing."""

    def printed(self, line: str) -> None:
        """Nothing."""

    def failed(self, error: EpochalError) -> None:
        """Nothing."""


_reporter: ContextVar[Reporter | None] = ContextVar("epochal_reporter", default=None)


def current_reporter() -> Reporter | None:
    """The reporter that the command line has put in place, if any."""
    return _reporter.get()


@contextmanager
def reporting_to(reporter: Reporter) -> Iterator[None]:
    """Makes `reporter` the one that is told, inside the block."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)
