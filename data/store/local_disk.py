"""The system calls by which a local store changes: one door, so that tests can stand in it.

`data.testing` puts a disk here that fails, or loses power, at the call that it is told.
"""

from __future__ import annotations

import os
import shutil
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
