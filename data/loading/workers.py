"""Micro-batches read ahead by worker processes, in order; no worker outlives its reader.

The reader is the process that trains. Workers ignore the signals that end a run: one that is sent
to the whole process group would kill them, and the training would fail before it could commit. So
the reader ends them: when it has read everything, when its iterator is closed or dropped, and at
exit; if it is killed, the kernel does.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from multiprocessing import resource_sharer
from multiprocessing.context import ForkContext
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from multiprocessing.reduction import ForkingPickler
from multiprocessing.util import Finalize
from types import TracebackType
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from epochal.data.errors import TrainingFailed
from epochal.data.files.positions import own_file_positions
from epochal.data.loading.ahead import Telling
from epochal.data.traces import in_one_line, users_line, users_trace

GRACE_S = 2.0  # for a worker in the middle of an item; then it is killed
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

at_begin: list[Callable[[], None]] = []
"""Called in each worker, once torch has set its handlers of signals there."""

_running: set[BaseProcess] = set()
_exiting = threading.Event()


def read_ahead(
    source: Callable[[int], Any],
    micro_steps: Collection[int],
    *,
    workers: int,
    prefetch: int,
    pin: bool,
    telling: Callable[[Iterable[int]], Telling] | None = None,
) -> Generator[Any, None, None]:
    """The data of `micro_steps`, in order, read by `workers` processes, `prefetch` ahead in each.

    telling: makes what is called, in the process that reads, before each of its micro-steps.
    pin: a thread of torch's then puts them into memory that a CUDA device copies from by itself.
    Closing or dropping the iterator ends the processes. On Linux they are forked, so `source` need
    not be picklable there; they also end with the thread that started them.
    Raises TrainingFailed, as `source` does, or if a worker was killed.
    """
    context = _ForkContext() if sys.platform == "linux" else None
    loader: DataLoader[Any] = DataLoader(
        _Steps(source, micro_steps, telling),
        batch_size=None,  # an item is a whole micro-batch
        sampler=micro_steps,
        num_workers=workers,
        prefetch_factor=prefetch,
        pin_memory=pin,
        collate_fn=_unchanged,
        worker_init_fn=partial(_begin_worker, os.getpid()),
        generator=torch.Generator().manual_seed(0),  # else it draws from the global one
        multiprocessing_context=context,
    )
    batches: Any = iter(loader)
    processes: list[BaseProcess] = list(batches._workers)  # noqa: SLF001 - there is no public way
    _running.update(processes)
    try:
        while True:
            try:
                data = next(batches)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                raise TrainingFailed(
                    f"a worker of the loader ended: {error}; if it was killed, memory may have run "
                    "out: set loader.workers lower, or 0"
                ) from error
            if isinstance(data, _Failed):
                failed = TrainingFailed(data.message)
                failed.trace = data.trace
                raise failed
            yield data
    finally:
        _end(batches, processes)


@dataclass(frozen=True)
class _Failed:
    """A worker's error as text, so that its message is the same as without workers."""

    message: str
    trace: str | None


class _Steps(Dataset[Any]):
    def __init__(
        self,
        source: Callable[[int], Any],
        micro_steps: Collection[int],
        telling: Callable[[Iterable[int]], Telling] | None,
    ) -> None:
        self._source = source
        self._micro_steps = micro_steps
        self._telling = telling
        self._tell: Telling | None = None

    def __getitem__(self, micro_step: int) -> Any:
        if self._telling is not None:
            if self._tell is None:  # torch deals them out in turn
                info: Any = get_worker_info()
                own = islice(self._micro_steps, info.id, None, info.num_workers)
                self._tell = self._telling(own)
            self._tell(micro_step)
        try:
            return self._source(micro_step)
        except TrainingFailed as error:
            return _Failed(str(error), users_trace(error))
        except KeyboardInterrupt as error:  # no signal's: workers ignore those. Torch would be mute
            told = f"an item raised {in_one_line(error)}{users_line(error)}"
            return _Failed(told, users_trace(error))


class _Queue(Queue):  # type: ignore[type-arg]  # it takes none at work
    """A queue that brings no thread into the reader, whose orders fit into a pipe at any time.

    What workers put is large: there a thread writes it, as in any such queue.
    """

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        self._reader_pid = os.getpid()

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:  # noqa: FBT001, FBT002 - as it is there
        """Writes it, where the queue was made; else leaves it to the thread."""
        if os.getpid() != self._reader_pid:
            super().put(obj, block, timeout)
            return
        base: dict[str, Any] = vars(self)
        base["_sem"].acquire()  # which `get` releases
        with base["_wlock"]:
            base["_writer"].send_bytes(ForkingPickler.dumps(obj))


class _ForkContext(ForkContext):
    def Queue(self, maxsize: int = 0) -> Queue[Any]:
        """The queue of a loader, which sets no limit."""
        assert maxsize == 0
        return _Queue(ctx=self.get_context())


def _unchanged(data: Any) -> Any:
    return data


def _begin_worker(reader: int, _: int) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != reader:  # the reader died before prctl took effect
        os._exit(1)
    _end_without_a_word()
    own_file_positions()
    for begin in at_begin:
        begin()
    # Exit handlers of the reader (Prefect's log senders have some) were copied by the fork. They
    # would run here too, fail without their threads, and make a normal end look like a crash.
    Finalize(None, os._exit, args=(0,), exitpriority=-1000)


def _end_without_a_word() -> None:
    """A reader that is killed while it takes a tensor from here is no error of this worker.

    The thread that hands tensors over would show its trace in the user's terminal. Where the reader
    lives, it says itself what it did not get.
    """
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        of_sharer = trace is not None and trace.tb_frame.f_globals is vars(resource_sharer)
        if not (of_sharer and isinstance(error, (ConnectionError, EOFError))):
            shown(kind, error, trace)

    sys.excepthook = hook


def _end(batches: Any, processes: list[BaseProcess]) -> None:
    if _exiting.is_set():  # no thread can start any more; `_exit` has killed all workers
        return
    with _no_raising_at_deaths():
        timer = threading.Timer(GRACE_S, _kill, args=(processes,))
        timer.daemon = True
        timer.start()
        try:
            with suppress(RuntimeError):  # torch's, when it sees that the timer killed a worker
                batches._shutdown_workers()  # noqa: SLF001 - else only when it is collected
        finally:
            timer.cancel()
            _kill(processes)
            for process in processes:
                process.join()
            _running.difference_update(processes)


@contextmanager
def _no_raising_at_deaths() -> Iterator[None]:
    """Inside the block torch does not raise when a worker ends.

    Its handler of SIGCHLD raises wherever the main thread is, also while that starts a thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        yield
    finally:
        if before is not None:  # one that was not set from Python cannot be set from there
            signal.signal(signal.SIGCHLD, before)


def _kill(processes: Sequence[BaseProcess] | set[BaseProcess]) -> None:
    for process in list(processes):
        with suppress(ValueError):  # it was closed
            process.kill()


def _exit() -> None:
    _exiting.set()
    if _running:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's raises at a killed worker
        _kill(_running)


# At exit multiprocessing sends its children SIGTERM, which workers ignore, and waits for them for
# ever. In a process that multiprocessing itself started this happens before the functions that are
# registered with `atexit`, so `_exit` is also registered with multiprocessing, at a high priority.
atexit.register(_exit)
Finalize(None, _exit, exitpriority=1000)
