"""A disk that fails, or loses power, at the system call that a `FaultPlan` names."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from epochal.data.store.local_disk import SystemDisk
from epochal.data.testing.plan import next_fault

if TYPE_CHECKING:
    from epochal.data.testing.plan import FaultPlan, Kind

_WRITES = frozenset({"write", "copy", "link", "make_folder"})
_ERRNO = {"enospc": errno.ENOSPC, "eio": errno.EIO}


@dataclass
class _Journal:
    """What this process did and has not yet synced: a loss of power undoes it.

    names: new names whose folder was not synced. removed: unlinked name → where its file is kept
    until its folder is synced. files: all that were written. synced: the versions of files (inode,
    size, time of change) whose bytes are on the disk.
    """

    names: list[Path] = field(default_factory=list)
    removed: dict[Path, Path] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    synced: set[tuple[int, int, int]] = field(default_factory=set)


class FaultyDisk:
    """The system's calls; each plan counts each as one operation and says which of them fail."""

    def __init__(self, *plans: FaultPlan) -> None:
        self._plans = plans
        self._system = SystemDisk()
        self._journal = _Journal()

    def write(self, path: Path, data: bytes) -> None:
        """As `Disk` has it, or as the plan has it."""
        with self._faults("write", path, tear=lambda: path.write_bytes(data[: len(data) // 2])):
            self._system.write(path, data)
        self._journal.files.append(path)

    def copy(self, source: Path, path: Path) -> None:
        """As `Disk` has it, or as the plan has it."""

        def tear() -> None:
            shutil.copyfile(source, path)
            _halve(path)

        with self._faults("copy", path, tear=tear):
            self._system.copy(source, path)
        self._journal.files.append(path)

    def sync(self, path: Path) -> None:
        """As `Disk` has it, or as the plan has it; a lying disk keeps half a file unnoticed."""
        journal = self._journal
        with self._faults("sync", path) as happens:
            if path.is_dir():
                self._system.sync(path)
                journal.names = [name for name in journal.names if name.parent != path]
                for name in [name for name in journal.removed if name.parent == path]:
                    journal.removed.pop(name).unlink(missing_ok=True)
            elif happens == "lying":
                _halve(path)
            else:
                self._system.sync(path)
                journal.synced.add(_version(path))

    def link(self, source: Path, target: Path) -> None:
        """As `Disk` has it, or as the plan has it."""
        with self._faults("link", target):
            self._system.link(source, target)
        self._journal.names.append(target)
        self._journal.files.append(target)

    def unlink(self, path: Path) -> None:
        """As `Disk` has it, or as the plan has it."""
        with self._faults("unlink", path):
            if any(plan.kind == "power" for plan in self._plans):
                kept = _attic(path) / os.urandom(8).hex()
                os.link(path, kept)
                self._journal.removed[path] = kept
            self._system.unlink(path)

    def make_folder(self, path: Path) -> None:
        """As `Disk` has it, or as the plan has it."""
        with self._faults("make_folder", path):
            self._system.make_folder(path)
        self._journal.names.append(path)

    def lose_power(self) -> None:
        """Takes away all bytes and names that were not synced: a disk may lose them."""
        journal = self._journal
        for path in journal.files:
            if path.is_file() and _version(path) not in journal.synced:
                _halve(path)
        for path in reversed(journal.names):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        for path, kept in journal.removed.items():
            if path.parent.is_dir() and not path.exists():
                os.link(kept, path)
            kept.unlink()

    def lose_bytes(self) -> None:
        """Empties every file that was not synced; its name stays: a disk may write names first."""
        for path in self._journal.files:
            if path.is_file() and _version(path) not in self._journal.synced:
                os.truncate(path, 0)

    @contextmanager
    def _faults(
        self, name: str, path: Path, tear: Callable[[], object] | None = None
    ) -> Iterator[Kind | None]:
        plan = next_fault(self._plans, name)
        kind = None if plan is None else plan.kind
        if kind == "torn" and tear is not None:
            tear()
        if kind == "power":
            self.lose_power()
        if kind == "zero_length":
            self.lose_bytes()
        if plan is not None and kind in {"kill", "torn", "power", "zero_length"}:
            plan.die()
        if kind in _ERRNO and (kind != "enospc" or name in _WRITES):
            raise OSError(_ERRNO[kind], os.strerror(_ERRNO[kind]), str(path))
        try:
            yield kind
        finally:
            if plan is not None and kind == "kill_after":
                plan.die()


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _attic(path: Path) -> Path:
    """A folder in the store's `tmp`, on its disk: of files that a loss of power brings back."""
    store = next(parent for parent in path.parents if (parent / "tmp").is_dir())
    folder = store / "tmp" / "removed"
    folder.mkdir(exist_ok=True)
    return folder
