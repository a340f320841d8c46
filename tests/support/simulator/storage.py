"""A storage in memory, as a client of an object store sees one: it may answer late, wrong or never.

What is written is whole or not there, and stays as it is. A request can be lost before it is done
or after, be done a second time, or long after the client has given up; a listing can be an old one;
bytes can change on their way.
"""

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from support.simulator.faults import Faults
from support.simulator.scheduler import Scheduler

from epochal.data.store.backend import R, T, UnfinishedUpload

LONGEST_S = 0.02
"""A request takes up to so long."""
HANG_S = 90.0
"""After so long a client stops waiting for an answer: longer than a run waits for its store."""
LATE_S = 20.0
"""Up to so long after its client has given up a request may still be done."""
KEPT_LISTINGS = 8


class Bucket:
    """The objects, and what the last listings would have shown. Outlives the processes."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self._before: list[dict[str, int]] = []

    def changed(self) -> None:
        """Before a change: keeps what a listing shows now."""
        self._before.append(self._sizes())
        del self._before[:-KEPT_LISTINGS]

    def _sizes(self) -> dict[str, int]:
        return {path: len(data) for path, data in self.objects.items()}

    def listed(self, folder: str, *, old: int | None) -> dict[str, int]:
        """Path → bytes below a folder. old: as so many changes ago; None: as it is."""
        sizes = self._sizes() if old is None or not self._before else self._before[-old:][0]
        start = f"{folder}/" if folder else ""
        if folder in sizes:
            return {folder: sizes[folder]}
        return {path: sizes[path] for path in sorted(sizes) if path.startswith(start)}


class SimulatedStorage:
    """The `Backend` of one store that a process has opened."""

    exclusive = True

    def __init__(
        self, bucket: Bucket, scheduler: Scheduler, faults: Callable[[], Faults], folder: Path
    ) -> None:
        self._bucket = bucket
        self._scheduler = scheduler
        self._faults = faults
        self._folder = folder

    def _do(self, name: str, path: str, operation: Callable[[], R]) -> tuple[R, str | None]:
        """What an operation gives, and the fault that meets its answer."""
        scheduler = self._scheduler
        kind = self._faults().strike("store", name)
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
        try:
            operation()
        except OSError:
            pass  # nobody hears of it

    def put_new(self, path: str, source: bytes | Path) -> None:
        """As `Backend` has it."""
        data = source.read_bytes() if isinstance(source, Path) else source

        def put() -> None:
            if path in self._bucket.objects:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
            self._bucket.changed()
            self._bucket.objects[path] = data

        self._do("put_new", path, put)

    def read(self, path: str, *, max_bytes: int) -> bytes:
        """As `Backend` has it."""
        data, kind = self._do("read", path, lambda: self._found(path))
        return self._changed(data, kind)[: max_bytes + 1]

    def _found(self, path: str) -> bytes:
        if path not in self._bucket.objects:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._bucket.objects[path]

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

        def size() -> int | None:
            data = self._bucket.objects.get(path)
            return None if data is None else len(data)

        return self._do("size", path, size)[0]

    def listing(self, folder: str) -> dict[str, int]:
        """As `Backend` has it."""
        listed, kind = self._do("listing", folder, lambda: self._bucket.listed(folder, old=None))
        if kind == "stale_list":
            old = 1 + self._scheduler.random.randrange(KEPT_LISTINGS)
            return self._bucket.listed(folder, old=old)
        return listed

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """One after the other."""
        return [function(item) for item in items]

    def delete(self, path: str) -> None:
        """As `Backend` has it."""

        def delete() -> None:
            self._bucket.changed()
            self._bucket.objects.pop(path, None)

        self._do("delete", path, delete)

    def move(self, path: str, target: str) -> None:
        """As `Backend` has it: a copy, then a deletion, between which others may come."""
        data, _ = self._do("move", path, lambda: self._found(path))
        self.put_new(target, data)
        self.delete(path)

    @contextmanager
    def fetch(self, path: str) -> Iterator[Path]:
        """As `Backend` has it."""
        data, kind = self._do("fetch", path, lambda: self._found(path))
        with self._private() as folder:
            local = folder / path.rpartition("/")[2]
            local.write_bytes(self._changed(data, kind))
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
        with self._private() as folder:
            yield folder

    @contextmanager
    def _private(self) -> Iterator[Path]:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _known(path: str) -> str:
    """The path as it is in each replay: names that the system's randomness makes are left out."""
    first, _, rest = path.partition("/")
    if first == "tmp" or "/attempts/" in path:
        return first
    return f"{first}/{rest}"
