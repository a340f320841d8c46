"""A storage as its clients see one: it may answer late, wrong or never.

What is written is whole or not there, and stays as it is. A request can be lost before it is done
or after, be done a second time, or long after the client has given up; a listing can be an old one;
bytes can change on their way.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from support.simulator.faults import Faults
from support.simulator.scheduler import Scheduler

from epochal.data.store.backend import R, T, UnfinishedUpload
from epochal.data.store.local import LocalBackend

LONGEST_S = 0.02
"""A request takes up to so long."""
HANG_S = 90.0
"""After so long a client stops waiting for an answer: longer than a run waits for its store."""
LATE_S = 20.0
"""Up to so long after its client has given up a request may still be done."""
KEPT_LISTINGS = 8
LOCALLY = {"late_answer": "timeout", "doubled": "lost_answer"}
"""What these are in a folder, where nothing travels."""


class Objects:
    """A bucket: the objects, each whole. A `Backend` that does not fail, and outlives processes."""

    exclusive = True

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, bytes] = {}
        self._folder = folder

    def put_new(self, path: str, source: bytes | Path) -> None:
        """As `Backend` has it; likewise the others."""
        if path in self.objects:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        self.objects[path] = source.read_bytes() if isinstance(source, Path) else source

    def read(self, path: str, *, max_bytes: int) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self.objects[path][: max_bytes + 1]

    def size(self, path: str) -> int | None:
        data = self.objects.get(path)
        return None if data is None else len(data)

    def listing(self, folder: str) -> dict[str, int]:
        if folder in self.objects:
            return {folder: len(self.objects[folder])}
        start = f"{folder}/" if folder else ""
        return {
            path: len(data) for path, data in sorted(self.objects.items()) if path.startswith(start)
        }

    def delete(self, path: str) -> None:
        self.objects.pop(path, None)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        data = self.read(path, max_bytes=1 << 40)
        with self.scratch() as folder:
            local = folder / path.rpartition("/")[2]
            local.write_bytes(data)
            yield local

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Seen:
    """What listings have shown in a history: folder → the last of them. A stale one is of these."""

    listings: dict[str, list[dict[str, int]]] = field(default_factory=dict)

    def add(self, folder: str, listing: dict[str, int]) -> None:
        kept = self.listings.setdefault(folder, [])
        kept.append(listing)
        del kept[:-KEPT_LISTINGS]


class SimulatedStorage:
    """The `Backend` of one store that a process has opened: what is behind it, and how it fails.

    inner: the objects, or the product's own backend of a folder, below which is a simulated disk.
    """

    exclusive = True

    def __init__(
        self,
        inner: Objects | LocalBackend,
        scheduler: Scheduler,
        faults: Callable[[], Faults],
        seen: Seen,
    ) -> None:
        self._inner = inner
        self._scheduler = scheduler
        self._faults = faults
        self._seen = seen
        self._remote = isinstance(inner, Objects)

    def _do(self, name: str, path: str, operation: Callable[[], R]) -> tuple[R, str | None]:
        """What an operation gives, and the fault that meets its answer."""
        scheduler = self._scheduler
        kind = self._faults().strike("store", name)
        if not self._remote and kind in LOCALLY:
            kind = LOCALLY[kind]
        scheduler.note(f"{name} {_known(path)} {kind or ''}")
        process = scheduler.process
        if kind in {"kill", "torn"} and process is not None:  # half an upload is seen by nobody
            scheduler.kill(process)
        scheduler.sleep(scheduler.random.uniform(0.0, LONGEST_S))
        match kind:
            case "enospc":
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
            case "eio":
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)
            case "timeout":
                raise TimeoutError(errno.ETIMEDOUT, "nothing came", path)
            case "hang":
                scheduler.sleep(HANG_S)
                raise TimeoutError(errno.ETIMEDOUT, "nothing came for long", path)
            case "late_answer":
                after_s = scheduler.random.uniform(0.0, LATE_S)
                scheduler.spawn(None, "network", lambda: self._late(operation, after_s))
                raise TimeoutError(errno.ETIMEDOUT, "nothing came yet", path)
        if kind == "doubled":
            self._ignoring(operation)
        try:
            found = operation()
        except OSError:
            if kind == "lost_answer":
                raise TimeoutError(errno.ETIMEDOUT, "the answer got lost", path) from None
            raise
        if kind == "kill_after" and process is not None:
            scheduler.kill(process)
        scheduler.switch(f"{name} done")
        if kind == "lost_answer":
            raise TimeoutError(errno.ETIMEDOUT, "the answer got lost", path)
        return found, kind

    def _late(self, operation: Callable[[], object], after_s: float) -> None:
        self._scheduler.sleep(after_s)
        self._scheduler.note("a late request is done")
        self._ignoring(operation)

    @staticmethod
    def _ignoring(operation: Callable[[], object]) -> None:
        with suppress(OSError):  # nobody hears of it
            operation()

    def put_new(self, path: str, source: bytes | Path) -> None:
        """As `Backend` has it."""
        if self._remote and isinstance(source, Path):
            source = source.read_bytes()  # a late request has them too
        self._do("put_new", path, lambda: self._inner.put_new(path, source))

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """As `Backend` has it."""
        data, kind = self._do("read", path, lambda: self._inner.read(path, max_bytes=max_bytes))
        return self._changed(data, kind)

    def _changed(self, data: bytes, kind: str | None) -> bytes:
        """The bytes as they come."""
        draw = self._scheduler.random
        if kind == "short_read" and data:
            return data[: draw.randrange(len(data))]
        if kind == "flip" and data:
            bits = bytearray(data)
            bits[draw.randrange(len(bits))] ^= 1 << draw.randrange(8)
            return bytes(bits)
        return data

    def size(self, path: str) -> int | None:
        """As `Backend` has it."""
        return self._do("size", path, lambda: self._inner.size(path))[0]

    def listing(self, folder: str) -> dict[str, int]:
        """As `Backend` has it."""
        listed, kind = self._do("listing", folder, lambda: self._inner.listing(folder))
        self._seen.add(folder, listed)
        if kind == "stale_list":
            return self._scheduler.random.choice(self._seen.listings[folder])
        return listed

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other."""
        return [function(item) for item in items]

    def delete(self, path: str) -> None:
        """As `Backend` has it."""
        self._do("delete", path, lambda: self._inner.delete(path))

    def move(self, path: str, target: str) -> None:
        """As `Backend` has it; of objects a copy, then a deletion: others may come between."""
        inner = self._inner
        if isinstance(inner, LocalBackend):
            self._do("move", path, lambda: inner.move(path, target))
            return
        data, _ = self._do("move", path, lambda: inner.read(path, max_bytes=1 << 40))
        self.put_new(target, data)
        self.delete(path)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """As `Backend` has it."""
        with ExitStack() as stack:
            local, kind = self._do(
                "fetch", path, lambda: stack.enter_context(self._inner.fetch(path))
            )
            if kind in {"flip", "short_read"}:  # of a copy: the file may be the object itself
                copy = stack.enter_context(self._inner.scratch()) / local.name
                copy.write_bytes(self._changed(local.read_bytes(), kind))
                local = copy
            yield local

    def forget(self, path: str) -> None:
        """Nothing is kept."""

    def unfinished_uploads(self, *, quiet_s: float) -> list[UnfinishedUpload]:
        """None: an upload in parts is one operation here."""
        del quiet_s
        return []

    def abort_upload(self, upload: UnfinishedUpload) -> None:
        """There is none."""

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """As `Backend` has it."""
        with ExitStack() as stack:
            folder, _ = self._do("scratch", "", lambda: stack.enter_context(self._inner.scratch()))
            yield folder


def _known(path: str) -> str:
    """The path as it is in each replay: names that the system's randomness makes are left out."""
    first, _, rest = path.partition("/")
    if first == "tmp" or "/attempts/" in path:
        return first
    return f"{first}/{rest}"
