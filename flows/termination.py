"""Signals that end a command, wherever it is: SIGTERM, and those that mean the same.

A stage at work notes a signal and commits before it obeys (`epochal.tasks.trainer.interruption`);
this is for all the time around the stages, the start above all.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from epochal.data.errors import Interrupted
from epochal.tasks.trainer.interruption import AS_TERM, end_process_by


class TerminationSignal(BaseException):
    """What a signal raises wherever the program is. By its name it is told from users' errors.

    No KeyboardInterrupt: one that passes through `exec` ends the process by SIGINT at its exit,
    although it was caught.
    """


@contextmanager
def told_of_termination() -> Iterator[None]:
    """Inside the block a signal that ends the process raises Interrupted, naming the signal.

    Whatever becomes of what the signal's handler raised on its way through other libraries: they
    may wrap it. Ignored signals stay ignored, as SIGHUP is under `nohup`. Outside the main thread
    nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # one that the user's code has forked, and now ends
            end_process_by(number)
        came.append(number)
        handler = signal.getsignal(signal.SIGTERM)
        if callable(handler) and handler is not end:  # Prefect's, which ends the flow run too
            handler(number, frame)
        raise TerminationSignal(signal.Signals(number).name)

    numbers = [
        number
        for number in (signal.SIGTERM, *AS_TERM)
        if signal.getsignal(number) != signal.SIG_IGN
    ]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    except Interrupted:
        raise
    except BaseException as error:
        if not came and not _is_termination(error):
            raise
        name = signal.Signals(came[-1] if came else signal.SIGTERM).name
        raise Interrupted(
            f"{name} came; what was committed is intact, run the same command to go on"
        ) from error
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is end:
                signal.signal(number, handler)


def quick_end() -> Callable[[int], int]:
    """At the start of a process: what is to be told, and gives, the code that it ends with.

    Then it ends when its threads and all that was registered for its exit are through, without
    taking apart a million objects that go with it anyway: 0.2 s, on a busy machine 0.9 s. Ended in
    any other way, by an exception too, it ends as ever.
    """
    process = os.getpid()
    told: list[int] = []

    def end() -> None:
        if not told or os.getpid() != process:
            return
        logging.shutdown()  # was registered before this
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # closed by its reader: Python has words for it
                return
        os._exit(told[0])

    def tell(code: int) -> int:
        told.append(code)
        return code

    atexit.register(end)  # first, so that it comes last
    return tell


def _is_termination(error: BaseException | None) -> bool:
    """Whether it is Prefect's TerminationSignal, or an error that was made of one.

    Where a signal comes while pydantic serializes, the text of its own error is all that is left.
    """
    while error is not None:
        if "TerminationSignal" in f"{type(error).__name__}: {error}":
            return True
        error = error.__cause__ or error.__context__
    return False
