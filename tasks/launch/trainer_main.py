"""The trainer process: one Python thread, no client of anything. Started by `local.py` alone."""
# ruff: noqa: E402 - two calls must come before most imports

from __future__ import annotations

import gc

from epochal.tasks.launch.thread_randomness import separate_threads

separate_threads()  # before any module that takes functions of `random` for itself
gc.disable()  # for the imports: half a million objects that live until the end

import ctypes
import faulthandler
import io
import os
import signal
import sys
import threading
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from epochal.tasks.computing.buffer import Buffer
from epochal.tasks.launch.failures import FATAL, told_error
from epochal.tasks.launch.meeting import Rank
from epochal.tasks.launch.process_link import FollowerLink, ProcessLink
from epochal.tasks.launch.requests import Worker, handle
from epochal.tasks.trainer.channel import Channel
from epochal.tasks.trainer.interruption import DUMP_SIGNAL, SIGNALS

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_USUAL = {signal.SIGINT: signal.default_int_handler}


def main(given: dict[str, Any]) -> None:
    """Does what the flow's process asks for, until that ends.

    given: descriptors of channel, buffer and traces, the pid of the parent; and its rank, where
    several share the work.
    """
    _end_with_parent(given["parent"])
    _end_forks()
    for number in SIGNALS:  # sent to a whole group; the flow's process says what is to be done
        signal.signal(number, _nothing)
    _trace_crashes(given["traces"])
    faulthandler.register(DUMP_SIGNAL, file=given["traces"], all_threads=True)
    _note_exits(given["traces"])
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")
    _import_ahead(given["traces"])
    rank = None if given["rank"] is None else Rank(**given["rank"])
    kind = FollowerLink if rank is not None and rank.number else ProcessLink
    link = kind(Channel(given["channel"]), Buffer(given["buffer"]))
    worker = Worker(link, rank=rank)
    while True:
        name, body, sent = link.next_request()
        try:
            reply, data = handle(worker, name, body, sent)
        except BaseException as error:  # noqa: BLE001 - the user's code may raise anything
            failure = told_error(error)
            del error  # its frames hold batches and workers
            link.fail(failure)
        else:
            link.reply(reply, data)


def _nothing(number: int, frame: FrameType | None) -> None:
    """A handler, so that what this process starts has none: an ignored signal is inherited."""


def _end_with_parent(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that took effect
        os._exit(1)


def _end_forks() -> None:
    """What the user's code forks obeys signals, and ends with this process, by the kernel.

    The latter where it was forked in the main thread: another may end before what it has forked.
    """
    forking: list[int] = []
    masks: list[set[Any]] = []

    def before() -> None:
        # Held back until the child has handlers of its own: here they would be lost.
        masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS))
        forking[:] = [os.getpid()] if threading.current_thread() is threading.main_thread() else []

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.pop())

    def in_child() -> None:
        for number in SIGNALS:  # else `Pool.terminate()` would wait for ever
            if signal.getsignal(number) is _nothing:
                signal.signal(number, _USUAL.get(number, signal.SIG_DFL))
        in_parent()
        if forking:
            _end_with_parent(forking[0])

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _note_exits(traces: int) -> None:
    """`os._exit` leaves no trace of who called it: here it writes one, as a crash does."""
    end = os._exit

    def noted(status: int) -> NoReturn:
        frame = sys._getframe(1)  # noqa: SLF001 - there is no public way that is as short
        caller = frame.f_globals.get("__name__", "")
        if not caller.startswith(("multiprocessing.", "epochal.")):
            with suppress(OSError):
                os.write(traces, f"\n{FATAL}os._exit({status})\n\nCurrent thread \n".encode())
                faulthandler.dump_traceback(file=traces, all_threads=False)
        end(status)

    os._exit = noted


def _trace_crashes(traces: int) -> None:
    faulthandler.disable()  # or it would not take its place again, which torch takes in a worker
    faulthandler.enable(file=traces, all_threads=True)


def _import_ahead(traces: int) -> None:
    """What every run needs, while the flow's process has other things to do."""
    import torch

    from epochal.data.loading import loader, workers  # noqa: F401 - ahead of its use
    from epochal.engine.loop import epoch, evaluate  # noqa: F401 - likewise
    from epochal.tasks.user_code import components  # noqa: F401 - likewise

    torch.optim.SGD([torch.zeros(1)])  # the first optimizer of a process imports `torch._dynamo`
    workers.at_begin.append(partial(_trace_crashes, traces))
    gc.freeze()
    gc.enable()
