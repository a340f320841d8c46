"""Time, threads and locks as the product's code sees them inside a simulation.

Outside of one, and in threads that belong to none, these are Python's own: the modules of the
product keep what is put into them here.
"""

import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty

from support.simulator.scheduler import Scheduler

BEGIN_S = 1_700_000_000.0
"""Seconds since 1970 at which each history begins."""


class Here:
    """The simulation that goes on, if one does, and how far its wall clock was set back."""

    scheduler: Scheduler | None = None
    set_back_s: float = 0.0


def simulated() -> Scheduler | None:
    """The scheduler of this very thread; None outside of a simulation."""
    scheduler = Here.scheduler
    return scheduler if scheduler is not None and scheduler.task is not None else None


class VirtualTime:
    """In place of the module `time`. What is not here is Python's own."""

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)

    @staticmethod
    def monotonic() -> float:
        scheduler = simulated()
        return time.monotonic() if scheduler is None else scheduler.now_s

    perf_counter = monotonic

    @staticmethod
    def perf_counter_ns() -> int:
        scheduler = simulated()
        return time.perf_counter_ns() if scheduler is None else int(scheduler.now_s * 1e9)

    @staticmethod
    def time() -> float:
        scheduler = simulated()
        return time.time() if scheduler is None else BEGIN_S + scheduler.now_s - Here.set_back_s

    @staticmethod
    def time_ns() -> int:
        return int(VirtualTime.time() * 1e9)

    @staticmethod
    def sleep(seconds: float) -> None:
        scheduler = simulated()
        if scheduler is None:
            time.sleep(seconds)
        else:
            scheduler.sleep(seconds)


class VirtualLock:
    """A lock that its own thread may take again: whoever waits for it hands the baton on."""

    def __init__(self) -> None:
        self._owner: object = None
        self._count = 0

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> bool:
        scheduler = simulated()
        asker = threading.get_ident() if scheduler is None else scheduler.task
        if self._owner is not asker and self._owner is not None and scheduler is not None:
            scheduler.wait(lambda: self._owner is None, "a lock")
        self._owner = asker
        self._count += 1
        return True

    def release(self) -> None:
        self._count -= 1
        if not self._count:
            self._owner = None


class VirtualEvent:
    """In place of `threading.Event`."""

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = Here.scheduler
        assert scheduler is not None
        return scheduler.wait(self.is_set, "an event", timeout)


class VirtualThread:
    """In place of `threading.Thread`: a thread of the same simulated process."""

    def __init__(
        self,
        *,
        target: Callable[..., object],
        args: tuple[object, ...] = (),
        name: str = "thread",
        daemon: bool = True,
    ) -> None:
        del daemon
        self.name = name
        self._target, self._args = target, args
        self._task = None

    def start(self) -> None:
        scheduler = Here.scheduler
        assert scheduler is not None
        process = scheduler.process
        name = f"{process.name if process else ''}/{self.name}"
        self._task = scheduler.spawn(process, name, lambda: self._target(*self._args))

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.ended

    def join(self, timeout: float | None = None) -> None:
        scheduler = Here.scheduler
        assert scheduler is not None
        scheduler.wait(lambda: not self.is_alive(), f"the end of {self.name}", timeout)


class VirtualThreading:
    """In place of the module `threading`, where the product's threads do more than sums."""

    Thread, Event, Lock, RLock = VirtualThread, VirtualEvent, VirtualLock, VirtualLock

    def __getattr__(self, name: str) -> object:
        return getattr(threading, name)


class VirtualQueue:
    """In place of `queue.SimpleQueue`."""

    def __init__(self) -> None:
        self._items: deque[object] = deque()

    def put(self, item: object) -> None:
        self._items.append(item)

    def get(self) -> object:
        scheduler = Here.scheduler
        assert scheduler is not None
        scheduler.wait(lambda: bool(self._items), "a queue")
        return self._items.popleft()

    def get_nowait(self) -> object:
        if not self._items:
            raise Empty
        return self._items.popleft()


_TIME, _THREADING = VirtualTime(), VirtualThreading()
THREADED = (
    "epochal.tasks.checkpoints.commit_writer",
    "epochal.tasks.tracking.background",
    "epochal.tasks.trainer.trainer",
)
"""Modules whose threads take part. Those that hash and sync one file are left as they are: nobody
else sees what they do, and the thread that waits for them holds the baton meanwhile."""


def put_in_place() -> None:
    """In all modules of the product that are loaded by now. Once for a process."""
    from epochal.tasks.checkpoints.commit_writer import CommitWriter
    from epochal.tasks.goodput.stopwatch import Stopwatch
    from epochal.tasks.launch.local import LocalTrainer
    from epochal.tasks.tracking import background

    for name, module in list(sys.modules.items()):
        if not name.startswith("epochal."):
            continue
        if getattr(module, "time", None) is time:
            module.time = _TIME
        if getattr(module, "monotonic", None) is time.monotonic:
            module.monotonic = _TIME.monotonic
        if name in THREADED:
            module.threading = _THREADING
    background.SimpleQueue = VirtualQueue
    Stopwatch.__init__.__kwdefaults__["clock"] = _TIME.perf_counter_ns
    # Of these two the locks were chosen as the class was made.
    _with_own_lock(CommitWriter, "_ending")
    _with_own_lock(LocalTrainer, "_turn")


def _with_own_lock(kind: type, name: str) -> None:
    begin = kind.__init__

    def __init__(self: object, *args: object, **kwargs: object) -> None:  # noqa: N807
        if simulated() is not None:
            kwargs.setdefault(name, VirtualLock())
        begin(self, *args, **kwargs)

    kind.__init__ = __init__
