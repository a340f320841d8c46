"""The system calls by which a local store changes, in one place, so that tests can replace them.

`epochal.data.testing.disk` has a disk that fails, or loses power, at a call that a test names.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol


class Disk(Protocol):
    """What changes files. Raises OSError as the system does."""

    def write(self, path: Path, data: bytes) -> None:
        """Writes a new file."""

    def copy(self, source: Path, path: Path) -> None:
        """Copies a file's bytes to a new file."""

    def sync(self, path: Path) -> None:
        """Returns when a file's bytes, or a folder's names, are on the disk."""

    def link(self, source: Path, target: Path) -> None:
        """Gives a file a second name. FileExistsError if there is one."""

    def unlink(self, path: Path) -> None:
        """Takes a name away."""

    def make_folder(self, path: Path) -> None:
        """Makes one folder. FileExistsError if it is there."""


class SystemDisk:
    """The operating system's own calls."""

    def write(self, path: Path, data: bytes) -> None:
        """As `Disk` has it."""
        path.write_bytes(data)

    def copy(self, source: Path, path: Path) -> None:
        """As `Disk` has it."""
        shutil.copyfile(source, path)

    def sync(self, path: Path) -> None:
        """As `Disk` has it."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def link(self, source: Path, target: Path) -> None:
        """As `Disk` has it."""
        os.link(source, target)

    def unlink(self, path: Path) -> None:
        """As `Disk` has it."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """As `Disk` has it."""
        path.mkdir()


_disk: Disk = SystemDisk()


def disk() -> Disk:
    """The disk in use."""
    return _disk


def use_disk(other: Disk) -> Disk:
    """Puts another disk in place; gives the one before."""
    global _disk
    before, _disk = _disk, other
    return before


_SUFFIX = ".lock"
_NAME = re.compile(r"[0-9a-f]{16}")  # of a private folder: no path and nobody else's file
_HELD = "held-"
_TRIES = 20  # of a second name, each of which a sweep has met
_SECOND_NAME = re.compile(rf"{_HELD}[0-9a-f]{{16}}(\.[0-9a-z]+)?")


@contextmanager
def private_folder(parent: Path) -> Iterator[Path]:
    """A new empty folder below `parent`; it and all that is in it are removed after the block.

    Raises OSError if it cannot be made. What cannot be removed is left to a later `sweep`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    name, lock = _hold_new_lock(parent)
    folder = parent / name
    try:
        folder.mkdir(mode=0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            (parent / (name + _SUFFIX)).unlink()
        os.close(lock)


@contextmanager
def second_name(file: Path, parent: Path) -> Iterator[Path]:
    """Another name of a file, below `parent`, as long as the block lasts: a file stays with it.

    A lock of the file itself says that somebody reads it. Raises OSError if it cannot be made, or
    the file cannot be locked. What cannot be removed is left to a later `sweep`.
    """
    name, lock = _hold_second_name(file, parent)
    try:
        yield name
    finally:
        with suppress(OSError):
            name.unlink()
        os.close(lock)


def user_folder(parent: Path) -> Path:
    """The folder below `parent` in which this user has private folders; made if it is missing.

    Raises PermissionError if it is a link, no folder, or of another user, who could put a lock's
    name of theirs in our way.
    """
    folder = parent / f"epochal-{os.getuid()}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()  # not of what a link points to
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise PermissionError(
            errno.EPERM,
            "expected a folder of this user, no link and no file: remove it, or set TMPDIR to "
            "another place",
            str(folder),
        )
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def sweep(parent: Path) -> None:
    """Removes what processes that have died left below `parent`: of names of our form alone."""
    for folder in list(parent.iterdir()):
        # A lock comes before its folder and goes after it. Without one a folder is nobody's: after
        # a loss of power the one's name may be on the disk, and the other's not.
        if _NAME.fullmatch(folder.name) and not os.path.lexists(parent / (folder.name + _SUFFIX)):
            shutil.rmtree(folder, ignore_errors=True)  # never through a link
    for path in parent.glob(f"*{_SUFFIX}"):
        if _NAME.fullmatch(path.name.removesuffix(_SUFFIX)) is not None:
            _remove_unheld(path, path.with_suffix(""))
    for path in parent.glob(f"{_HELD}*"):
        if _SECOND_NAME.fullmatch(path.name) is not None:
            _remove_unheld(path)


def _remove_unheld(path: Path, folder: Path | None = None) -> None:
    """Removes a lock with its folder, or a second name, if no process holds it."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return  # swept by another, or of another user, or no regular file: not one of ours
    try:
        if stat.S_ISREG(os.fstat(lock).st_mode):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)  # never through a link
            path.unlink()
    except OSError:
        pass  # in use, or it cannot be removed: it harms nobody
    finally:
        os.close(lock)


def _hold_second_name(file: Path, parent: Path) -> tuple[Path, int]:
    for _ in range(_TRIES):
        name = parent / f"{_HELD}{os.urandom(8).hex()}{file.suffix}"
        os.link(file, name)  # not by `disk()`: no object changes, and no power cut needs it
        try:
            lock = os.open(name, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue  # a sweep has found it before it was locked: take another name
        except OSError:
            name.unlink(missing_ok=True)
            raise
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if name.exists():
                return name, lock
        except BlockingIOError:  # a sweep is looking at it
            name.unlink(missing_ok=True)
        except OSError:  # a file system without locks
            name.unlink(missing_ok=True)
            os.close(lock)
            raise
        os.close(lock)
    raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), str(file))


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
        except OSError:  # a file system without locks
            os.close(lock)
            path.unlink(missing_ok=True)
            raise
        os.close(lock)
