"""Private folders that no crash leaves behind for long: each is held by a lock of its process.

A lock, not a process id, says who is alive: ids mean nothing to another container that mounts the
same store. Knows nothing of stores.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_SUFFIX = ".lock"


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new empty folder below `parent`, removed at exit with all that is in it.

    Raises OSError if it cannot be made.
    """
    parent.mkdir(parents=True, exist_ok=True)
    name, lock = _hold_new_lock(parent)
    folder = parent / name
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        (parent / (name + _SUFFIX)).unlink(missing_ok=True)
        os.close(lock)


def sweep(parent: Path) -> None:
    """Removes what processes that have died left below `parent`."""
    for path in parent.glob(f"*{_SUFFIX}"):
        with suppress(FileNotFoundError, BlockingIOError):  # swept by another, or in use
            lock = os.open(path, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()
            finally:
                os.close(lock)


def _hold_new_lock(parent: Path) -> tuple[str, int]:
    while True:
        name = os.urandom(8).hex()
        path = parent / (name + _SUFFIX)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.stat().st_ino == os.fstat(lock).st_ino:
                return name, lock
        except (BlockingIOError, FileNotFoundError):
            pass  # a sweep took the lock between its creation and ours: take another name
        os.close(lock)
