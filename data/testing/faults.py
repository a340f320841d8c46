"""Faults for tests: a storage that fails at the operation that you name, the same way each time.

    with injected(FaultPlan("enospc", at=17)):
        ...                                     # whatever opens a store

Counts the operations that reach the storage, from 1. Several plans may be given: each counts all
operations, and where two of them name the same one the first of them has it. For tests of Epochal
and of your own storage.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from epochal.data.store import open as opening
from epochal.data.store.backend import Backend, R, T, UnfinishedUpload
from epochal.data.store.local_disk import use_disk
from epochal.data.testing.disk import FaultyDisk
from epochal.data.testing.plan import FaultPlan, Kind, next_fault

_ERRNO = {"enospc": errno.ENOSPC, "eio": errno.EIO, "timeout": errno.ETIMEDOUT}
_WRITES = {"put_new", "scratch", "move"}


class FaultyBackend:
    """A backend whose operations go through one plan or several."""

    def __init__(self, inner: Backend, *plans: FaultPlan) -> None:
        self._inner = inner
        self._plans = plans
        self._first_listing: dict[str, dict[str, int]] = {}
        self.exclusive = inner.exclusive

    @contextmanager
    def _faults(
        self, name: str, path: str, source: bytes | Path | None = None
    ) -> Iterator[Kind | None]:
        plan = next_fault(self._plans, name)
        kind = None if plan is None else plan.kind
        if kind == "torn" and source is not None:
            self._tear(source)
        if plan is not None and kind in {"kill", "torn"}:
            plan.die()
        if kind in _ERRNO and (kind != "enospc" or name in _WRITES):
            raise OSError(_ERRNO[kind], os.strerror(_ERRNO[kind]), path)
        after = kind in {"kill_after", "lost_answer"}
        try:
            yield kind
        except Exception:  # whatever a file system raises
            if not after:  # else the answer that gets lost is this one: something is there already
                raise
        if plan is not None and kind == "kill_after":
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
        with self._faults("read", path) as happens:
            data = self._inner.read(path, max_bytes=max_bytes)
        return self._flipped(data) if happens == "flip" else data

    def _flipped(self, data: bytes) -> bytes:
        """The bytes with one bit flipped, at another place each time."""
        if not data:
            return data
        number = max(len(plan.operations) for plan in self._plans if plan.kind == "flip")
        changed = bytearray(data)
        changed[number * 7919 % len(data)] ^= 1 << number % 8
        return bytes(changed)

    def size(self, path: str) -> int | None:
        """As the backend below, or as the plan has it."""
        with self._faults("size", path):
            return self._inner.size(path)

    def listing(self, folder: str) -> dict[str, int]:
        """As the backend below, or as the plan has it."""
        with self._faults("listing", folder) as happens:
            sizes = self._inner.listing(folder)
        first = self._first_listing.setdefault(folder, sizes)
        return first if happens == "stale_list" else sizes

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other, so that each operation has the same number in every run."""
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
            with self._faults("fetch", path) as happens:
                local = stack.enter_context(self._inner.fetch(path))
            if happens == "flip":  # of a copy: the file may be the object itself
                copy = stack.enter_context(self._inner.scratch()) / local.name
                copy.write_bytes(self._flipped(local.read_bytes()))
                local = copy
            yield local

    def forget(self, path: str) -> None:
        """As the backend below; no operation."""
        self._inner.forget(path)

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """As the backend below; no operation: only `gc` asks."""
        return self._inner.unfinished_uploads(quiet_s=quiet_s)

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """As the backend below, or as the plan has it."""
        with self._faults("abort_upload", upload.path):
            self._inner.abort_upload(upload)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As the backend below, or as the plan has it."""
        with ExitStack() as stack:
            with self._faults("scratch", ""):
                folder = stack.enter_context(self._inner.scratch())
            yield folder


@contextmanager
def injected(plan: FaultPlan, *more: FaultPlan) -> Iterator[FaultPlan]:
    """Inside the block every store that is opened goes through `plan`, and through `more` of them.

    Plans of one level count the same operations, each for itself; where two name the same one, the
    first of them has it. Gives `plan`; of `more` the caller has them.
    """
    plans = (plan, *more)
    store = tuple(one for one in plans if one.level == "store")
    below = tuple(one for one in plans if one.level == "disk")
    original = opening.backend_at

    def faulty(address: str) -> Backend:
        return FaultyBackend(original(address), *store)

    with ExitStack() as stack:
        if below:
            stack.callback(use_disk, use_disk(FaultyDisk(*below)))
        if store:
            opening.backend_at = faulty
            stack.callback(setattr, opening, "backend_at", original)
        yield plan
