"""What the numbers ask of the orchestration, wherever that is: in this process or in another.

Whoever computes knows no store, no tracker and no signal. It says how far it is, puts what it made
into a buffer that both sides see, and asks for what it needs.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.reporting import Live, Told

T = TypeVar("T", bound=BaseException)


class PutDown(Exception):
    """The work was put down as it was asked to; what was to be kept is on its way."""


class Link(Protocol):
    """The way from the numbers to the orchestration. Used by one thread."""

    @property
    def buffer(self) -> Buffer:
        """The memory that both sides see. To be written to only after `wait_for_buffer`."""

    @property
    def interrupted(self) -> bool:
        """Whether the run is to be put down: what is done so far is committed first."""

    @property
    def stopped(self) -> bool:
        """Whether the work is of no use any more, since the orchestration has failed."""

    @property
    def can_commit(self) -> bool:
        """Whether no commit is under way."""

    def notice(self, text: str) -> None:
        """Something that a person should know."""

    def live(self, live: Live) -> None:
        """How far an epoch is."""

    def report(self, what: Told, /, **body: Any) -> None:
        """Calls the reporter's method of that name, with plain JSON."""

    def alive(self) -> None:
        """A sign that the work goes on, where there is nothing else to tell."""

    def ask(self, question: str, **given: Any) -> Any:
        """The orchestration's answer, plain JSON. Raises what it raises."""

    def ask_bytes(self, question: str, data: bytes | None = None, **given: Any) -> bytes:
        """As `ask`, with bytes in the question and as the answer."""

    def wait_for_buffer(self) -> None:
        """Returns when nobody reads the buffer any more."""

    def claim_buffer(self) -> None:
        """As `wait_for_buffer`; a commit inside the epoch is given up for it where it can be."""

    def prepare(self, size: int) -> None:
        """Has memory of that many bytes made for the buffer, beside the work."""

    def commit(self, **commit: Any) -> None:
        """Has what is in the buffer written as a commit of the epoch; returns at once."""


def told(error: T) -> T:
    """Marks an error as one of the orchestration's, told to the work."""
    error.__dict__["told"] = True
    return error


def is_told(error: BaseException) -> bool:
    """Whether the orchestration has raised it."""
    return bool(getattr(error, "told", False))


def obey(link: Link) -> None:
    """Raises PutDown if the work is to be put down here, without a commit."""
    if link.interrupted or link.stopped:
        raise PutDown
    link.alive()
