"""A fault kit: a storage that fails at the operation that you name, the same way each time.

    with injected(FaultPlan("enospc", at=17)):
        ...                                     # whatever opens a store

Counts the operations that reach the storage, from 1. For tests of Epochal and of your own storage.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from epochal.data.store import backend as backends
from epochal.data.store.backend import Backend, R, T
from epochal.data.store.local_disk import use_disk
from epochal.data.testing.disk import FaultyDisk

Kind = Literal[
    "kill",
    "kill_after",
    "torn",
    "power",
    "lying",
    "enospc",
    "eio",
    "timeout",
    "lost_answer",
    "stale_list",
]
Level = Literal["store", "disk"]
KINDS: dict[Level, tuple[Kind, ...]] = {
    "store": (
        "kill",
        "kill_after",
        "torn",
        "enospc",
        "eio",
        "timeout",
        "lost_answer",
        "stale_list",
    ),
    "disk": ("kill", "kill_after", "torn", "power", "lying", "enospc", "eio"),
}
"""Which faults there are where."""
KILLED = 137
_ERRNO = {"enospc": errno.ENOSPC, "eio": errno.EIO, "timeout": errno.ETIMEDOUT}
_WRITES = {"put_new", "scratch", "move"}


def end_process() -> None:
    """As SIGKILL does: nothing is flushed, nothing is closed."""
    os._exit(KILLED)


@dataclass
class FaultPlan:
    """What fails, and when.

    kind: `kill` ends the process before the operation, `kill_after` after it; `torn` writes half of
    what was to be written under a temporary name, then ends the process; `power` ends it too, and
    of what this process did only synced bytes and synced names are left; `lying` says that a file
    is synced, and half of it is gone; `enospc` (writes only), `eio` and `timeout` raise instead of
    doing it; `lost_answer` does it, then raises a timeout; `stale_list` lists what was there at
    the first listing.
    at: the first operation that fails, from 1; 0: none. count: how many fail from there on.
    level: `store` counts what a store asks of any storage; `disk` counts the system calls below a
    store in a local folder. Raises ValueError for a kind that its level does not have.
    """

    kind: Kind = "kill"
    at: int = 0
    count: int = 1
    level: Level = "store"
    die: Callable[[], None] = end_process
    operations: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS[self.level]:
            message = f"{self.kind}: a {self.level} has {', '.join(KINDS[self.level])}"
            raise ValueError(message)

    def next(self, name: str) -> bool:
        """Counts an operation; whether it is one that fails."""
        with self._lock:
            self.operations.append(name)
            return self.at <= len(self.operations) < self.at + self.count

    @property
    def hit(self) -> bool:
        """Whether the operation `at` was reached."""
        return 0 < self.at <= len(self.operations)


class FaultyBackend:
    """A backend whose operations go through a plan."""

    def __init__(self, inner: Backend, plan: FaultPlan) -> None:
        self._inner = inner
        self._plan = plan
        self._first_listing: dict[str, dict[str, int]] = {}
        self.exclusive = inner.exclusive

    @contextmanager
    def _faults(self, name: str, path: str, source: bytes | Path | None = None) -> Iterator[None]:
        plan = self._plan
        fails = plan.next(name)
        kind = plan.kind
        if fails and kind == "torn" and source is not None:
            self._tear(source)
        if fails and kind in {"kill", "torn"}:
            plan.die()
        if fails and kind in _ERRNO and (kind != "enospc" or name in _WRITES):
            raise OSError(_ERRNO[kind], os.strerror(_ERRNO[kind]), path)
        after = fails and kind in {"kill_after", "lost_answer"}
        try:
            yield
        except Exception:  # whatever a file system raises
            if not after:  # else this answer, that something is there already, is the lost one
                raise
        if after and kind == "kill_after":
            plan.die()
        if after:
            raise OSError(errno.ETIMEDOUT, "the answer got lost", path)

    def _tear(self, source: bytes | Path) -> None:
        data = source.read_bytes() if isinstance(source, Path) else source
        stack = ExitStack()  # never closed: the process ends
        folder = stack.enter_context(self._inner.scratch())
        (folder / "object").write_bytes(data[: len(data) // 2])
        stack.pop_all()

    def put_new(self, path: str, source: bytes | Path) -> None:
        """As the backend below, or as the plan has it."""
        with self._faults("put_new", path, source):
            self._inner.put_new(path, source)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """As the backend below, or as the plan has it."""
        with self._faults("read", path):
            return self._inner.read(path, max_bytes=max_bytes)

    def size(self, path: str) -> int | None:
        """As the backend below, or as the plan has it."""
        with self._faults("size", path):
            return self._inner.size(path)

    def listing(self, folder: str) -> dict[str, int]:
        """As the backend below, or as the plan has it."""
        before = len(self._plan.operations)
        with self._faults("listing", folder):
            found = self._inner.listing(folder)
        first = self._first_listing.setdefault(folder, found)
        stale = self._plan.kind == "stale_list" and (
            self._plan.at <= before + 1 < self._plan.at + self._plan.count
        )
        return first if stale else found

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other, so that operations have numbers."""
        return [function(item) for item in items]

    def delete(self, path: str) -> None:
        """As the backend below, or as the plan has it."""
        with self._faults("delete", path):
            self._inner.delete(path)

    def move(self, path: str, target: str) -> None:
        """As the backend below, or as the plan has it."""
        with self._faults("move", path):
            self._inner.move(path, target)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """As the backend below, or as the plan has it."""
        with ExitStack() as stack:
            with self._faults("fetch", path):
                local = stack.enter_context(self._inner.fetch(path))
            yield local

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As the backend below, or as the plan has it."""
        with ExitStack() as stack:
            with self._faults("scratch", ""):
                folder = stack.enter_context(self._inner.scratch())
            yield folder


@contextmanager
def injected(plan: FaultPlan) -> Iterator[FaultPlan]:
    """Inside the block every store that is opened goes through `plan`."""
    if plan.level == "disk":
        before = use_disk(FaultyDisk(plan))
        try:
            yield plan
        finally:
            use_disk(before)
        return
    original = backends.backend_at

    def faulty(address: str) -> Backend:
        return FaultyBackend(original(address), plan)

    backends.backend_at = faulty
    try:
        yield plan
    finally:
        backends.backend_at = original
