"""Micro-batches read ahead by threads of this process, in order.

For decoders that let go of the interpreter: nothing is copied from process to process and nothing
is held twice. What threads read must draw nothing from the global generators, which belong to the
thread that trains.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future
from itertools import islice
from queue import SimpleQueue
from typing import Any
from weakref import WeakSet

from epochal.data.errors import TrainingFailed
from epochal.data.loading.items import ItemSource, kept_generators
from epochal.data.traces import in_one_line, users_line, users_trace

GRACE_S = 2.0
"""For a thread in the middle of an item, when the reading ends; a daemon, it is then left to it."""


def read_in_threads(
    source: ItemSource,
    micro_steps: Collection[int],
    *,
    threads: int,
    prefetch: int,
    ready: Callable[[Any], Any],
) -> Generator[Any, None, None]:
    """The data of `micro_steps`, in order, read by threads: at most `threads * prefetch` ahead.

    ready: what else is done to the data of a micro-batch in the thread that has read it. The first
    micro-batch is read in the calling thread, which has nothing else to do yet: so `source` can
    tell whether items draw.
    Closing or dropping the iterator ends the threads. Raises TrainingFailed, as `source` does.
    """
    assert source.thread_safe
    steps, tell = iter(micro_steps), source.telling(micro_steps)
    pool = _Pool(threads)
    try:
        first = next(steps, None)
        if first is None:
            return

        def read(micro_step: int) -> Any:
            data = source.beside_others(micro_step)
            return data if source.has_collate else ready(data)

        def begun(micro_step: int) -> tuple[int, Future[Any]]:
            tell(micro_step)
            return micro_step, pool.submit(read, micro_step)

        tell(first)
        waiting = deque(map(begun, islice(steps, threads * prefetch)))
        with kept_generators():
            data = source(first)
        yield ready(data)
        del data
        while waiting:
            step, future = waiting.popleft()
            data = _result(future)
            waiting.extend(map(begun, islice(steps, 1)))
            if source.has_collate:
                with kept_generators():
                    data = ready(source.collated(step, data))
            yield data
            del data, future  # else they are held while the next is waited for
    finally:
        pool.close()


def _result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except KeyboardInterrupt as error:
        if not future.done() or future.exception() is not error:
            raise  # it came to this thread
        failed = TrainingFailed(f"an item raised {in_one_line(error)}{users_line(error)}")
        failed.trace = users_trace(error)
        raise failed from error


class _Pool:
    """Threads that do what is submitted, in its order, until it is closed.

    Not `ThreadPoolExecutor`: at exit that waits for its threads, however long their items take.
    """

    def __init__(self, threads: int) -> None:
        self._work: SimpleQueue[tuple[Future[Any], Callable[..., Any], Any] | None] = SimpleQueue()
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name=f"epochal-read-{number}", daemon=True)
            for number in range(threads)
        ]
        _open.add(self)
        for thread in self._threads:
            thread.start()

    def submit(self, function: Callable[[Any], Any], argument: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self._work.put((future, function, argument))
        return future

    def close(self) -> None:
        """Ends the threads after the item that each is at; waits for them, but not for long."""
        self._closed = True
        for _ in self._threads:
            self._work.put(None)
        until_s = time.monotonic() + GRACE_S
        for thread in self._threads:
            thread.join(max(0.0, until_s - time.monotonic()))
        _open.discard(self)

    def _run(self) -> None:
        while (work := self._work.get()) is not None and not self._closed:
            future, function, argument = work
            try:
                future.set_result(function(argument))
            except BaseException as error:  # noqa: BLE001 - raised in the thread that waits for it
                future.set_exception(error)
            del work, future  # else a batch is held until the next one comes


_open: WeakSet[_Pool] = WeakSet()


def _exit() -> None:
    for pool in list(_open):
        pool.close()


atexit.register(_exit)
