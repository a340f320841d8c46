"""What a run reports, in Prefect's log as well: its UI shows numbers beside the states."""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from epochal.data.errors import EpochalError
from epochal.data.traces import failure_text
from epochal.flows.progress import outcome_text, resumed_text
from epochal.tasks.planning.stage import Stage
from epochal.tasks.printable import printable
from epochal.tasks.reporting import (
    Live,
    Outcome,
    Reporter,
    SilentReporter,
    current_reporter,
    reporting_to,
)

if TYPE_CHECKING:
    Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


MAX_LINES = 1000
"""Of what the user's code prints in a run."""


class Listener(Protocol):
    """Is told of a run at work beside its log. In any thread; returns at once and never raises."""

    def linked(self, title: str, url: str) -> None:
        """Where a person can look at the run."""

    def ended(self, outcome: Outcome) -> None:
        """A stage is committed, or was found committed."""

    def live(self, live: Live) -> None:
        """An epoch has moved on."""


class FlowLog:
    """Passes everything on to another reporter, and to the log of the running task or flow.

    flow_logger: used in threads that belong to no task. listeners: are told what it is told.
    links: title → address of all that was linked.
    """

    def __init__(self, other: Reporter) -> None:
        self._other = other
        self.flow_logger: Logger | None = None
        self.listeners: list[Listener] = []
        self.links: dict[str, str] = {}
        self._lines = 0

    def doing(self, text: str) -> None:
        """Logs nothing: who looks at a log looks later."""
        self._other.doing(text)

    def linked(self, title: str, url: str) -> None:
        """Logs it."""
        self.links[title] = url
        self._other.linked(title, url)
        for listener in self.listeners:
            listener.linked(title, url)
        self._log(logging.INFO, f"{title}: {url}")

    def planned(self, stages: Sequence[Stage], done: Collection[str]) -> None:
        """Logs nothing."""
        self._other.planned(stages, done)

    def opening(self, text: str) -> None:
        """Logs it."""
        self._other.opening(text)
        self._log(logging.INFO, text)

    def started(self, stage: Stage) -> None:
        """Logs nothing: Prefect itself logs where a task begins."""
        self._other.started(stage)

    def reading(self, field: str, done: int, count: int) -> None:
        """Logs nothing."""
        self._other.reading(field, done, count)

    def resumed(self, epoch: int, update: int, num_updates: int) -> None:
        """Logs it."""
        self._other.resumed(epoch, update, num_updates)
        self._log(logging.INFO, resumed_text(epoch, update, num_updates))

    def counted(self, what: str, done: int, total: int) -> None:
        """Logs nothing."""
        self._other.counted(what, done, total)

    def live(self, live: Live) -> None:
        """Logs nothing: a line per update would bury the rest."""
        self._other.live(live)
        for listener in self.listeners:
            listener.live(live)

    def ended(self, outcome: Outcome) -> None:
        """Logs the stage's numbers."""
        self._other.ended(outcome)
        self._log(logging.INFO, outcome_text(outcome))
        for listener in self.listeners:
            listener.ended(outcome)

    def notice(self, text: str) -> None:
        """Logs a warning."""
        self._other.notice(text)
        self._log(logging.WARNING, text)

    def printed(self, line: str) -> None:
        """Logs it, up to a number of lines: each is a row of Prefect's database."""
        self._other.printed(line)
        self._lines += 1
        if self._lines <= MAX_LINES:
            self._log(logging.INFO, line)
        if self._lines == MAX_LINES:
            self._log(logging.INFO, "what your code prints from here on is in the output alone")

    def failed(self, error: EpochalError) -> None:
        """Logs the error with the frames of the user's own files: Prefect's own log has all."""
        self._other.failed(error)
        self._log(logging.ERROR, failure_text(error))

    def logged(self, level: int, text: str) -> None:
        """Logs what is for Prefect's log alone."""
        self._log(level, text)

    def _log(self, level: int, text: str) -> None:
        if "prefect.context" not in sys.modules:
            return  # before the flow: Prefect is not even imported
        from prefect.exceptions import MissingContextError
        from prefect.logging import get_run_logger

        try:
            logger: Logger | None = get_run_logger()
        except MissingContextError:
            logger = self.flow_logger
        if logger is not None:
            logger.log(level, "%s", printable(text))


@contextmanager
def logging_to_prefect() -> Iterator[FlowLog]:
    """Inside a flow: whatever is reported in the block is logged there too."""
    from prefect.logging import get_run_logger

    reporter = current_reporter()
    log = reporter if isinstance(reporter, FlowLog) else FlowLog(reporter or SilentReporter())
    log.flow_logger = get_run_logger()
    try:
        with reporting_to(log):
            yield log
    finally:
        log.flow_logger = None
        log.listeners.clear()
