"""Ctrl-Z: what it stops beside this process, which trainer processes do not hear of."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_with_this_process(
    send: Callable[[int], None], *, woken: Callable[[], None]
) -> Iterator[None]:
    """Inside the block Ctrl-Z stops trainers too, until both go on.

    send: gives them a signal. woken: called then. Nothing changes outside the main thread, nor
    where SIGTSTP is ignored or has a handler.
    """
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTSTP) is not signal.SIG_DFL
    ):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        send(signal.SIGSTOP)
        stop_this_process()
        send(signal.SIGCONT)
        woken()

    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)


def stop_this_process() -> None:
    """Comes back when it is told to go on."""
    os.kill(os.getpid(), signal.SIGSTOP)
