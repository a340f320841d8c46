"""Signals that end a run: noted when they come, obeyed where the work can be put down.

Prefect cancels by SIGTERM, a terminal by SIGINT, and by SIGHUP when it is closed; Slurm sends
SIGUSR1 some time before it ends a job, where it is told to. Their handlers
raise wherever the program is, also in the middle of an optimizer step; so a stage notes the signal
instead and asks after each micro-step. Once it has committed, the signal goes to the handler that
it was meant for.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from epochal.data.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
DUMP_SIGNAL = getattr(signal, "SIGRTMIN", signal.SIGUSR2)
"""Asks a trainer for a dump of what Python is at: one that nobody else uses."""
AS_TERM = (signal.SIGHUP, signal.SIGUSR1)
"""Signals that mean what SIGTERM means, wherever nobody has given them a handler of their own."""


def end_process_by(number: int) -> None:
    """Ends this process as the signal does to one that has no handler of it."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


class Interruption:
    """The signal that came while a stage was at work, if one did."""

    def __init__(self) -> None:
        self._came: int | None = None
        self._came_s = 0.0
        self._pipe: tuple[int, int] | None = None
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self.obeyed = False
        """Whether a signal was handed on: what is raised now is its doing."""

    @property
    def came(self) -> bool:
        """Whether a signal waits to be obeyed."""
        return self._came is not None

    @property
    def since_s(self) -> float:
        """Seconds since the signal came that waits to be obeyed."""
        return time.monotonic() - self._came_s if self.came else 0.0

    def fileno(self) -> int:
        """A descriptor that can be read from once a signal was noted: to wait for one."""
        if self._pipe is None:
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, False)
        return self._pipe[0]

    def close(self) -> None:
        """Gives the descriptors back."""
        pipe, self._pipe = self._pipe, None
        for end in pipe or ():
            os.close(end)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Inside the block signals are noted; at its end a noted signal is obeyed.

        A second signal is obeyed at once. Outside the main thread nothing changes.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        # Ignored signals stay ignored: a shell sets that for commands in the background.
        self._before = {
            number: handler for number, handler in before.items() if handler != signal.SIG_IGN
        }
        try:
            for number in self._before:
                signal.signal(number, self._note)
            yield
        finally:
            self._restore()
        self.obey()

    def obey(self) -> None:
        """Hands a noted signal to the handler that was set before; without one does nothing.

        Raises what its handler raises: KeyboardInterrupt, Prefect's TerminationSignal; Interrupted
        where there was none.
        """
        number, self._came = self._came, None
        if number is None:
            return
        self._hand_on(number, None)
        raise Interrupted(
            f"{signal.Signals(number).name} came; what was done is committed, run the same command "
            "to go on"
        )

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # one that the user's code has forked, and now ends
            end_process_by(number)
        if self._came is None:
            self._came, self._came_s = number, time.monotonic()
            if self._pipe is not None:
                with suppress(BlockingIOError):
                    os.write(self._pipe[1], b"!")
            return
        self._hand_on(number, frame)
        raise KeyboardInterrupt

    def _hand_on(self, number: int, frame: FrameType | None) -> None:
        """Calls the handler that was there before, if there was one."""
        self.obeyed = True
        handler = self._before.get(number)
        if number in AS_TERM and not callable(handler):
            handler = self._before.get(signal.SIGTERM)
        self._restore()
        if callable(handler):
            handler(number, frame)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
