"""Signals that end a run: noted when they come, obeyed where the work can be put down.

Prefect cancels by SIGTERM, a terminal by SIGINT, and by SIGHUP when it is closed. Their handlers
raise wherever the program is, also in the middle of an optimizer step; so a stage notes the signal
instead and asks after each micro-step. Once it has committed, the signal goes to the handler that
it was meant for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from epochal.data.errors import Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Interruption:
    """The signal that came while a stage was at work, if one did."""

    def __init__(self) -> None:
        self._came: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def came(self) -> bool:
        """Whether a signal waits to be obeyed."""
        return self._came is not None

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
        handler = self._before.get(number)
        self._restore()
        if callable(handler):
            handler(number, None)
        raise Interrupted(
            f"{signal.Signals(number).name} came; what was done is committed, run the same command "
            "to go on"
        )

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._came is None:
            self._came = number
            return
        handler = self._before.get(number)
        self._restore()
        if callable(handler):
            handler(number, frame)
        raise KeyboardInterrupt

    def _restore(self) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._note:
                signal.signal(number, handler)
