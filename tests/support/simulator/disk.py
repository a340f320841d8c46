"""A disk below a store in a folder: what was not synced may be lost with the power, in any order.

Files and names are real ones, in memory. Where power is lost, each name that was made or taken away
since its folder was synced stays or goes by itself, and each file whose bytes were not synced keeps
all of them, half, or none: a page cache writes back in an order of its own.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from support.simulator.faults import Faults
from support.simulator.scheduler import Scheduler

from epochal.data.store.local_disk import SystemDisk

_ERRNO = {"enospc": errno.ENOSPC, "eio": errno.EIO}


@dataclass
class _Unsynced:
    """names: made and not synced. removed: unlinked → where it is kept. files: all that were
    written. synced: versions of files (inode, size, time of change) that are on the disk."""

    names: list[Path] = field(default_factory=list)
    removed: dict[Path, Path] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    synced: set[tuple[int, int, int]] = field(default_factory=set)


class SimulatedDisk:
    """In place of `SystemDisk`: of the one machine of a history. folder: for what may come back."""

    def __init__(self, scheduler: Scheduler, faults: Callable[[], Faults], *, folder: Path) -> None:
        self._scheduler, self._faults, self._attic = scheduler, faults, folder
        self._system = SystemDisk()
        self._unsynced = _Unsynced()
        self._kept = 0
        folder.mkdir()

    def _meets(self, name: str, path: Path, tear: Callable[[], object] | None = None) -> str | None:
        """Counts a call; raises where it is to fail, else gives the kind of what comes after."""
        scheduler = self._scheduler
        kind = self._faults().strike("disk", name)
        told = path.name if name == "link" and "tmp" not in path.parts else ""
        scheduler.note(f"{name} {told} {kind or ''}")
        if kind == "torn" and tear is not None:
            tear()
        if kind in {"power", "zero_length"}:
            self._lose_power(names_only=kind == "zero_length")
        if kind in {"kill", "torn"} and scheduler.process is not None:
            scheduler.kill(scheduler.process)
        scheduler.switch(name)
        if kind in _ERRNO:
            raise OSError(_ERRNO[kind], os.strerror(_ERRNO[kind]), str(path))
        return kind

    def _done(self, kind: str | None) -> None:
        if kind == "kill_after" and self._scheduler.process is not None:
            self._scheduler.kill(self._scheduler.process)
            self._scheduler.switch("killed")

    def write(self, path: Path, data: bytes) -> None:
        """As `Disk` has it; likewise the others."""
        kind = self._meets("write", path, lambda: path.write_bytes(data[: len(data) // 2]))
        self._system.write(path, data)
        self._unsynced.files.append(path)
        self._done(kind)

    def copy(self, source: Path, path: Path) -> None:
        kind = self._meets("copy", path)
        self._system.copy(source, path)
        self._unsynced.files.append(path)
        self._done(kind)

    def sync(self, path: Path) -> None:
        kind = self._meets("sync", path)
        unsynced = self._unsynced
        if path.is_dir():
            unsynced.names = [name for name in unsynced.names if name.parent != path]
            for name in [name for name in unsynced.removed if name.parent == path]:
                unsynced.removed.pop(name).unlink()
        elif kind == "lying":
            _cut(path, path.stat().st_size // 2)
        else:
            unsynced.synced.add(_version(path))
        self._done(kind)

    def link(self, source: Path, target: Path) -> None:
        kind = self._meets("link", target)
        self._system.link(source, target)
        self._unsynced.names.append(target)
        self._unsynced.files.append(target)
        self._done(kind)

    def unlink(self, path: Path) -> None:
        kind = self._meets("unlink", path)
        if path.is_file() and "tmp" not in path.parts:
            self._kept += 1
            kept = self._attic / str(self._kept)
            os.link(path, kept)
            if path in self._unsynced.removed:
                self._unsynced.removed.pop(path).unlink()
            self._unsynced.removed[path] = kept
        self._system.unlink(path)
        self._done(kind)

    def make_folder(self, path: Path) -> None:
        kind = self._meets("make_folder", path)
        self._system.make_folder(path)
        self._unsynced.names.append(path)
        self._done(kind)

    def _lose_power(self, *, names_only: bool) -> None:
        """The machine ends, with all of its processes, and of what was not synced some is lost.

        names_only: every name is left, and of files that were not synced nothing else.
        """
        draw, unsynced = self._scheduler.random, self._unsynced
        for path in unsynced.files:
            if path.is_file() and _version(path) not in unsynced.synced:
                size = path.stat().st_size
                _cut(path, 0 if names_only else draw.choice((0, size // 2, size)))
        for path in reversed(unsynced.names):
            if not names_only and draw.random() < 0.5 and path.exists():
                if path.is_file():
                    path.unlink()
                elif not any(path.iterdir()):  # else what is in it has kept its name, and so has it
                    path.rmdir()
        for path, kept in unsynced.removed.items():
            back = not names_only and draw.random() < 0.5
            if back and path.parent.is_dir() and not path.exists():
                os.link(kept, path)
            kept.unlink()
        self._unsynced = _Unsynced(synced=unsynced.synced)
        self._scheduler.kill_all()


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _cut(path: Path, size: int) -> None:
    os.truncate(path, size)
