"""Processes at work on one store, whose operations come one at a time, in an order from a seed.

Each process asks before each operation of the store and waits. Once all of them wait, or have
ended, one is let do its operation: so a replay interleaves them in the same way.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random

LIMIT_S = 120.0
"""A process that neither asks nor ends for so long hangs: it is ended, which is a failure."""
STAYS = 0.85
"""How often the process that had the last operation has the next one too."""


class Hung(Exception):
    """A process neither asked nor ended."""


@dataclass(frozen=True)
class Gate:
    """A process's end: asks, and waits to be let through; one of its threads after the other."""

    asks: int
    goes: int
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        """Returns when the operation may be done."""
        with self._turn:
            os.write(self.asks, b"?")
            os.read(self.goes, 1)


@dataclass
class Child:
    """A forked process. name: for a person; code: how it ended, once it has."""

    name: str
    pid: int
    asked: int
    let: int
    operations: int = 0
    waits: bool = False
    code: int | None = None
    _handle: int = -1

    @classmethod
    def fork(cls, name: str, live: Callable[[Gate], None]) -> Child:
        """A process that does `live`, which never returns."""
        asked, asks = os.pipe()
        goes, let = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(asked)
            os.close(let)
            live(Gate(asks, goes))
        os.close(asks)
        os.close(goes)
        return cls(name, pid, asked, let, _handle=os.pidfd_open(pid))

    def wait(self) -> None:
        """Until it asks or has ended. Raises Hung."""
        # By the process itself: its own children keep its end of the pipe open after its death.
        poll = select.poll()
        poll.register(self.asked, select.POLLIN)
        poll.register(self._handle, select.POLLIN)
        ready = dict(poll.poll(LIMIT_S * 1000))
        if not ready:
            raise Hung(f"{self.name} neither asks for an operation nor ends")
        if self._handle not in ready and os.read(self.asked, 1):
            self.waits = True
            return
        _, status = os.waitpid(self.pid, 0)  # it has ended, or is about to: its pipe is closed
        self.close(os.waitstatus_to_exitcode(status))

    def go(self) -> None:
        """Lets it do its operation."""
        self.waits = False
        self.operations += 1
        with suppress(BrokenPipeError):  # another thread of it has ended it meanwhile
            os.write(self.let, b"!")

    def end(self) -> None:
        """By SIGKILL, where it has not ended."""
        if self.code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.close(-signal.SIGKILL)

    def close(self, code: int) -> None:
        """Notes how it has ended."""
        self.code, self.waits = code, False
        for descriptor in (self.asked, self.let, self._handle):
            os.close(descriptor)


@dataclass
class Turnstile:
    """Lets processes through. order: of the names of those that were let."""

    draw: Random
    order: list[str] = field(default_factory=list)

    def run(
        self, first: Child, later: Sequence[tuple[int, Callable[[], Child]]] = ()
    ) -> list[Child]:
        """Until all have ended; all of them, `first` first. Raises Hung.

        later: what begins once `first` has done so many operations.
        """
        children, waiting = [first], sorted(later, key=lambda one: one[0])
        last = first
        try:
            while True:
                for child in children:
                    if child.code is None and not child.waits:
                        child.wait()
                while waiting and first.code is None and first.operations >= waiting[0][0]:
                    children.append(waiting.pop(0)[1]())
                    children[-1].wait()
                ready = [child for child in children if child.waits]
                if not ready:
                    return children
                if last not in ready or self.draw.random() > STAYS:
                    last = self.draw.choice(ready)
                self.order.append(last.name)
                last.go()
        finally:
            for child in children:
                child.end()
