"""How a run tells people what it does: an interface that the command line and the flow fill."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

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

    update: updates done in this epoch, of num_updates. samples: that those trained on.
    """

    epoch: int
    update: int
    num_updates: int
    loss: float
    learning_rate: float
    gradient_norm: float
    samples: int


Told = Literal["doing", "counted", "resumed"]
"""What of a reporter a trainer calls by its name, with plain JSON."""


class Reporter(Protocol):
    """What is told while a run goes on. None of these may raise."""

    def doing(self, text: str) -> None:
        """What the run is at where no stage computes, in a few words: "waiting for Prefect".

        Holds until something else is told. In any thread.
        """

    def linked(self, title: str, url: str) -> None:
        """Where a person can look at the run while it works: "Prefect", "MLflow". In any thread."""

    def planned(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        """The stages of the run in order, and the keys of those that are done."""

    def opening(self, text: str) -> None:
        """The run is open: what has changed since before, and what will be computed."""

    def reading(self, field: str, done: int, count: int) -> None:
        """So many items of that data set were read before the start, of `count`."""

    def started(self, stage: Stage) -> None:
        """A stage begins to compute."""

    def resumed(self, epoch: int, update: int, num_updates: int) -> None:
        """The epoch goes on behind that update, which an earlier try has committed."""

    def live(self, live: Live) -> None:
        """An epoch has moved on."""

    def counted(self, what: str, done: int, total: int) -> None:
        """A stage without updates has moved on: so many "batches of validation" of `total`."""

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

    def doing(self, text: str) -> None:
        """Nothing."""

    def linked(self, title: str, url: str) -> None:
        """Nothing."""

    def planned(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        """Nothing."""

    def opening(self, text: str) -> None:
        """Nothing."""

    def reading(self, field: str, done: int, count: int) -> None:
        """Nothing."""

    def started(self, stage: Stage) -> None:
        """Nothing."""

    def resumed(self, epoch: int, update: int, num_updates: int) -> None:
        """Nothing."""

    def live(self, live: Live) -> None:
        """Nothing."""

    def counted(self, what: str, done: int, total: int) -> None:
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
